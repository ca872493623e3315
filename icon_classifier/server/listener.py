"""The server's listening socket: how many connections there may be, in all and for one client."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPMessageDelegate,
    HTTPServerRequest,
    ParseBodyConfig,
    ParseMultipartConfig,
    set_parse_body_config,
)
from tornado.ioloop import IOLoop
from tornado.routing import Matcher

from icon_classifier.system.clients import client_address

MAX_CONNECTIONS = 500
"""Connections that are no websockets; those are limited by the number of kernels."""

MAX_IDLE = 50
"""Connections of one client that have sent no whole request."""

GRACE_SECONDS = 5.0
"""How long a new connection is left alone: many visitors may come at the same moment, from slow
machines."""

MAX_ADDRESS = 2048
"""Bytes of a request's path and query."""

MAX_LINES = 200
"""Lines of a request's head; tornado takes 50 ms for the 6,000 that 64 kB may have."""

MAX_PENDING = 1024
"""Backlog of the listening socket; clients beyond it retry after a second."""

MAX_BURST = 2**20
"""Bytes that are received from one connection before the others are looked at."""

EMFILE_SECONDS = 1.0
"""How long nobody is accepted when the process has no descriptor left."""

_log = logging.getLogger(__name__)


class Connection(socket.socket):
    """An accepted connection.

    Attributes
    ----------
    client : str
        Who is at the other end.
    idle : bool
        Whether the server waits for a request.
    lines : int
        How many lines of the request's head have come.
    accepted : float
        When, by `time.monotonic`.
    """

    def __init__(self, plain: socket.socket, client: str, listener: Listener) -> None:
        super().__init__(fileno=plain.detach())
        self.client = client
        self.idle = True
        self.lines = 0
        self.accepted = time.monotonic()
        self._listener = listener
        self._burst = 0
        self._on_receive: Callable[[int], None] | None = None

    def upgrade(self, on_receive: Callable[[int], None]) -> None:
        """Count as a websocket from now on; ``on_receive`` is called with each number of bytes."""
        self._listener.connections.pop(self, None)
        self._on_receive = on_receive

    def recv_into(self, *args: Any) -> int:
        """Receive bytes; after many nothing seems to have come, so that others have their turn.

        Tornado reads a message of 30 MB in one go where the client is fast enough.
        """
        if self._burst >= MAX_BURST:
            self._burst = 0
            raise BlockingIOError
        size = super().recv_into(*args)
        self._burst += size
        if self.idle:
            self.lines += bytes(memoryview(args[0])[:size]).count(b"\n")
            if self.lines > MAX_LINES:
                raise ConnectionResetError(errno.ECONNRESET, "too many lines")
        if self._on_receive is not None:
            self._on_receive(size)
        return size

    def has_unread(self) -> bool:
        """Return whether bytes wait to be read: then the server is late, not the client."""
        try:
            return bool(self.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def close(self) -> None:
        """Close the connection."""
        self._listener.connections.pop(self, None)
        super().close()


class Listener(socket.socket):
    """A listening socket that makes room for newcomers.

    Parameters
    ----------
    plain : socket.socket
        Listening; its descriptor is taken over.
    proxies : int
        Number of trusted proxies: behind one, the other end of a connection is no client.

    Attributes
    ----------
    connections : dict of Connection to None
        The connections that are no websockets, the oldest first.
    """

    def __init__(self, plain: socket.socket, proxies: int = 0) -> None:
        super().__init__(fileno=plain.detach())
        self.setblocking(False)
        self.connections: dict[Connection, None] = {}
        self._proxies = proxies

    def accept(self) -> tuple[Connection, Any]:
        """Accept a connection; if there are too many, close the oldest of the client with the most.

        Raises
        ------
        BlockingIOError
            If there is none, or no descriptor for it: then nobody is accepted for a second.
        """
        try:
            plain, address = super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            _log.warning("No descriptor is left for a new connection.")
            loop = IOLoop.current()
            loop.update_handler(self, 0)
            loop.call_later(EMFILE_SECONDS, self._resume)
            raise BlockingIOError from error
        client = client_address(address[0], (), 0)
        idle = [each for each in self.connections if each.idle and each.client == client]
        grace = time.monotonic() - GRACE_SECONDS
        overdue = (each for each in idle if each.accepted <= grace and not each.has_unread())
        if len(idle) >= MAX_IDLE and not self._proxies and (oldest := next(overdue, None)):
            self._shut(oldest)
        elif len(self.connections) >= MAX_CONNECTIONS:
            [(most, _)] = Counter(each.client for each in self.connections).most_common(1)
            theirs = [each for each in self.connections if each.client == most]
            self._shut(next((each for each in theirs if each.idle), theirs[0]))
        connection = Connection(plain, client, self)
        self.connections[connection] = None
        return connection, address

    def _shut(self, connection: Connection) -> None:
        """End a connection; tornado, which has it too, notices and closes it."""
        del self.connections[connection]
        with contextlib.suppress(OSError):  # the client was faster
            connection.shutdown(socket.SHUT_RDWR)

    def _resume(self) -> None:
        if self.fileno() >= 0:
            IOLoop.current().update_handler(self, IOLoop.READ)


class PageServer(HTTPServer):
    """Tornado's server behind such sockets."""

    def initialize(self, *args: Any, proxies: int = 0, forms: bool = False, **kwargs: Any) -> None:
        """Initialize; tornado's base class calls it with the constructor's arguments."""
        super().initialize(*args, **kwargs)
        self._proxies = proxies
        # Part of a form may name a codec, and Python keeps each name that is none.
        multipart = ParseMultipartConfig(enabled=forms)
        set_parse_body_config(ParseBodyConfig(multipart=multipart))

    def add_sockets(self, sockets: list[socket.socket]) -> None:  # type: ignore[override]
        """Listen on sockets."""
        super().add_sockets([Listener(plain, self._proxies) for plain in sockets])

    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        """Wait for a request; called by tornado before each one of a connection."""
        _set_idle(request_conn, True)
        return super().start_request(server_conn, request_conn)

    def on_close(self, server_conn: Any) -> None:
        """Forget a connection; called by tornado.

        The stream keeps the error that ended it, whose traceback names the frames that were
        sending. These name the stream and the file: a cycle that may last for minutes.
        """
        super().on_close(server_conn)
        if (error := server_conn.stream.error) is not None:
            error.__traceback__ = None


class LongAddress(Matcher):
    """Matches requests whose address is too long; to be asked first, of every request."""

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """Return the handler's arguments if the address is too long."""
        _set_idle(request.connection, False)
        return {} if len(request.uri or "") > MAX_ADDRESS else None


def _set_idle(connection: Any, idle: bool) -> None:
    if not connection.stream.closed():
        connection.stream.socket.idle = idle
        connection.stream.socket.lines = 0
