"""The websocket between page and kernel, and malformed messages on it."""

import asyncio
import json
import re
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from jupyter_server.base.websocket import WS_PING_INTERVAL
from tornado.websocket import websocket_connect

from icon_classifier.server.messages import PROTOCOL
from tests.support.models import write_model
from tests.support.servers import Server, project_copy, voila

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
PING = b"\x89\x00"


def channels_of_a_visitor(server: Server) -> str:
    """Open a page; return the address of its websocket."""
    with urllib.request.urlopen(server.url, timeout=60) as page:
        found = re.search(r'"kernelId": "([^"]+)"', page.read().decode())
    assert found is not None
    return f"{server.url.replace('http', 'ws')}api/kernels/{found[1]}/channels?session_id=1"


def is_well(server: Server) -> bool:
    """Return whether the server answers."""
    with urllib.request.urlopen(f"{server.url}healthz", timeout=5) as answer:
        return bool(answer.status == 200)


def test_websocket_without_the_subprotocol_is_refused(colour_server: Server) -> None:
    """It cannot be checked, and Voilà itself would stumble over the first photo sent back."""
    address = channels_of_a_visitor(colour_server).replace("ws", "http", 1)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(address, headers=HANDSHAKE), timeout=10)
    caught.value.close()
    assert caught.value.code == 400
    assert is_well(colour_server)


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
    assert is_well(colour_server)


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
