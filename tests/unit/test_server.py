import json

import pytest
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1

from icon_classifier.server import is_well_formed

PARTS = [json.dumps(part).encode() for part in ({"msg_type": "comm_msg"}, {}, {}, {"data": 1})]


def message(*buffers: bytes) -> bytes:
    data: bytes = serialize_msg_to_ws_v1([*PARTS, *buffers], "shell")
    return data


@pytest.mark.parametrize("buffers", [(), (b"",), (b"photo" * 1000, b"")], ids=len)
def test_what_a_page_sends(buffers: tuple[bytes, ...]) -> None:
    assert is_well_formed(message(*buffers))


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff" * 8, id="2 to the 64 parts"),
        pytest.param((10**9).to_bytes(8, "little") + message()[8:], id="a billion parts"),
        pytest.param(message()[:-1], id="cut off"),
        pytest.param(message() + b"x", id="too long"),
        pytest.param(bytes(8) + message()[8:], id="no parts"),
        pytest.param(message()[:8] + b"\xff" * 8 + message()[16:], id="offset beyond the end"),
        pytest.param(message()[:16] + bytes(8) + message()[24:], id="offset that goes back"),
        pytest.param(b"\x00\x00\x00\x02" + bytes(60), id="Jupyter's older form"),
    ],
)
def test_what_nobody_should_send(forged: bytes) -> None:
    assert not is_well_formed(forged)
