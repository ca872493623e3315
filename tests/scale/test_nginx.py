"""The page and the JSON API behind nginx, as it comes and as the documents say."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from icon_classifier.cli.smoke import smoke
from icon_classifier.page.texts import PAGE_TEXTS
from tests.scale.nginx import nginx, write_config
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.servers import ROOT, Server, free_port, project_copy, running, voila

AS_IT_COMES = "location / {\n    proxy_pass http://127.0.0.1:8866;\n}\n"
WITHOUT_HOST = """location / {
    proxy_pass http://127.0.0.1:8866;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
}
"""


def documented(target: str) -> str:
    """Return the location of the documents that passes requests to `target`."""
    text = (ROOT / "docs" / "deploying.md").read_text()
    locations = re.findall(r"^    location [^}]+}\n", text, re.MULTILINE)
    [found] = [each for each in locations if f"proxy_pass {target};" in each]
    return textwrap.dedent(found)


def config(folder: Path, port: int, location: str, server: Server) -> Path:
    location = re.sub(r"http://127\.0\.0\.1:\d+", server.url.rstrip("/"), location)
    listen = f"listen 127.0.0.1:{port};\n{location}"
    return write_config(folder, f"pid nginx.pid; events {{}}\nhttp {{ server {{ {listen} }} }}\n")


@pytest.fixture
def page_server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "page"
    folder.mkdir()
    write_model(project_copy(folder))
    with voila(folder, "--PageKernelManager.trusted_proxies=1") as server:
        yield server


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        (AS_IT_COMES, "does not pass WebSockets on (Upgrade)"),
        (WITHOUT_HOST, "let it pass Host on"),
    ],
)
def test_page_and_log_say_what_nginx_withholds(
    page_server: Server,
    new_visitor: Callable[[], Page],
    tmp_path: Path,
    location: str,
    reason: str,
) -> None:
    port = free_port()
    with nginx(tmp_path, config(tmp_path, port, location, page_server), port) as url:
        page = new_visitor()
        page.goto(url)
        expect(page.get_by_text(PAGE_TEXTS["ended_proxy"])).to_be_visible(timeout=90_000)
        assert reason in page_server.text


def test_page_answers_with_the_documented_lines(page_server: Server, tmp_path: Path) -> None:
    photo = tmp_path / "red.png"
    photo.write_bytes(encode(Image.new("RGB", (40, 30), "red")))
    location, port = documented("http://127.0.0.1:8866"), free_port()
    with nginx(tmp_path, config(tmp_path, port, location, page_server), port) as url:
        assert smoke(url, photo, "red", 120).label == "red"
        assert httpx.head(f"{url}healthz").status_code == 200
    assert "X-Forwarded-For" not in page_server.text


def test_api_answers_under_the_documented_prefix(tmp_path: Path) -> None:
    write_model(tmp_path)
    port, target = free_port(), free_port()
    command = ["-m", "icon_classifier", "api", "--model", str(tmp_path), "--port", str(target)]
    command += ["--root-path", "/icons"]
    with running(command, port=target, ready="healthz") as server:
        location = documented("http://127.0.0.1:8867/")
        with nginx(tmp_path, config(tmp_path, port, location, server), port) as url:
            page = httpx.get(f"{url}icons/docs/", follow_redirects=True)
            assert str(page.url) == f"{url}icons/docs"
            for link in re.findall(r'href="([^"]+)"', page.text):
                assert httpx.get(page.url.join(link)).status_code == 200
            refused = httpx.post(f"{url}icons/classify", content=b"only text")
            assert refused.json()["type"] == "/icons/docs#unsupported-image"
