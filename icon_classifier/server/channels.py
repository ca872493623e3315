"""A page's websocket to its kernel: which messages pass, and how many bytes may wait.

Voilà 0.5.13 and Jupyter Server 2.21 pass on whatever comes, as fast as it comes, and keep without
limit what nobody reads. Here messages are read as kernels handle them, large ones one at a time
where much is buffered, and what is buffered for all pages and kernels together has a limit.
"""

from __future__ import annotations

import asyncio
import errno
import re
import time
from collections import Counter, deque
from datetime import timedelta
from typing import Any, ClassVar, NoReturn, cast
from weakref import WeakKeyDictionary

from jupyter_client.manager import KernelManager
from tornado.iostream import IOStream, StreamBufferFullError
from tornado.locks import Condition
from tornado.web import Finish, HTTPError
from tornado.websocket import WebSocketClosedError, WebSocketProtocol, WebSocketProtocol13
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

from icon_classifier.errors import RequestError
from icon_classifier.server import origins
from icon_classifier.server.listener import Connection
from icon_classifier.server.messages import (
    PROTOCOL,
    Backlog,
    parse_kernel_message,
    parse_page_message,
    redact_traceback,
)
from icon_classifier.system.memory import memory_limit

MAX_CONNECTIONS = 4
"""Websockets of one kernel: a page has one, and for a while the dead ones of a phone that lost its
network."""

MAX_OPENED = 30
"""Websockets of one kernel in a minute: each takes six ZeroMQ sockets, and keeps them for a second
after it is closed."""

MAX_UNREAD = 2**20
"""Bytes that wait for a page on one connection; a page's answers have some 100 kB."""

MAX_BACKLOG = 4
"""Messages that a kernel has not handled before no more are read: a page sends the next photo when
the last one is answered."""

MAX_WAITING = 3 * 2**24
"""Bytes that wait in both directions, on all connections together, before a page is cut off."""

MAX_BUFFERED = min(memory_limit() // 512, MAX_WAITING // 3)
"""Bytes in this process or in kernels before large messages are read one at a time: with all
kernels there, 512 MB have room for a phone's photo that is being answered, and 10 MB more."""

MAX_SECONDS = 1.0
"""How long a message that is being read delays the next: a page may send it as slowly as it
likes."""

_CHUNK = 2**16
"""Bytes that are read at a time; a message of no more never waits."""

_RECHECK = timedelta(seconds=0.5)
"""How soon a page that waits notices that a photo in a kernel counts no more."""

_SESSION = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ChannelsHandler(VoilaKernelWebsocketHandler):  # type: ignore[misc]
    """A page's websocket to its kernel, for the few messages that widgets need."""

    _requests: ClassVar[dict[str, list[ChannelsHandler]]] = {}
    _waiting: ClassVar[Counter[str]] = Counter()
    _queue: ClassVar[dict[ChannelsHandler, None]] = {}
    _changed: ClassVar[Condition] = Condition()
    _opened: ClassVar[WeakKeyDictionary[KernelManager, deque[float]]] = WeakKeyDictionary()

    async def get(self, kernel_id: str) -> None:
        """Open the websocket, if the page speaks the subprotocol that can be checked.

        Returns when it is closed. Where a kernel has too many connections, the oldest is cut off.
        """
        offered = self.request.headers.get("Sec-WebSocket-Protocol", "")
        if PROTOCOL not in (name.strip() for name in offered.split(",")):
            raise HTTPError(400, f"expected the subprotocol {PROTOCOL}, got {offered!r:.80}")
        if not _SESSION.fullmatch(self.get_query_argument("session_id", "")):
            raise HTTPError(400, "expected a session_id of 1 to 64 letters, digits, - and _")
        if kernel_id not in self.kernel_manager:
            raise HTTPError(404)
        kernel, now = self.kernel_manager.get_kernel(kernel_id), time.monotonic()
        if not self.check_origin() or "Upgrade" not in self.request.headers:
            self._refuse(kernel)
        opened = self._opened.setdefault(kernel, deque(maxlen=MAX_OPENED))
        if len(opened) == MAX_OPENED and now - opened[0] < 60:
            raise HTTPError(429)
        opened.append(now)
        requests = self._requests.setdefault(kernel_id, [])
        self.kernel_id = kernel_id
        self._stream: IOStream | None = self.request.connection.stream
        self._backlog = Backlog()
        self._held = self._received = 0
        self._deadline: asyncio.TimerHandle | None = None
        requests.append(self)
        connected = [request for request in requests if not request._is_closed]
        for oldest in connected[:-MAX_CONNECTIONS]:
            oldest.cut_off()
        try:
            await super().get(kernel_id=kernel_id)
        finally:
            # Jupyter keeps this handler for a minute; not what the stream has read, too.
            self._stream = self.request.server_connection = None
            requests.remove(self)
            if not requests:
                del self._requests[kernel_id]
            self._end_read()  # the others wait no more for what is no longer in `requests`
            self._hold(-self._held)

    def _refuse(self, kernel: KernelManager) -> NoReturn:
        if reason := origins.withheld(self.request, kernel):
            self.log.error(
                "Refused a page's WebSocket: %s. See docs/deploying.md, Behind a proxy.", reason
            )
        raise HTTPError(403)

    @property
    def _is_closed(self) -> bool:
        return self._stream is None or self._stream.closed()

    async def pre_get(self) -> None:
        """Wait for the kernel, which may be busy; stop if the connection is closed by then."""
        try:
            await super().pre_get()
        except TimeoutError as error:
            raise HTTPError(503, "the kernel does not answer") from error
        if self._is_closed:
            raise Finish

    def get_websocket_protocol(self) -> WebSocketProtocol | None:
        """Return what speaks the protocol, without pings; called by tornado.

        Jupyter Server sends them, every 30 s, and closes a connection that has not answered for
        90 s. Tornado would take both numbers, which are milliseconds, for seconds, and warn of the
        second.
        """
        protocol: WebSocketProtocol | None = super().get_websocket_protocol()
        if not isinstance(protocol, WebSocketProtocol13):
            return protocol
        protocol.params.ping_interval = None
        return _ChunkedProtocol(self, mask_outgoing=False, params=protocol.params)

    async def open(self, kernel_id: str) -> None:
        """Connect to the kernel."""
        stream = self.ws_connection.stream
        stream.max_write_buffer_size = MAX_UNREAD
        stream.set_close_callback(self._on_stream_close)
        cast("Connection", stream.socket).upgrade(self._receive)
        self._opening = asyncio.ensure_future(super().open(kernel_id))
        try:
            await self._opening
        except Exception:
            self.on_connection_close()  # or the kernel manager would count it for ever
            raise

    def _on_stream_close(self) -> None:
        self._changed.notify_all()
        self._opening.cancel()  # the kernel is awaited for up to a minute
        self.on_connection_close()

    def cut_off(self) -> None:
        """Close the connection without waiting for page or kernel, and free what waits for both."""
        channels = self.connection.channels if getattr(self, "connection", None) else {}
        for channel in channels.values():
            if not channel.closed():
                channel.socket.linger = 0
        if self._stream is not None:
            self._stream.close()
        self._hold(-self._held)

    def on_message(self, message: bytes | str) -> asyncio.Future[None] | None:
        """Pass on what a page needs, drop other types, and close on what no page sends.

        Tornado reads the next message when the result is done.
        """
        self._end_read()
        self._hold(-self._received)
        self._received = 0
        try:
            frame = parse_page_message(message)
        except RequestError as error:
            self.log.info("Closed a websocket after a malformed message: %s", error)
            self.close(1002, "malformed message")
            return None
        if frame is None:
            self.log.info("Dropped a message that no page sends.")
            return None
        channels = self.connection.channels
        # Otherwise it is just closing, or its kernel has ended.
        if frame.channel in channels and self.kernel_id in self.kernel_manager:
            self._hold(len(message))
            self._backlog.add(frame.channel, frame.msg_id, len(message), chooses=frame.chooses)
            self.connection.session.send_raw(channels[frame.channel], frame.parts)
        return asyncio.ensure_future(self._until_handled()) if self._is_behind() else None

    def _is_behind(self) -> bool:
        return len(self._backlog) >= MAX_BACKLOG and not self._is_closed

    async def _until_handled(self) -> None:
        while self._is_behind():
            await self._changed.wait()

    async def until_readable(self) -> None:
        """Wait, where much is buffered, until the large messages before this one are read.

        Called before each chunk: what is not read stays in the browser. A message that is not read
        whole within `MAX_SECONDS` goes on beside the next.
        """
        if self._deadline is not None or self._received <= _CHUNK:
            return
        if max(self._waiting.total(), self._in_kernels()) <= MAX_BUFFERED:
            return
        self._queue[self] = None
        while not self._is_closed and (
            next(iter(self._queue)) is not self or self._in_kernels() > MAX_BUFFERED
        ):
            await self._changed.wait(_RECHECK)
        self._deadline = asyncio.get_running_loop().call_later(MAX_SECONDS, self._dequeue)

    def _in_kernels(self) -> int:
        total = self._backlog.size  # a photo that was chosen is replaced by this one
        for pages in self._requests.values():
            total += sum(page._backlog.in_kernel for page in pages if page is not self)
        return total

    def _dequeue(self) -> None:
        self._queue.pop(self, None)
        self._changed.notify_all()

    def _end_read(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._dequeue()

    def write_message(self, message: bytes, binary: bool = False) -> Any:
        """Send the page a message of its kernel, as long as the page reads.

        What comes for a websocket that is just closing is dropped. Jupyter Server packs it in its
        older form, in which Voilà would look for a header for ever.
        """
        if self.ws_connection is None or self.selected_subprotocol != PROTOCOL:
            return None
        kind, parent, content = parse_kernel_message(message)
        before = self._backlog.size
        match content.get("execution_state"):
            case "idle":
                self._backlog.done(str(parent.get("msg_id", "")))
            case "dead":
                self._backlog = Backlog()
        if handled := before - self._backlog.size:
            self._hold(-handled)
            self._changed.notify_all()
        redacted = redact_traceback(message, kind, content)
        if redacted is not message and kind != "execute_input":
            self.log.warning("Kept from the page: %s", content.get("ename", "a traceback"))
        if redacted is None:
            return None
        message = redacted
        try:
            # Past Voilà's own method, which would parse the header once more.
            sent = super(VoilaKernelWebsocketHandler, self).write_message(message, binary)
        except WebSocketClosedError:
            return None
        except StreamBufferFullError:
            self.log.info("Closed the websocket of a page that does not read.")
            self.cut_off()
            return None
        self._hold(len(message))
        sent.add_done_callback(lambda future: self._sent(len(message), future))
        return sent

    def _sent(self, size: int, future: asyncio.Future[None]) -> None:
        self._hold(-size)
        if not future.cancelled():
            future.exception()  # nobody awaits it, and on a closed websocket it always fails

    def _receive(self, size: int) -> None:
        """Count bytes of a message that has not arrived whole; called by the socket."""
        self._received += size
        self._hold(size)
        if self._is_closed:
            raise ConnectionResetError(errno.ECONNRESET, "cut off")

    def _hold(self, size: int) -> None:
        """Add to the bytes that wait; negative: they wait no longer.

        Over the limit, the page for which most is waiting is cut off.
        """
        if self._is_closed:
            size = -self._held
        self._held += size
        self._waiting[self.kernel_id] += size
        if not self._waiting[self.kernel_id]:
            del self._waiting[self.kernel_id]
        if size > 0 and self._waiting.total() > MAX_WAITING:
            [(most, _)] = self._waiting.most_common(1)
            self.log.info("Cut off the page for which most was waiting.")
            for request in self._requests[most]:
                request.cut_off()


class _ChunkedProtocol(WebSocketProtocol13):
    """Reads frames in chunks, each when the handler is ready.

    A browser sends a message as one frame, or, as Chromium does, as many of at most 128 kB.
    """

    async def _read_bytes(self, n: int) -> bytes:
        handler = cast("ChannelsHandler", self.handler)
        chunks = []
        for start in range(0, n, _CHUNK):
            await handler.until_readable()
            chunks.append(await super()._read_bytes(min(n - start, _CHUNK)))
        return b"".join(chunks)
