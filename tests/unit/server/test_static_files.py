"""What Voilà serves over HTTP: each test runs a whole Voilà application in this process."""

from __future__ import annotations

import asyncio
import gc
import gzip
import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from voila.app import Voila

from icon_classifier.page.texts import PAGE_TEXTS
from icon_classifier.server import static_files
from icon_classifier.server.listener import PageServer
from tests.support.models import LABELS, model_bytes
from tests.support.servers import ROOT

Make = Callable[..., Voila]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes a configured Voilà application for a notebook without code."""
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
    """Serve an application, request some paths, stop it."""
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


TEMPLATE = ROOT / "icon_classifier" / "server" / "slim"
(SCRIPT,) = TEMPLATE.glob("static/page-*.js")
URL = f"/voila/static/{SCRIPT.name}"


def test_policy_of_the_slim_page_forbids_inline_scripts_and_eval() -> None:
    policy = static_files.SLIM_POLICY
    assert policy["default-src"] == "'none'"
    assert policy["script-src"].split() == ["'self'", "blob:"]
    assert "unsafe" not in policy["style-src"]
    text = static_files.content_security_policy(policy)
    assert "unsafe-eval" not in text
    assert "http" not in text
    assert text.startswith("default-src 'none'; script-src 'self' blob:; ")


def test_slim_template_comes_first_and_the_base_of_voila_after_it(make: Make) -> None:
    app = make(template="slim")
    static_files.install(app)
    assert app.template_paths[0] == str(TEMPLATE)
    assert app.static_paths[0] == str(TEMPLATE / "static")
    assert any(path.endswith("voila/templates/base") for path in app.template_paths)


def test_installing_leaves_the_environment_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    app = make(template="slim")
    before = dict(os.environ)
    static_files.install(app)
    assert dict(os.environ) == before


def test_another_template_keeps_its_paths(make: Make) -> None:
    app = make(template="lab")
    before = app.template_paths, app.static_paths
    static_files.install(app)
    assert (app.template_paths, app.static_paths) == before


def test_template_and_script_use_every_text_and_no_other() -> None:
    sources = [*TEMPLATE.glob("*.html*"), *(ROOT / "web" / "src").glob("*.ts")]
    source = "".join(path.read_text() for path in sources)
    reasons = {name for name in PAGE_TEXTS if name.startswith("ended_")}  # texts[`ended_${reason}`]
    assert "texts[`ended_${" in source
    assert {*re.findall(r"\btexts\.(\w+)", source), *reasons} - {"py"} == set(PAGE_TEXTS)


async def test_every_response_has_the_security_headers(make: Make) -> None:
    app = make(template="slim")
    static_files.install(app)
    responses = await fetch(app, URL, "/voila/files/page.ipynb", "/voila/static/../app.py")
    assert [response.code for response in responses] == [200, 403, 404]
    for response in responses:
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self' blob:")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"


async def test_stock_template_gets_the_wider_policy(make: Make) -> None:
    app = make(template="lab")
    static_files.install(app)
    (response,) = await fetch(app, "/voila/static/../app.py")
    expected = static_files.content_security_policy(static_files.STOCK_POLICY)
    assert response.headers["Content-Security-Policy"] == expected


@pytest.mark.parametrize("template", ["slim", "lab"])
async def test_page_of_a_space_may_be_framed_by_hugging_face(
    make: Make, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/bears")
    app = make(template=template)
    static_files.install(app)
    (response,) = await fetch(app, "/voila/static/../app.py")
    policy = response.headers["Content-Security-Policy"]
    assert "; frame-ancestors 'self' https://huggingface.co" in policy


async def test_headers_that_the_owner_set_are_kept(make: Make) -> None:
    app = make(template="lab")
    own = {"Content-Security-Policy": "frame-ancestors https://example.org"}
    app.tornado_settings = {"headers": own}
    static_files.install(app)
    (response,) = await fetch(app, "/voila/static/../app.py")
    assert response.headers["Content-Security-Policy"] == own["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("accepted", "encoding", "suffix"),
    [("gzip, deflate, br, zstd", "br", ".br"), ("gzip", "gzip", ".gz"), ("identity", None, "")],
)
async def test_script_is_sent_compressed_and_cached_for_good(
    make: Make, accepted: str, encoding: str | None, suffix: str
) -> None:
    app = make(template="slim")
    static_files.install(app)
    (response,) = await fetch(app, URL, **{"Accept-Encoding": accepted})
    assert response.headers.get("Content-Encoding") == encoding
    assert response.headers["Content-Type"].startswith("text/javascript")
    assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert response.headers["Vary"] == "Accept-Encoding"
    assert response.body == (SCRIPT.parent / (SCRIPT.name + suffix)).read_bytes()


async def test_compressed_script_varies_by_encoding_on_jupyters_server_too() -> None:
    rules = [("/(.*)", static_files._FileDelivery, {"path": SCRIPT.parent})]
    server, (plain, port) = HTTPServer(Application(rules)), bind_unused_port()
    server.add_sockets([plain])
    request = HTTPRequest(
        f"http://localhost:{port}/{SCRIPT.name}",
        headers={"Accept-Encoding": "br"},
        decompress_response=False,
    )
    response = await AsyncHTTPClient().fetch(request)
    assert (response.headers["Content-Encoding"], response.headers["Vary"]) == (
        "br",
        "Accept-Encoding",
    )
    server.stop()
    await server.close_all_connections()


async def test_voilas_own_scripts_are_compressed_and_cached_by_version(make: Make) -> None:
    app = make(template="lab")
    static_files.install(app)
    config = app.voila_configuration.page_config_hook({}, base_url="/", notebook_path="page.ipynb")
    plain, versioned = await fetch(
        app,
        "/voila/static/voila.js",
        f"{config['fullStaticUrl']}/voila.js",
        **{"Accept-Encoding": "gzip"},
    )
    for response in (plain, versioned):
        assert response.code == 200
        assert response.headers["Content-Encoding"] == "gzip"
        assert len(response.body) < 0.5 * len(gzip.decompress(response.body))
    assert plain.headers["Cache-Control"] == "public, no-cache"
    assert versioned.headers["Cache-Control"].endswith("immutable")


@pytest.fixture
def _no_garbage_collection() -> Iterator[None]:
    """Memory in cycles stays, which otherwise lasts for minutes in a quiet server."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_garbage_collection")
@pytest.mark.parametrize("seconds", [0, 0.2], ids=["sending", "waiting until it can send"])
async def test_file_is_closed_with_the_connection_of_a_client_that_does_not_read(
    tmp_path: Path, seconds: float
) -> None:
    file = tmp_path / "large.bin"
    file.write_bytes(bytes(2**23))  # more than the buffers of both ends hold

    def is_open() -> bool:
        return any(each.path == str(file) for each in psutil.Process().open_files())

    server = PageServer(Application([("/(.*)", static_files._FileDelivery, {"path": tmp_path})]))
    plain, port = bind_unused_port()
    server.add_sockets([plain])
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        line.connect(("127.0.0.1", port))
        line.sendall(2 * b"GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(60):
            while not is_open():
                await asyncio.sleep(0)
            await asyncio.sleep(seconds)
    async with asyncio.timeout(60):
        while is_open():
            await asyncio.sleep(0.01)
    server.stop()
    await server.close_all_connections()


async def test_scripts_that_the_slim_page_does_not_use_are_not_compressed_on_demand(
    make: Make,
) -> None:
    """That takes fifteen times as long, and anybody may ask for them."""
    app = make(template="slim")
    static_files.install(app)
    (response,) = await fetch(app, "/voila/static/voila.js", **{"Accept-Encoding": "gzip"})
    assert response.code == 200
    assert "Content-Encoding" not in response.headers


def test_page_config_holds_the_labels_and_the_texts(make: Make, tmp_path: Path) -> None:
    app = make(template="slim")
    static_files.install(app)
    (tmp_path / "opening.ipynb").write_text("ui.Classifier()")
    about = {"base_url": "/", "notebook_path": "opening.ipynb"}
    hook = app.voila_configuration.page_config_hook
    assert not hook({}, **about)["labels"]
    (tmp_path / "export.onnx").write_bytes(model_bytes())
    config = hook({"kept": 1}, **about)
    assert config["labels"] == LABELS
    assert config["title"] == "Red, green or blue?"
    assert '<meta property="og:title" content="Red, green or blue?">' in config["head"]
    assert config["texts"] == PAGE_TEXTS
    assert config["kept"] == 1


@pytest.mark.parametrize(
    ("settings", "limit"), [({}, 10 * 2**20), ({"websocket_max_message_size": 5}, 5)]
)
def test_page_config_holds_the_limit_on_a_message(
    make: Make, settings: dict[str, int], limit: int
) -> None:
    app = make(template="slim")
    app.tornado_settings = settings
    static_files.install(app)
    config = app.voila_configuration.page_config_hook({}, base_url="/", notebook_path="page.ipynb")
    assert config["maxMessage"] == limit


def test_page_config_hook_of_the_owner_has_the_last_word(make: Make) -> None:
    app = make(template="slim", page_config_hook=lambda config, **_: {**config, "labels": ["own"]})
    static_files.install(app)
    config = app.voila_configuration.page_config_hook({}, base_url="/", notebook_path="page.ipynb")
    assert config["labels"] == ["own"]
    assert config["texts"] == PAGE_TEXTS
