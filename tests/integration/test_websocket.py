"""The websocket between page and kernel, and malformed messages on it."""

import re
import urllib.error
import urllib.request

import pytest
from tornado.websocket import websocket_connect

from icon_classifier.server.messages import PROTOCOL
from tests.support.servers import Server


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
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    address = channels_of_a_visitor(colour_server).replace("ws", "http", 1)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(address, headers=handshake), timeout=10)
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
