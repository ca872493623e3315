import json

import pytest
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1

from icon_classifier.errors import RequestError
from icon_classifier.server import messages
from icon_classifier.server.messages import (
    Backlog,
    parse_kernel_message,
    parse_page_message,
    redact_traceback,
)

HEADER = {"msg_id": "1", "msg_type": "comm_msg", "session": "s"}
CONTENT = {"comm_id": "1", "data": {"method": "custom"}}
PARTS = [json.dumps(part).encode() for part in (HEADER, {}, {}, CONTENT)]


def message(*buffers: bytes) -> bytes:
    data: bytes = serialize_msg_to_ws_v1([*PARTS, *buffers], "shell")
    return data


@pytest.mark.parametrize("buffers", [(), (b"",), (b"photo" * 1000, b"")], ids=len)
def test_message_of_a_page_is_parsed(buffers: tuple[bytes, ...]) -> None:
    frame = parse_page_message(message(*buffers))
    assert frame is not None
    assert (frame.channel, frame.msg_id) == ("shell", "1")
    assert [bytes(part) for part in frame.parts[1:]] == [*PARTS[1:], *buffers]


def test_kernel_gets_a_header_of_our_own() -> None:
    """Of one that it has seen, or whose version it does not know, it would log a traceback."""
    strange = HEADER | {"version": "99", "username": "x", "date": "never", "more": []}
    first, second = (parse_page_message(pack(strange, {}, {}, CONTENT)) for _ in range(2))
    assert first is not None
    assert second is not None
    header = json.loads(bytes(first.parts[0]))
    assert header.items() >= (HEADER | {"version": "5.3", "username": ""}).items()
    assert first.parts[0] != second.parts[0]


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
def test_forged_head_is_refused(forged: bytes) -> None:
    with pytest.raises(RequestError, match="head"):
        parse_page_message(forged)


def test_message_of_more_than_64_parts_is_refused() -> None:
    parse_page_message(message(*[b"x"] * 59))
    with pytest.raises(RequestError, match="head"):
        parse_page_message(message(*[b"x"] * 60))


def pack(*parts: object, channel: str = "shell") -> bytes:
    whole = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
    data: bytes = serialize_msg_to_ws_v1(whole, channel)
    return data


def test_json_of_more_than_64_kb_is_refused() -> None:
    assert parse_page_message(pack(HEADER, {}, {"x": "y" * 65_000}, CONTENT, b"z" * 2**20))
    with pytest.raises(RequestError, match="bytes of JSON"):
        parse_page_message(pack(HEADER, {}, {"x": "y" * 66_000}, CONTENT))


def of_kind(kind: str, channel: str = "shell", **content: object) -> bytes:
    content = CONTENT | content
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
        pytest.param(pack(HEADER, {}, {}, {"x": "x" * 2**16}), id="more than 64 kB of JSON"),
        pytest.param(pack(HEADER | {"session": "\n[W] forged"}, {}, {}, CONTENT), id="session"),
        pytest.param(pack(HEADER | {"msg_id": "x" * 101}, {}, {}, CONTENT), id="long id"),
        pytest.param(pack(HEADER, {}, {}, CONTENT | {"x": "\ud800"}), id="half a surrogate pair"),
    ],
)
def test_message_of_another_form_is_refused(frame: bytes | str) -> None:
    with pytest.raises(RequestError):
        parse_page_message(frame)


@pytest.mark.parametrize(
    "frame",
    [
        of_kind("comm_msg"),
        of_kind(
            "comm_msg",
            data={"method": "custom", "content": {"kind": "keep", "photo": "ab", "index": 1}},
        ),
        of_kind("comm_close"),
        of_kind("comm_info_request"),
        of_kind("comm_open", target_name="jupyter.widget.control"),
        of_kind("kernel_info_request"),
        of_kind("kernel_info_request", "control"),
    ],
)
def test_message_that_pages_need_is_passed_on(frame: bytes) -> None:
    assert parse_page_message(frame) is not None


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
        of_kind("comm_msg", data={}),
        of_kind("comm_msg", data={"method": "no such"}),
        of_kind("comm_msg", data={"method": ["update"]}),
    ],
)
def test_message_that_no_page_needs_is_dropped(frame: bytes) -> None:
    assert parse_page_message(frame) is None


def test_content_of_a_dropped_message_is_not_parsed() -> None:
    assert parse_page_message(pack(HEADER | {"msg_type": "x"}, b"[", b"[", b"[")) is None


def update(state: object, *paths: object) -> bytes:
    data = {"method": "update", "state": state, "buffer_paths": paths}
    return pack(HEADER, {}, {}, {"comm_id": "1", "data": data}, *[b"x"] * len(paths))


def test_file_chooser_can_be_set() -> None:
    file = {"name": "a.jpg", "type": "image/jpeg", "size": 1, "last_modified": 0}
    assert parse_page_message(update({"value": [file]}, ["value", 0, "content"])) is not None
    assert parse_page_message(update({"value": [], "error": ""})) is not None


@pytest.mark.parametrize(
    "frame",
    [
        update({"answer": {}}, ["answer", "x"]),
        update({"texts": {}}),
        update({"feedback": {"photo": "ab"}}),
        update({"rows": [0]}, ["rows", 0]),
        update({"outputs": []}),
        update({"value": "a label's text"}),
        update({"error": ["x"]}),
        update({"value": [{}]}, ["value", 0, "name"]),
        update({"value": []}, ["value"]),
        update({"value": []}, "value"),
        update(["value"]),
    ],
)
def test_trait_that_no_page_sets_cannot_be_set(frame: bytes) -> None:
    assert parse_page_message(frame) is None


def test_kernel_message_is_parsed_only_where_it_is_inspected() -> None:
    parent, idle = {"msg_id": "7"}, {"execution_state": "idle"}
    assert parse_kernel_message(pack({"msg_type": "status"}, parent, {}, idle)) == (
        "status",
        parent,
        idle,
    )
    assert parse_kernel_message(pack({"msg_type": "comm_msg"}, parent, {}, idle)) == (
        "comm_msg",
        {},
        {},
    )


def test_redact_traceback_removes_the_traceback() -> None:
    content = {"ename": "ValueError", "evalue": "secret", "traceback": ["secret"]}
    error = pack({"msg_type": "error"}, {"msg_id": "7"}, {}, content)
    blank = redact_traceback(error, "error", content)
    assert blank is not None
    kind, parent, said = parse_kernel_message(blank)
    assert (kind, parent) == ("error", {"msg_id": "7"})
    assert "secret" not in str(said)
    stream = {"name": "stderr", "text": "Traceback (most recent call last):\n"}
    assert redact_traceback(b"", "stream", stream) is None


@pytest.mark.parametrize(
    ("kind", "content"),
    [("stream", {"name": "stdout", "text": "hello"}), ("status", {"execution_state": "idle"})],
)
def test_redact_traceback_leaves_other_messages(kind: str, content: dict[str, str]) -> None:
    message = pack({"msg_type": kind}, {}, {}, content)
    assert redact_traceback(message, kind, content) is message


def test_backlog_of_a_channel_ends_with_its_last_answer() -> None:
    """What the kernel said of the first may have been lost while the page reconnected."""
    backlog = Backlog()
    for channel, msg_id, size in (("shell", "a", 60), ("control", "b", 5), ("shell", "c", 40)):
        backlog.add(channel, msg_id, size)
    assert (len(backlog), backlog.size) == (3, 105)
    backlog.done("never sent")
    backlog.done("c")
    assert (len(backlog), backlog.size) == (1, 5)
    backlog.done("b")
    assert backlog.size == 0


def test_photo_is_in_the_kernel_until_its_click_is_handled(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(messages.time, "monotonic", lambda: now)
    backlog = Backlog()
    backlog.add("shell", "choose", 4000, chooses=True)
    backlog.done("choose")
    assert (backlog.size, backlog.in_kernel) == (0, 4000)
    backlog.add("shell", "click", 10)
    now += messages.MAX_UNCLICKED
    assert (backlog.size, backlog.in_kernel) == (10, 4010), "however long it takes to answer"
    backlog.done("click")
    assert backlog.in_kernel == 0
    backlog.add("shell", "choose", 4000, chooses=True)
    backlog.done("choose")
    now += messages.MAX_UNCLICKED
    assert backlog.in_kernel == 0, "nobody waits for a click that does not come"
    backlog.add("shell", "click", 10)
    assert backlog.in_kernel == 4010


@pytest.mark.parametrize(
    ("data", "chooses"),
    [
        ({"method": "custom"}, False),
        ({"method": "update", "state": {"value": []}}, False),
        ({"method": "update", "state": {"error": "x"}}, False),
        ({"method": "update", "state": {"value": [{"name": "x"}]}}, True),
    ],
)
def test_message_that_chooses_a_photo_is_recognised(data: dict[str, object], chooses: bool) -> None:
    frame = parse_page_message(pack(HEADER, {}, {}, {"comm_id": "1", "data": data}))
    assert frame is not None
    assert frame.chooses is chooses
