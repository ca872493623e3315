"""What a page may say to its kernel: the shape of a message, and the few kinds that widgets need.

A page's line carries messages of Jupyter's protocol, which can do far more than a page should:
run code, read files by completion, debug, shut down. So each is looked at before it is passed on.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from icon_classifier.errors import RequestError

PROTOCOL = "v1.kernel.websocket.jupyter.org"
"""The one form of messages that a page may speak with its kernel (Jupyter Server's own name)."""

_KINDS = {
    "comm_close": {"shell"},
    "comm_info_request": {"shell"},
    "comm_msg": {"shell"},
    "comm_open": {"shell"},
    "kernel_info_request": {"shell", "control"},
}
"""The kinds of messages that pages send, and on which channels."""

_TARGET = "jupyter.widget.control"
"""The one comm that pages open: it asks for the state of all widgets."""

_WATCHED = {"error", "status", "stream"}

_MOST_PARTS = 64
"""A channel, four parts of JSON and what buffers a message of widgets may hold."""

_MOST_JSON = 2**20
"""Bytes of the four parts of JSON together; photos travel as buffers."""


class Frame(NamedTuple):
    """A message as it came: its channel, header and content."""

    channel: str
    header: dict[str, Any]
    content: dict[str, Any]


def is_well_formed(message: bytes) -> bool:
    """Tell whether a message holds the parts that its head promises.

    Parameters
    ----------
    message : bytes
        Eight bytes each, little-endian: the number of offsets, then the offsets in rising order
        from the end of the head to the end of the message; a channel and four parts of JSON lie
        between them, and any number of buffers.
    """
    return bool(_sound_offsets(message))


def read_frame(message: bytes | str) -> Frame:
    """Read a page's message.

    Parameters
    ----------
    message : bytes or str
        As it came from a stranger.

    Raises
    ------
    RequestError
        If it is not in Jupyter's form; whoever sends that is no page.
    """
    if isinstance(message, str) or not (offsets := _sound_offsets(message)):
        raise RequestError("expected a message in parts, its head says otherwise")
    channel, *parts = _parts(message, offsets, 5)
    if sum(map(len, parts)) > _MOST_JSON:
        raise RequestError(f"expected at most {_MOST_JSON} bytes of JSON")
    try:
        header, _, _, content = objects = [json.loads(part.decode()) for part in parts]
        name = channel.decode()
    except (ValueError, RecursionError) as error:
        raise RequestError(f"expected JSON, {error}") from error
    if not all(isinstance(item, dict) for item in objects):
        raise RequestError("expected objects of JSON")
    if not all(isinstance(header.get(key), str) for key in ("msg_id", "msg_type", "session")):
        raise RequestError("expected a header with msg_id, msg_type and session")
    if header["msg_type"] in {"comm_open", "comm_msg", "comm_close"} and not (
        isinstance(content.get("comm_id"), str) and isinstance(content.get("data", {}), dict)
    ):
        raise RequestError("expected a comm_id and data")
    return Frame(name, header, content)


def is_allowed(frame: Frame) -> bool:
    """Tell whether a page has any use for a message."""
    kind = frame.header["msg_type"]
    if kind == "comm_open" and frame.content.get("target_name") != _TARGET:
        return False
    return frame.channel in _KINDS.get(kind, ())


def read_kernels(message: bytes) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Read a message of the kernel's.

    Parameters
    ----------
    message : bytes
        In the same form; our own kernel sent it.

    Returns
    -------
    tuple
        Its kind, the header of the message that it answers, its content; the two are empty for
        kinds that the server does not look at.
    """
    _, header, parent, _, content = _parts(message, _offsets(message), 5)
    kind = str(json.loads(header)["msg_type"])
    if kind not in _WATCHED:
        return kind, {}, {}
    return kind, json.loads(parent), json.loads(content)


def without_the_inside(message: bytes, kind: str, content: dict[str, Any]) -> bytes | None:
    """Take tracebacks out of a message of the kernel's: they show paths and lines of the program.

    Parameters
    ----------
    message : bytes
        As it came from the kernel.
    kind, content
        What :func:`read_kernels` read in it.

    Returns
    -------
    bytes or None
        What the page may have: of an error only that there was one.
    """
    if kind == "stream" and "Traceback (most" in content.get("text", ""):
        return None
    if kind != "error":
        return message
    parts = _parts(message, _offsets(message), 4)
    blank = {"ename": "Error", "evalue": "", "traceback": []}
    return _pack([*parts, json.dumps(blank).encode()])


class Backlog:
    """What a page has sent and its kernel has not worked off yet.

    Parameters
    ----------
    most_bytes : int
        All that waits together.
    most_messages : int, optional
        The same in messages.
    """

    def __init__(self, most_bytes: int, most_messages: int = 1000) -> None:
        self._most_bytes = most_bytes
        self._most_messages = most_messages
        self._waiting: list[tuple[str, int]] = []

    def add(self, msg_id: str, size: int) -> bool:
        """Note a message of so many bytes; False if that is too much."""
        self._waiting.append((msg_id, size))
        total = sum(size for _, size in self._waiting)
        return total <= self._most_bytes and len(self._waiting) <= self._most_messages

    def done(self, msg_id: str) -> None:
        """Forget a message that is worked off, if it is one of these."""
        for entry in self._waiting:
            if entry[0] == msg_id:
                self._waiting.remove(entry)
                return


def _sound_offsets(message: bytes) -> list[int]:
    """Read the offsets in a message's head; none if it is not well formed."""
    count = int.from_bytes(message[:8], "little")
    head = 8 * (count + 1)
    # Before anything is read: a forged count may be any number of 64 bits.
    if not 6 <= count <= _MOST_PARTS or head > len(message):
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
