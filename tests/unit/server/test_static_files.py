"""What Voilà serves, asked over HTTP: each test has a whole Voilà application in this process."""

from __future__ import annotations

import gzip
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from voila.app import Voila

from icon_classifier.errors import SettingsError
from icon_classifier.server import static_files as delivery
from tests.support.models import LABELS, model_bytes

Make = Callable[..., Voila]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a configured Voilà application for a notebook without code."""
    monkeypatch.setenv("JUPYTER_PATH", os.environ.get("JUPYTER_PATH", ""))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setattr("signal.signal", lambda *_: None)  # Voila.initialize takes SIGTERM
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Bears")])
    notebook.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(notebook, tmp_path / "page.ipynb")
    monkeypatch.chdir(tmp_path)

    def make(**configuration: Any) -> Voila:
        app = Voila()
        app.initialize(["page.ipynb", "--no-browser"])
        for name, value in configuration.items():
            setattr(app.voila_configuration, name, value)
        return app

    yield make
    Voila.clear_instance()


async def fetch(app: Voila, *paths: str, **headers: str) -> list[HTTPResponse]:
    """Serve an application, ask it for some paths, stop it."""
    app.app = Application(**app.init_settings())
    app.app.add_handlers(".*$", app.init_handlers())
    server = HTTPServer(app.app)
    socket, port = bind_unused_port()
    server.add_sockets([socket])
    client = AsyncHTTPClient(force_instance=True)
    try:
        return [
            await client.fetch(
                HTTPRequest(
                    f"http://127.0.0.1:{port}{path}", headers=headers, decompress_response=False
                ),
                raise_error=False,
            )
            for path in paths
        ]
    finally:
        client.close()
        server.stop()
        await server.close_all_connections()


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A built slim template of two files; the folder of its built files."""
    folder = tmp_path / "template" / "voila" / "templates" / "slim" / "static" / "build"
    folder.mkdir(parents=True)
    (folder / "page-ABCD1234.js").write_text("script")
    (folder / "page-ABCD1234.js.br").write_bytes(b"packed by brotli")
    (folder / "page-ABCD1234.js.gz").write_bytes(gzip.compress(b"script"))
    (folder / "assets.html.j2").write_text("")
    monkeypatch.setattr(delivery, "_DATA", tmp_path / "template")
    monkeypatch.setattr(delivery, "_BUILT", folder / "assets.html.j2")
    return folder


SCRIPT = "/voila/templates/slim/static/build/page-ABCD1234.js"


def test_the_slim_page_forbids_inline_scripts_and_eval() -> None:
    policy = delivery.SLIM_POLICY
    assert policy["default-src"] == "'none'"
    assert policy["script-src"].split() == ["'self'", "blob:"]
    assert "unsafe" not in policy["style-src"]
    text = delivery.content_security_policy(policy)
    assert "unsafe-eval" not in text
    assert "http" not in text
    assert text.startswith("default-src 'none'; script-src 'self' blob:; ")


@pytest.mark.usefixtures("built")
def test_the_slim_template_is_served_where_it_is_built(make: Make) -> None:
    app = make(template="slim")
    delivery.install(app)
    assert app.voila_configuration.template == "slim"
    assert any(str(delivery._DATA) in path for path in app.template_paths)


def test_the_stock_template_is_served_where_the_slim_one_is_not_built(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "_BUILT", tmp_path / "nowhere")
    app = make(template="slim")
    with caplog.at_level(logging.WARNING, "icon_classifier.server.static_files"):
        delivery.install(app)
    assert app.voila_configuration.template == "lab"
    assert "npm run build" in caplog.text


@pytest.mark.usefixtures("built")
def test_another_template_stays(make: Make) -> None:
    app = make(template="lab")
    delivery.install(app)
    assert app.voila_configuration.template == "lab"


@pytest.mark.usefixtures("built")
async def test_every_answer_has_the_headers(make: Make) -> None:
    app = make(template="slim")
    delivery.install(app)
    answers = await fetch(app, SCRIPT, "/voila/files/page.ipynb", "/voila/static/../app.py")
    assert [answer.code for answer in answers] == [200, 403, 404]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self' blob:")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"


async def test_the_stock_template_gets_the_wider_policy(make: Make) -> None:
    app = make(template="lab")
    delivery.install(app)
    (answer,) = await fetch(app, "/voila/static/../app.py")
    expected = delivery.content_security_policy(delivery.STOCK_POLICY)
    assert answer.headers["Content-Security-Policy"] == expected


async def test_what_the_owner_sets_stays(make: Make) -> None:
    app = make(template="lab")
    own = {"Content-Security-Policy": "frame-ancestors https://example.org"}
    app.tornado_settings = {"headers": own}
    delivery.install(app)
    (answer,) = await fetch(app, "/voila/static/../app.py")
    assert answer.headers["Content-Security-Policy"] == own["Content-Security-Policy"]


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    ("accepted", "packing", "body"),
    [
        ("gzip, deflate, br, zstd", "br", b"packed by brotli"),
        ("gzip", "gzip", None),
        ("identity", None, b"script"),
    ],
)
async def test_a_hashed_file_travels_packed_and_is_kept(
    make: Make, accepted: str, packing: str | None, body: bytes | None
) -> None:
    app = make(template="slim")
    delivery.install(app)
    (answer,) = await fetch(app, SCRIPT, **{"Accept-Encoding": accepted})
    assert answer.headers.get("Content-Encoding") == packing
    assert answer.headers["Content-Type"].startswith("text/javascript")
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert answer.body == body if body else gzip.decompress(answer.body) == b"script"


async def test_voilas_own_scripts_are_packed_and_kept_by_version(make: Make) -> None:
    app = make(template="lab")
    delivery.install(app)
    config = app.voila_configuration.page_config_hook({}, base_url="/")
    plain, versioned = await fetch(
        app,
        "/voila/static/voila.js",
        f"{config['fullStaticUrl']}/voila.js",
        **{"Accept-Encoding": "gzip"},
    )
    for answer in (plain, versioned):
        assert answer.code == 200
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len(answer.body) < 0.5 * len(gzip.decompress(answer.body))
    assert plain.headers["Cache-Control"] == "public, no-cache"
    assert versioned.headers["Cache-Control"].endswith("immutable")


def test_the_page_learns_the_models_labels(make: Make, tmp_path: Path) -> None:
    app = make(template="lab")
    delivery.install(app)
    hook = app.voila_configuration.page_config_hook
    assert hook({}, base_url="/")["labels"] == []
    (tmp_path / "export.onnx").write_bytes(model_bytes())
    assert hook({"kept": 1}, base_url="/")["labels"] == LABELS
    assert hook({"kept": 1}, base_url="/")["kept"] == 1


@pytest.mark.parametrize(
    "entry",
    [b"", b"\x0a\x0ficon_classifier\x12\x03{}}", b"\x0a\x0ficon_classifier\x12\x02[]"],
    ids=["nothing", "no JSON", "no labels"],
)
def test_a_file_without_labels_names_none(tmp_path: Path, entry: bytes) -> None:
    path = tmp_path / "export.onnx"
    path.write_bytes(b"something else" + entry)
    assert delivery._labels_of(path, 0) == []


def test_long_metadata_are_read_whole(tmp_path: Path) -> None:
    text = json.dumps({"labels": [f"class_{number}" for number in range(4000)]}).encode()
    length = bytes([len(text) & 0x7F | 0x80, len(text) >> 7 & 0x7F | 0x80, len(text) >> 14])
    path = tmp_path / "export.onnx"
    path.write_bytes(b"\x0a\x0ficon_classifier\x12" + length + text)
    labels = delivery._labels_of(path, 1)
    assert (len(labels), labels[-1]) == (4000, "class 3999")


async def test_it_refuses_a_server_that_has_its_handlers(make: Make) -> None:
    app = make(template="lab")
    app.app = Application()
    with pytest.raises(SettingsError, match="before"):
        delivery.install(app)
