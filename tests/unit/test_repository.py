"""What holds for every file of the repository."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def committed(*patterns: str) -> list[Path]:
    """Files under version control, and new ones that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    answer = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return [path for name in answer.stdout.splitlines() if (path := ROOT / name).is_file()]


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


NOTEBOOKS = names(committed("*.ipynb"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_committed_without_outputs(name: str) -> None:
    cells = json.loads((ROOT / name).read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert not [cell for cell in code if cell["outputs"]]
    assert {cell["execution_count"] for cell in code} == {None}


def test_hosts_get_every_package_pinned() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    options = [line for line in lines if line.startswith("-")]
    packages = [line for line in lines if line and not line.startswith(("#", "-"))]
    assert options == ["--extra-index-url https://download.pytorch.org/whl/cpu"]
    assert len(packages) > 100
    assert not [line for line in packages if not re.match(r"[\w.-]+==[\w.]+( ; .+)?$", line)]
    assert not [line for line in packages if re.match(r"nvidia|cuda|triton", line)]


def test_lock_holds_the_versions_of_requirements_with_hashes() -> None:
    apart = ("torch==", "torchvision==", "rfc3987-syntax==", "lark==")
    wanted = {
        line.partition(" ;")[0]
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if "==" in line and not line.startswith(apart)
    }
    lock = (ROOT / "requirements.lock").read_text()
    hashed = set(re.findall(r"^(\S+==[^\s;]+)[^\n]* \\\n +--hash=sha256:", lock, re.MULTILINE))
    assert wanted <= hashed
    assert {line.partition("==")[0] for line in hashed - wanted} == {"fastbook", "pip"}


def test_test_tools_do_not_move_a_version_of_the_app() -> None:
    tools = set(re.findall(r"^(\S+)==", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE))
    hosts = set(re.findall(r"^(\S+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert "pytest" in tools
    assert not tools & hosts


def test_every_target_is_explained_and_phony() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, re.MULTILINE))
    explained = set(re.findall(r"^([a-z][\w-]*):[^=\n]*## \S", makefile, re.MULTILINE))
    phony = set(" ".join(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)).split())
    assert targets == explained
    assert targets == phony
    listed = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert targets == set(re.findall(r"^make (\S+)", listed, re.MULTILINE))
