"""The page behind proxies that keep something back, and under a prefix."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from icon_classifier.server.messages import PROTOCOL
from icon_classifier.server.visitor import smoke
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.servers import Server, project_copy, voila

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Protocol": PROTOCOL,
}


def kernel_of_a_visitor(server: Server) -> str:
    """Open a page; return its kernel's id."""
    with urllib.request.urlopen(server.url, timeout=60) as page:
        found = re.search(r'"kernelId": "([^"]+)"', page.read().decode())
    assert found is not None
    return found[1]


def status(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> int:
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://site.example", "site.example:80"),
        ("https://site.example", "site.example:443"),
        ("https://site.example", "site.example"),
        ("http://site.example:80", "Site.Example"),
        ("http://[::1]", "[::1]:80"),
    ],
)
async def test_default_port_in_the_host_is_the_same_host(
    colour_server: Server, origin: str, host: str
) -> None:
    address = f"api/kernels/{kernel_of_a_visitor(colour_server)}/channels?session_id=1"
    url = colour_server.url.replace("http", "ws") + address
    request = HTTPRequest(url, headers={"Origin": origin, "Host": host})
    socket = await websocket_connect(request, subprotocols=[PROTOCOL])
    socket.close()
    while await socket.read_message() is not None:
        pass  # what the kernel said before


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Origin": "https://site.example"}, "the page is at https://site.example, but the proxy"),
        ({"Origin": "http://localhost:1"}, "the page is at http://localhost:1, but the proxy"),
        ({"Upgrade": "", "Connection": "close"}, "does not pass WebSockets on (Upgrade)"),
    ],
)
def test_what_a_proxy_withholds_is_said_in_the_log_and_to_the_page(
    colour_server: Server, headers: dict[str, str], reason: str
) -> None:
    kernel = f"{colour_server.url}api/kernels/{kernel_of_a_visitor(colour_server)}"
    assert status(kernel) == 200
    sent = {name: value for name, value in (HANDSHAKE | headers).items() if value}
    assert status(f"{kernel}/channels?session_id=1", sent) == 403
    assert status(kernel) == 421
    assert reason in colour_server.text
    assert "docs/deploying.md" in colour_server.text


def test_request_that_is_no_page_marks_no_kernel(colour_server: Server) -> None:
    kernel = f"{colour_server.url}api/kernels/{kernel_of_a_visitor(colour_server)}"
    plain = {"Sec-WebSocket-Protocol": PROTOCOL}
    assert status(f"{kernel}/channels?session_id=1", plain) == 403
    assert status(kernel) == 200


def test_head_of_the_health_check_is_200(colour_server: Server) -> None:
    assert status(f"{colour_server.url}healthz", method="HEAD") == 200


@pytest.fixture(scope="module", params=["/icons", "/icons/"])
def server_with_prefix(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = project_copy(tmp_path_factory.mktemp("prefix"))
    write_model(folder)
    with voila(folder, f"--Voila.base_url={request.param}") as server:
        yield server


@pytest.mark.slow
def test_page_under_a_prefix_opens_with_and_without_its_slash(
    server_with_prefix: Server, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(encode(Image.new("RGB", (40, 30), "red")))
    for address in ("icons", "icons/"):
        with urllib.request.urlopen(server_with_prefix.url + address, timeout=60) as page:
            assert page.url == server_with_prefix.url + "icons/"
            assert b'"kernelId"' in page.read()
    assert status(f"{server_with_prefix.url}icons/healthz", method="HEAD") == 200
    assert smoke(f"{server_with_prefix.url}icons/", photo, "red", 60).label == "red"
