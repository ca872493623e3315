"""Run the JSON API on uvicorn, with limits on request headers and on connections."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import threading
from types import FrameType

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from icon_classifier.api.problems import error_response
from icon_classifier.errors import BusyError, SettingsError
from icon_classifier.system import logs
from icon_classifier.system.clients import client_address

_MAX_HEADER_SECONDS = 10.0
_MAX_HEADERS = 200
"""Lines of a request's head and trailer, each of which is kept in 200 bytes and more."""

_MAX_OVERHEAD = 64 * 2**10
"""Bytes of a request that are no body, beyond one for each 64 of the body: its head, the headers of
chunks, each of which costs microseconds in which nobody else is answered, and what follows them."""

_MAX_PIPELINED = 8
"""Requests of a connection that wait for the answer to another: uvicorn starts to work on all that
it receives, 2,000 in 64 kB. Browsers send none before they have an answer."""

_MAX_CONNECTIONS = 512
_BACKLOG = 128
"""Connections that are accepted in one turn of the event loop. Those above the maximum are closed
three turns later, so that up to 512 + 3 * 128 are open: fewer than the 1,024 files that Linux
allows a process."""

MAX_SHUTDOWN_SECONDS = 10
"""How long the process may run after a signal to stop, whatever it is doing."""


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    error = BusyError(f"expected at most {_MAX_CONNECTIONS} connections")
    response = error_response(error, Request(scope))
    response.headers["Connection"] = "close"
    await response(scope, receive, send)


_numbers = itertools.count()


class _Protocol(HttpToolsProtocol):
    """Closes connections whose headers are too slow or too long, or chunks or requests too many.

    uvicorn limits how long a connection may idle between requests, but neither the duration nor
    the size of headers; and its own limit on connections responds with plain text.
    """

    _timer: asyncio.TimerHandle | None = None
    _overhead = 0
    _number = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer()
        self._number = next(_numbers)  # the loop's clock is the same for all of a millisecond
        if len(self.connections) > _MAX_CONNECTIONS:
            self._close_an_idle_one()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._overhead += len(data)
        super().data_received(data)
        if self._overhead > _MAX_OVERHEAD:  # after parsing, which finds what is body
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._start_timer()

    def on_headers_complete(self) -> None:
        """Take on a request; an error here ends the connection with 400."""
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise ValueError("expected fewer requests before an answer")
        self._stop_timer()
        if len(self.tasks) >= _MAX_CONNECTIONS:  # those without a request make room themselves
            self.app = _refuse  # for this connection only, which its response closes
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; an error here ends the connection with 400."""
        if len(self.headers) >= _MAX_HEADERS:
            raise ValueError("expected fewer headers")
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._overhead -= len(body) + len(body) // 64
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._overhead = 0
        super().on_message_complete()

    def _close_an_idle_one(self) -> None:
        """Close a connection without a request: the oldest of the client that has most of them."""
        idle: dict[str, list[_Protocol]] = {}
        for other in self.connections:
            if isinstance(other, _Protocol) and other is not self and other._is_idle():
                client = client_address(other.client[0] if other.client else "", [], 0)
                idle.setdefault(client, []).append(other)
        if idle:
            most = max(idle.values(), key=len)
            min(most, key=lambda other: other._number).transport.close()

    def _is_idle(self) -> bool:
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self.transport.is_closing()

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(_MAX_HEADER_SECONDS, self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """Ends the process some time after a signal, even if a thread is never finished."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        timer = threading.Timer(MAX_SHUTDOWN_SECONDS, os._exit, [1])
        timer.daemon = True  # nothing waits for it
        timer.start()
        super().handle_exit(sig, frame)


def create_server(app: ASGIApp, *, root_path: str = "") -> uvicorn.Server:
    """Create a server; its method ``run`` is given the sockets to listen on.

    Parameters
    ----------
    app : ASGI application
        See :func:`icon_classifier.api.app.create_app`.
    root_path : str
        The prefix under which a proxy serves the app, and which it removes from addresses.
    """
    config = uvicorn.Config(
        app,
        root_path=root_path,
        http=_Protocol,
        ws="none",
        lifespan="on",
        timeout_keep_alive=15,
        timeout_graceful_shutdown=MAX_SHUTDOWN_SECONDS - 2,
        server_header=False,
        backlog=_BACKLOG,
        use_colors=False,  # its lines are rewritten below
        # Our own setting "proxies" decides which forwarded addresses are trusted.
        proxy_headers=False,
        access_log=False,
        log_level="info",
    )
    logs.install(logging.getLogger("uvicorn"))
    return _Server(config)


def serve(app: ASGIApp, *, host: str = "127.0.0.1", port: int = 8867, root_path: str = "") -> None:
    """Serve until a signal stops the process.

    Parameters
    ----------
    app : ASGI application
        See :func:`icon_classifier.api.app.create_app`.
    host : str
        The address to listen on.
    port : int
        The port to listen on; 0 takes a free one.
    root_path : str
        The prefix under which a proxy serves the app, and which it removes from addresses.

    Raises
    ------
    SettingsError
        If the port is in use or the address does not belong to this machine.
    """
    server = create_server(app, root_path=root_path)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            "choose another with --port"
        ) from error
    shown = f"[{host}]" if ":" in host else host
    print(f"The API listens on http://{shown}:{listener.getsockname()[1]}", flush=True)
    with listener:
        server.run(sockets=[listener])
