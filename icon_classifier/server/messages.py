"""Which messages may pass between a page and its kernel: their form, and the few types of widgets.

A page's websocket carries messages of Jupyter's protocol, which can do far more than a page needs:
run code, read files by completion, debug, shut down. So each is checked before it is passed on.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from icon_classifier.errors import RequestError

PROTOCOL = "v1.kernel.websocket.jupyter.org"
"""The one websocket subprotocol that a page may use (Jupyter Server's name for it)."""

_ALLOWED = {
    "comm_close": {"shell"},
    "comm_info_request": {"shell"},
    "comm_msg": {"shell"},
    "comm_open": {"shell"},
    "kernel_info_request": {"shell", "control"},
}
"""The types of messages that pages send, and on which channels."""

_TARGET = "jupyter.widget.control"
"""The target of the one comm that pages open: it asks for the states of all widgets."""

_INSPECTED = {"error", "status", "stream"}
"""The types of the kernel's messages that the server parses."""

MAX_PARTS = 64
"""A channel, four parts of JSON and what buffers a message of widgets may hold."""

MAX_JSON = 2**20
"""Bytes of the four parts of JSON together; photos travel as buffers."""


class Frame(NamedTuple):
    """A message of a page: its channel, header and content."""

    channel: str
    header: dict[str, Any]
    content: dict[str, Any]


def parse_page_message(message: bytes | str) -> Frame:
    """Parse a message from a page.

    Parameters
    ----------
    message : bytes or str
        From a stranger. Eight bytes each, little-endian: the number of offsets, then the offsets in
        rising order from the end of this head to the end of the message; a channel, four parts of
        JSON and any number of buffers lie between them.

    Raises
    ------
    RequestError
        If it is anything else, which no page sends.
    """
    if isinstance(message, str) or not (offsets := _checked_offsets(message)):
        raise RequestError("expected a message whose head fits its parts")
    channel, *parts = _parts(message, offsets, 5)
    if sum(map(len, parts)) > MAX_JSON:
        raise RequestError(f"expected at most {MAX_JSON} bytes of JSON")
    try:
        header, _, _, content = objects = [json.loads(part.decode()) for part in parts]
        name = channel.decode()
    except (ValueError, RecursionError) as error:
        raise RequestError(f"expected JSON: {error}") from error
    if not all(isinstance(item, dict) for item in objects):
        raise RequestError("expected JSON objects")
    if not all(isinstance(header.get(key), str) for key in ("msg_id", "msg_type", "session")):
        raise RequestError("expected a header with msg_id, msg_type and session")
    if header["msg_type"] in {"comm_open", "comm_msg", "comm_close"} and not (
        isinstance(content.get("comm_id"), str) and isinstance(content.get("data", {}), dict)
    ):
        raise RequestError("expected a comm_id and data")
    return Frame(name, header, content)


def is_allowed(frame: Frame) -> bool:
    """Return whether a message is of a type that pages send."""
    kind = frame.header["msg_type"]
    if kind == "comm_open" and frame.content.get("target_name") != _TARGET:
        return False
    return frame.channel in _ALLOWED.get(kind, ())


def parse_kernel_message(message: bytes) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Parse a message from a kernel.

    Parameters
    ----------
    message : bytes
        In the same form; our own kernel sent it.

    Returns
    -------
    tuple
        Its type, the header of the message that it answers, its content; the two are empty for
        types that the server does not inspect.
    """
    _, header, parent, _, content = _parts(message, _offsets(message), 5)
    kind = str(json.loads(header)["msg_type"])
    if kind not in _INSPECTED:
        return kind, {}, {}
    return kind, json.loads(parent), json.loads(content)


def redact_traceback(message: bytes, kind: str, content: dict[str, Any]) -> bytes | None:
    """Remove tracebacks from a kernel's message: they show paths and lines of the program.

    Parameters
    ----------
    message : bytes
        From the kernel.
    kind, content
        What :func:`parse_kernel_message` returned for it.

    Returns
    -------
    bytes or None
        The message as the page may have it: of an error only that there was one. None if the page
        may have nothing of it.
    """
    if kind == "stream" and "Traceback (most" in content.get("text", ""):
        return None
    if kind != "error":
        return message
    parts = _parts(message, _offsets(message), 4)
    blank = {"ename": "Error", "evalue": "", "traceback": []}
    return _pack([*parts, json.dumps(blank).encode()])


class Backlog:
    """What a page has sent and its kernel has not processed yet.

    Parameters
    ----------
    max_bytes, max_messages : int
        How much may wait.
    """

    def __init__(self, max_bytes: int, max_messages: int = 1000) -> None:
        self._max_bytes = max_bytes
        self._max_messages = max_messages
        self._waiting: list[tuple[str, int]] = []

    def add(self, msg_id: str, size: int) -> bool:
        """Add a message of ``size`` bytes; False if that is too much."""
        self._waiting.append((msg_id, size))
        total = sum(size for _, size in self._waiting)
        return total <= self._max_bytes and len(self._waiting) <= self._max_messages

    def done(self, msg_id: str) -> None:
        """Remove a message that the kernel has processed, if it is one of these."""
        for entry in self._waiting:
            if entry[0] == msg_id:
                self._waiting.remove(entry)
                return


def _checked_offsets(message: bytes) -> list[int]:
    """Parse the offsets in a message's head; none if it is not well formed."""
    count = int.from_bytes(message[:8], "little")
    head = 8 * (count + 1)
    # Before anything is read: a forged count may be any number of 64 bits.
    if not 6 <= count <= MAX_PARTS or head > len(message):
        return []
    offsets = _offsets(message)
    sound = offsets[0] == head and offsets[-1] == len(message) and offsets == sorted(offsets)
    return offsets if sound else []


def _offsets(message: bytes) -> list[int]:
    head = 8 * (int.from_bytes(message[:8], "little") + 1)
    return [int.from_bytes(message[i : i + 8], "little") for i in range(8, head, 8)]


def _parts(message: bytes, offsets: list[int], count: int) -> list[bytes]:
    return [message[offsets[i] : offsets[i + 1]] for i in range(count)]


def _pack(parts: list[bytes]) -> bytes:
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    head = [len(offsets), *offsets]
    return b"".join([*(number.to_bytes(8, "little") for number in head), *parts])
