import json

import pytest
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1

from icon_classifier.errors import RequestError
from icon_classifier.server.messages import (
    Backlog,
    is_allowed,
    is_well_formed,
    read_frame,
    read_kernels,
    without_the_inside,
)

HEADER = {"msg_id": "1", "msg_type": "comm_msg", "session": "s"}
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


def test_more_parts_than_any_widget_has() -> None:
    assert is_well_formed(message(*[b"x"] * 58))
    assert not is_well_formed(message(*[b"x"] * 59))


def pack(*parts: object, channel: str = "shell") -> bytes:
    whole = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
    data: bytes = serialize_msg_to_ws_v1(whole, channel)
    return data


def of_kind(kind: str, channel: str = "shell", **content: object) -> bytes:
    content = {"comm_id": "1", "data": {}} | content
    return pack(HEADER | {"msg_type": kind}, {}, {}, content, channel=channel)


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param("text", id="text"),
        pytest.param(pack(HEADER, {}, {}, b"{"), id="cut off"),
        pytest.param(pack(HEADER, {}, {}, b"[" * 100_000), id="deep"),
        pytest.param(pack(HEADER, {}, {}, b"\xff\xfe"), id="no UTF-8"),
        pytest.param(pack(HEADER, {}, {}, []), id="no object"),
        pytest.param(pack({}, {}, {}, {}), id="no header"),
        pytest.param(pack(HEADER | {"msg_type": 3}, {}, {}, {}), id="kind of no kind"),
        pytest.param(pack(HEADER, {}, {}, {"comm_id": ["1"], "data": {}}), id="comm_id"),
        pytest.param(pack(HEADER, {}, {}, {"comm_id": "1", "data": "x"}), id="data"),
        pytest.param(pack(HEADER, {}, {}, {"x": "x" * 2**20}), id="a megabyte of JSON"),
    ],
)
def test_what_is_no_message(frame: bytes | str) -> None:
    with pytest.raises(RequestError):
        read_frame(frame)


@pytest.mark.parametrize(
    "frame",
    [
        of_kind("comm_msg"),
        of_kind("comm_close"),
        of_kind("comm_info_request"),
        of_kind("comm_open", target_name="jupyter.widget.control"),
        of_kind("kernel_info_request"),
        of_kind("kernel_info_request", "control"),
    ],
)
def test_what_pages_need_passes(frame: bytes) -> None:
    assert is_allowed(read_frame(frame))


@pytest.mark.parametrize(
    "frame",
    [
        of_kind("execute_request"),
        of_kind("shutdown_request", "control"),
        of_kind("comm_msg", "control"),
        of_kind("comm_msg", "stdin"),
        of_kind("comm_msg", "iopub"),
        of_kind("comm_open", target_name="jupyter.widget"),
        of_kind("comm_open"),
        of_kind(""),
    ],
)
def test_what_no_page_needs_is_dropped(frame: bytes) -> None:
    assert not is_allowed(read_frame(frame))


def test_what_the_kernel_says() -> None:
    parent, idle = {"msg_id": "7"}, {"execution_state": "idle"}
    assert read_kernels(pack({"msg_type": "status"}, parent, {}, idle)) == ("status", parent, idle)
    assert read_kernels(pack({"msg_type": "comm_msg"}, parent, {}, idle)) == ("comm_msg", {}, {})


def test_tracebacks_stay_inside() -> None:
    content = {"ename": "ValueError", "evalue": "secret", "traceback": ["secret"]}
    error = pack({"msg_type": "error"}, {"msg_id": "7"}, {}, content)
    blank = without_the_inside(error, "error", content)
    assert blank is not None
    assert is_well_formed(blank)
    kind, parent, said = read_kernels(blank)
    assert (kind, parent) == ("error", {"msg_id": "7"})
    assert "secret" not in str(said)
    stream = {"name": "stderr", "text": "Traceback (most recent call last):\n"}
    assert without_the_inside(b"", "stream", stream) is None


@pytest.mark.parametrize(
    ("kind", "content"),
    [("stream", {"name": "stdout", "text": "hello"}), ("status", {"execution_state": "idle"})],
)
def test_the_rest_passes_as_it_is(kind: str, content: dict[str, str]) -> None:
    message = pack({"msg_type": kind}, {}, {}, content)
    assert without_the_inside(message, kind, content) is message


def test_backlog() -> None:
    backlog = Backlog(100, 3)
    assert backlog.add("a", 60)
    assert backlog.add("b", 40)
    assert not backlog.add("c", 1)
    backlog.done("a")
    backlog.done("never sent")
    assert backlog.add("d", 40)
    assert not backlog.add("e", 0)
