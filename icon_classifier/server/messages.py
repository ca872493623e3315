"""Which messages may pass between a page and its kernel: their form, and the few types of widgets.

A page's websocket carries messages of Jupyter's protocol, which can do far more than a page needs:
run code, read files by completion, debug, shut down. So each is checked before it is passed on.
"""

from __future__ import annotations

import itertools
import json
import re
import time
from datetime import UTC, datetime
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

_METHODS = {"custom", "request_state", "request_states", "update"}
"""What a page may ask of a widget."""

_SETTABLE = {"value": list, "error": str}
"""The traits that a page may set, and their types: those of the file chooser. All other traits
belong to the kernel, which would keep and send whatever a stranger puts there."""

_BUFFER = ["value", "content"]
"""Where the buffers of a change may go, without the file's number between these two."""

_INSPECTED = {"error", "status", "stream"}
"""The types of the kernel's messages that the server parses."""

MAX_UNCLICKED = 3.0
"""Seconds for which a kernel counts as having a photo that was chosen and awaits its click."""

MAX_PARTS = 64
"""A channel, four parts of JSON and what buffers a message of widgets may hold."""

MAX_JSON = 2**16
"""Bytes of the four parts of JSON together; photos travel as buffers."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Frame(NamedTuple):
    """A message of a page, for its kernel.

    Attributes
    ----------
    channel : str
        The kernel's channel.
    msg_id : str
        Its id; the kernel's answers name it.
    parts : list of bytes or memoryview
        Header, parent header, metadata, content, and the buffers.
    chooses : bool
        Whether it puts photos into a file chooser, where they stay until a click.
    """

    channel: str
    msg_id: str
    parts: list[bytes | memoryview]
    chooses: bool = False


def parse_page_message(message: bytes | str) -> Frame | None:
    """Parse a message from a page.

    The kernel gets a header of our own: it writes a traceback for an id that it has seen before, or
    for a version that it does not know.

    Parameters
    ----------
    message : bytes or str
        From a stranger. Eight bytes each, little-endian: the number of offsets, then the offsets in
        rising order from the end of this head to the end of the message; a channel, four parts of
        JSON and any number of buffers lie between them.

    Returns
    -------
    Frame or None
        None for a message of a type that pages do not send; only its header is parsed.

    Raises
    ------
    RequestError
        If it is anything else, which no page sends.
    """
    if isinstance(message, str) or not (offsets := _checked_offsets(message)):
        raise RequestError("expected a message whose head fits its parts")
    if offsets[5] - offsets[0] > MAX_JSON:
        raise RequestError(f"expected at most {MAX_JSON} bytes of JSON")
    channel, *parts = _parts(message, offsets, 5)
    header = _parse_object(parts[0])
    ids = kind, msg_id, session = [header.get(key, "") for key in ("msg_type", "msg_id", "session")]
    if not all(isinstance(text, str) and _ID.fullmatch(text) for text in ids):
        raise RequestError("expected a header with msg_id, msg_type and session")
    name = channel.decode("ascii", "replace")
    if name not in _ALLOWED.get(kind, ()):
        return None
    _, _, content = map(_parse_object, parts[1:])
    if kind.startswith("comm_") and not _is_allowed(kind, content):
        return None
    date = datetime.now(UTC).isoformat()
    ours = {"msg_id": msg_id, "msg_type": kind, "session": session, "username": ""}
    parts[0] = json.dumps(ours | {"date": date, "version": "5.3"}).encode()
    buffers = memoryview(message)
    slices = itertools.pairwise(offsets[5:])
    chooses = bool(kind == "comm_msg" and content["data"].get("state", {}).get("value"))
    return Frame(name, msg_id, [*parts, *(buffers[start:end] for start, end in slices)], chooses)


def _parse_object(part: bytes) -> dict[str, Any]:
    try:
        found = json.loads(part.decode())
        if _SURROGATE.search(part):  # half a pair cannot be written as UTF-8
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise RequestError(f"expected JSON: {error}") from error
    if not isinstance(found, dict):
        raise RequestError("expected a JSON object")
    return found


def _is_allowed(kind: str, content: dict[str, Any]) -> bool:
    """Return whether pages send a message of comms with this content."""
    if kind == "comm_info_request":
        return True
    data = content.get("data", {})
    if not (isinstance(content.get("comm_id"), str) and isinstance(data, dict)):
        raise RequestError("expected a comm_id and data")
    if kind == "comm_open":
        return content.get("target_name") == _TARGET
    if kind == "comm_close":
        return True
    state, paths, method = data.get("state", {}), data.get("buffer_paths", []), data.get("method")
    if not (isinstance(state, dict) and isinstance(paths, list) and isinstance(method, str)):
        return False
    return (
        method in _METHODS
        and all(isinstance(value, _SETTABLE.get(name, ())) for name, value in state.items())
        and all(
            isinstance(path, list) and len(path) == 3 and path[::2] == _BUFFER for path in paths
        )
    )


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
    """Remove tracebacks and code from a kernel's message: they show paths and lines of the program.

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
    if kind == "execute_input":
        return None
    if kind == "stream" and "Traceback (most" in content.get("text", ""):
        return None
    if kind != "error":
        return message
    parts = _parts(message, _offsets(message), 4)
    blank = {"ename": "Error", "evalue": "", "traceback": []}
    return _pack([*parts, json.dumps(blank).encode()])


class Backlog:
    """What a page has sent and its kernel has not handled yet."""

    def __init__(self) -> None:
        self._waiting: list[_Sent] = []
        self._chosen, self._chosen_at = 0, 0.0  # bytes; by time.monotonic()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def size(self) -> int:
        """How many bytes wait."""
        return sum(sent.size for sent in self._waiting)

    @property
    def in_kernel(self) -> int:
        """How many bytes the kernel has: a chosen photo stays until its click is handled."""
        unclicked = time.monotonic() - self._chosen_at < MAX_UNCLICKED
        return self.size + (self._chosen if self._waiting or unclicked else 0)

    def add(self, channel: str, msg_id: str, size: int, *, chooses: bool = False) -> None:
        """Add a message of ``size`` bytes."""
        self._waiting.append(_Sent(channel, msg_id, size, chooses))

    def done(self, msg_id: str) -> None:
        """Remove a message that the kernel has handled, if it is one of these.

        Those before it on its channel go too: a kernel handles them in their order, and what it
        said of them may have been lost while the page reconnected.
        """
        ids = [sent.msg_id for sent in self._waiting]
        if msg_id in ids:
            last = ids.index(msg_id)
            handled = self._waiting[last]
            earlier = [sent for sent in self._waiting[:last] if sent.channel != handled.channel]
            self._waiting = earlier + self._waiting[last + 1 :]
            self._chosen = handled.size if handled.chooses else 0
            self._chosen_at = time.monotonic()


class _Sent(NamedTuple):
    """What a :class:`Backlog` knows of a message."""

    channel: str
    msg_id: str
    size: int
    chooses: bool


def _checked_offsets(message: bytes) -> list[int]:
    """Parse the offsets in a message's head; none if it is not well formed."""
    count = int.from_bytes(message[:8], "little")
    head = 8 * (count + 1)
    # Before anything is read: a forged count may be any number of 64 bits.
    if not 5 <= count - 1 <= MAX_PARTS or head > len(message):
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
