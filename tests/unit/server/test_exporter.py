from pathlib import Path
from typing import Any

import jinja2
import pytest
from voila import notebook_renderer

from icon_classifier.server import exporter
from icon_classifier.server.exporter import CodeCache, PageExporter


def test_a_template_is_compiled_once_until_it_is_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    generate = jinja2.Environment._generate

    def counting(self: jinja2.Environment, *args: Any, **kwargs: Any) -> str:
        compiled.append("once")
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(jinja2.Environment, "_generate", counting)
    cache = CodeCache()
    (tmp_path / "page.j2").write_text("Hello {{ name }}")

    def render(name: str) -> str:
        loader = jinja2.FileSystemLoader(tmp_path)
        environment = jinja2.Environment(loader=loader, bytecode_cache=cache, autoescape=True)
        return environment.get_template("page.j2").render(name=name)

    assert [render("a"), render("b")] == ["Hello a", "Hello b"]
    assert len(compiled) == 1
    (tmp_path / "page.j2").write_text("Goodbye {{ name }}")
    assert render("c") == "Goodbye c"
    assert len(compiled) == 2


def test_environments_share_what_was_compiled() -> None:
    first, second = PageExporter().environment, PageExporter().environment
    assert first is not second
    assert first.bytecode_cache is second.bytecode_cache is exporter._CODES


def test_voila_makes_its_exporter_by_this_name() -> None:
    assert isinstance(notebook_renderer.VoilaExporter, type)
