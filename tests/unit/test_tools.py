import pytest

from scripts import tools
from scripts.environment import SetupError


def test_what_is_there_is_found_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} was installed")

    monkeypatch.setattr(tools, "apt_install", refuse)
    tools.install_tool("sh")


def test_what_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(tools, "apt_install", asked.append)
    with pytest.raises(SetupError, match="apt install no-such-program"):
        tools.install_tool("no-such-program")
    assert asked == ["no-such-program"]
