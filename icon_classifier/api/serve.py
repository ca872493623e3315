"""Run the JSON API by uvicorn, with what uvicorn lacks: limits on heads of requests, our words."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from icon_classifier.api.problems import respond
from icon_classifier.errors import BusyError, SettingsError

_HEAD_SECONDS = 10.0
_HEAD_BYTES = 64 * 2**10
_MAX_CONNECTIONS = 512


async def _crowded(scope: Scope, receive: Receive, send: Send) -> None:
    response = respond(BusyError(f"{_MAX_CONNECTIONS} connections are open"))
    response.headers["Connection"] = "close"
    await response(scope, receive, send)


class _Protocol(HttpToolsProtocol):
    """Ends connections whose request line and headers come too slowly, or never end.

    uvicorn limits how long a connection may idle between requests, but not how long the first
    request may dribble in, nor how long its headers may be; and it turns away in its own words.
    """

    _clock: asyncio.TimerHandle | None = None
    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._clock is not None:
            self._head += len(data)
        super().data_received(data)
        # Data may hold the end of a head and the start of a body: judged after parsing.
        if self._clock is not None and self._head > _HEAD_BYTES:
            self._stop_clock()
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._clock is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._stop_clock()
        if max(len(self.connections), len(self.tasks)) >= _MAX_CONNECTIONS:
            self.app = _crowded  # of this connection, which ends with the answer
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._head = 0
        self._clock = self.loop.call_later(_HEAD_SECONDS, self._on_late)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _on_late(self) -> None:
        self._clock = None
        if not self.transport.is_closing():
            self.transport.close()


def server(app: ASGIApp, *, host: str = "127.0.0.1", port: int = 8867) -> uvicorn.Server:
    """Make a server, not yet listening.

    Parameters
    ----------
    app : ASGI application
        See :func:`icon_classifier.api.app.create_app`.
    host, port : str, int
        Where to listen; port 0 takes a free one.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_Protocol,
        ws="none",
        lifespan="on",
        timeout_keep_alive=15,
        timeout_graceful_shutdown=30,
        server_header=False,
        # Who asks is found by our own setting "proxies", never by headers that anybody can send.
        proxy_headers=False,
        access_log=False,
        log_level="info",
    )
    return uvicorn.Server(config)


def serve(app: ASGIApp, *, host: str = "127.0.0.1", port: int = 8867) -> None:
    """Serve until stopped by a signal.

    Raises
    ------
    SettingsError
        If the port is in use or the address is none of this machine.
    """
    runner = server(app, host=host, port=port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            "choose another by --port"
        ) from error
    shown = f"[{host}]" if ":" in host else host
    print(f"The API listens on http://{shown}:{listener.getsockname()[1]}", flush=True)
    with listener:
        runner.run(sockets=[listener])
