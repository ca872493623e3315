"""The websocket between page and kernel: forged messages, pings, and proxies in between."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from jupyter_server.base.websocket import WS_PING_INTERVAL
from PIL import Image
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from icon_classifier.cli.smoke import smoke
from icon_classifier.server.messages import PROTOCOL
from tests.support.models import write_model
from tests.support.pictures import encode
from tests.support.servers import Server, project_copy, voila

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
PING = b"\x89\x00"


def kernel_of_a_visitor(server: Server) -> str:
    """Open a page; return the address of its kernel."""
    with urllib.request.urlopen(server.url, timeout=60) as page:
        found = re.search(r'"kernelId": "([^"]+)"', page.read().decode())
    assert found is not None
    return f"{server.url}api/kernels/{found[1]}"


def channels_of_a_visitor(server: Server) -> str:
    """Open a page; return the address of its websocket."""
    return f"{kernel_of_a_visitor(server)}/channels?session_id=1".replace("http", "ws", 1)


def status(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> int:
    """Send a request; return the status of the answer."""
    request = urllib.request.Request(url, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_websocket_without_the_subprotocol_is_refused(colour_server: Server) -> None:
    """It cannot be checked, and Voilà itself would stumble over the first photo sent back."""
    address = channels_of_a_visitor(colour_server).replace("ws", "http", 1)
    assert status(address, HANDSHAKE) == 400
    assert status(f"{colour_server.url}healthz") == 200


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(b"\xff" * 8, id="2 to the 64 parts"),
        pytest.param((10**10).to_bytes(8, "little") + bytes(100), id="many parts"),
        pytest.param(b"", id="nothing"),
        pytest.param('{"channel": "shell"}', id="text"),
    ],
)
async def test_forged_message_closes_only_its_websocket(
    colour_server: Server, forged: bytes | str
) -> None:
    socket = await websocket_connect(channels_of_a_visitor(colour_server), subprotocols=[PROTOCOL])
    try:
        await socket.write_message(forged, binary=isinstance(forged, bytes))
        while await socket.read_message() is not None:
            pass  # what the kernel said before
    finally:
        socket.close()
    assert socket.close_code == 1002
    assert status(f"{colour_server.url}healthz") == 200


@pytest.mark.slow
async def test_connection_is_pinged_and_closed_when_it_does_not_answer(tmp_path: Path) -> None:
    """Routers close what is silent: Heroku's after 55 s. The settings are milliseconds."""
    assert WS_PING_INTERVAL <= 30_000
    settings = json.loads((project_copy(tmp_path) / "voila.json").read_text())
    settings["Voila"]["tornado_settings"] |= {"ws_ping_interval": 200, "ws_ping_timeout": 1000}
    (tmp_path / "voila.json").write_text(json.dumps(settings))
    write_model(tmp_path)
    with voila(tmp_path) as server:
        answering = await websocket_connect(channels_of_a_visitor(server), subprotocols=[PROTOCOL])
        address = urlsplit(channels_of_a_visitor(server))
        head = {"Host": address.netloc, "Sec-WebSocket-Protocol": PROTOCOL, **HANDSHAKE}
        lines = [f"GET {address.path}?{address.query} HTTP/1.1", *map(": ".join, head.items())]
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode())
            async with asyncio.timeout(60):
                received = await reader.read()  # until the server closes it
        finally:
            writer.close()
            await writer.wait_closed()
        assert received.startswith(b"HTTP/1.1 101 ")
        assert received.count(PING) >= 3
        assert answering.close_code is None
        answering.close()
        while await answering.read_message() is not None:
            pass


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
    headers = {"Origin": origin, "Host": host}
    request = HTTPRequest(channels_of_a_visitor(colour_server), headers=headers)
    socket = await websocket_connect(request, subprotocols=[PROTOCOL])
    socket.close()
    while await socket.read_message() is not None:
        pass  # what the kernel said before


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Origin": "https://site.example"}, "the page is at https://site.example, but the proxy"),
        ({"Origin": "http://localhost:1"}, "the page is at http://localhost:1, but the proxy"),
        ({"Origin": "http://["}, "the page is at http://[, but the proxy"),
        ({"Upgrade": "", "Connection": "close"}, "does not pass WebSockets on (Upgrade)"),
    ],
)
def test_what_a_proxy_withholds_is_said_in_the_log_and_to_the_page(
    colour_server: Server, headers: dict[str, str], reason: str
) -> None:
    kernel = kernel_of_a_visitor(colour_server)
    assert status(kernel) == 200
    sent = HANDSHAKE | {"Sec-WebSocket-Protocol": PROTOCOL} | headers
    sent = {name: value for name, value in sent.items() if value}
    assert status(f"{kernel}/channels?session_id=1", sent) == 403
    assert status(kernel) == 421
    assert reason in colour_server.text
    assert "docs/deploying.md" in colour_server.text


def test_request_of_a_page_without_a_proper_address_is_refused(colour_server: Server) -> None:
    shutdown = f"{colour_server.url}voila/api/shutdown/00000000-0000-0000-0000-000000000000"
    assert status(shutdown, {"Origin": "http://["}, method="POST") == 403
    assert status(shutdown, {"Origin": colour_server.url.rstrip("/")}, method="POST") == 404


def test_request_that_is_no_page_marks_no_kernel(colour_server: Server) -> None:
    kernel = kernel_of_a_visitor(colour_server)
    plain = {"Sec-WebSocket-Protocol": PROTOCOL}
    assert status(f"{kernel}/channels?session_id=1", plain) == 403
    assert status(kernel) == 200


def test_head_of_the_health_check_is_200(colour_server: Server) -> None:
    assert status(f"{colour_server.url}healthz", method="HEAD") == 200


@pytest.mark.slow
def test_page_behind_a_proxy_under_a_prefix_opens_and_is_previewed(tmp_path: Path) -> None:
    write_model(project_copy(tmp_path))
    photo = tmp_path / "examples" / "photo.png"
    photo.parent.mkdir()
    photo.write_bytes(encode(Image.new("RGB", (40, 30), "red")))
    options = ("--Voila.base_url=/icons", "--PageKernelManager.trusted_proxies=1")
    with voila(tmp_path, *options) as server:
        headers = {
            "Host": "site.example",
            "User-Agent": "facebookexternalhit/1.1",
            "X-Forwarded-Proto": "https",
        }
        request = urllib.request.Request(f"{server.url}icons/", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as shown:
            assert b'"og:image" content="https://site.example/icons/example.jpg"' in shown.read()
        for address in ("icons", "icons/"):
            with urllib.request.urlopen(server.url + address, timeout=60) as page:
                assert page.url == server.url + "icons/"
                assert b'"kernelId"' in page.read()
        assert status(f"{server.url}icons/healthz", method="HEAD") == 200
        assert smoke(f"{server.url}icons/", photo, "red", 60).label == "red"
