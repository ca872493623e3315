"""An HTTP server on a free port whose good and bad responses a test chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Route = Callable[["PhotoHandler"], None]


@dataclass
class PhotoServer:
    """Its address, its routes and the requests that it received."""

    base: str
    routes: dict[str, Route] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str) -> str:
        return self.base + path

    def asked(self, path: str) -> int:
        """Count the requests for a path."""
        return sum(1 for requested, _ in self.requests if requested == path)


class PhotoHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    photo_server: PhotoServer

    def do_GET(self) -> None:
        server = self.photo_server
        server.requests.append((self.path, dict(self.headers)))
        path = self.path.partition("?")[0]  # a route may serve all queries of its path
        route = server.routes.get(self.path) or server.routes.get(path) or status(404)
        try:
            route(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client closed the connection, as it should

    def log_message(self, *args: object) -> None:
        pass

    def head(self, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


@contextmanager
def photo_server() -> Iterator[PhotoServer]:
    """Serve on a free port until the block ends."""

    class Handler(PhotoHandler):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server = PhotoServer(f"http://127.0.0.1:{http.server_port}")
        Handler.photo_server = server
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            http.shutdown()
            thread.join()


def status(code: int) -> Route:
    return lambda handler: handler.head(code, Content_Length="0")


def body(data: bytes, kind: str = "image/png", code: int = 200) -> Route:
    def route(handler: PhotoHandler) -> None:
        handler.head(code, Content_Type=kind, Content_Length=str(len(data)))
        handler.wfile.write(data)

    return route


def truncated(data: bytes) -> Route:
    """Send half of the announced bytes and close the connection."""

    def route(handler: PhotoHandler) -> None:
        handler.head(Content_Length=str(len(data)))
        handler.wfile.write(data[: len(data) // 2])
        handler.close_connection = True

    return route


def endless(start: bytes) -> Route:
    """Send a body without a length and without an end."""

    def route(handler: PhotoHandler) -> None:
        handler.head(Connection="close")
        handler.wfile.write(start)
        while not handler.photo_server.stopping.is_set():
            handler.wfile.write(bytes(65536))

    return route


def trickle(start: bytes, seconds: float) -> Route:
    """Send single bytes with short pauses, without an end."""

    def route(handler: PhotoHandler) -> None:
        handler.head(Connection="close")
        handler.wfile.write(start)
        while not handler.photo_server.stopping.wait(seconds):
            handler.wfile.write(b"\0")

    return route


def silent() -> Route:
    """Accept the connection and send nothing."""
    return lambda handler: handler.photo_server.stopping.wait(20) and None


def redirect(target: str) -> Route:
    return lambda handler: handler.head(302, Location=target, Content_Length="0")


def in_turn(*routes: Route) -> Route:
    """Respond with each route once and with the last one from then on."""
    remaining = list(routes)
    return lambda handler: (remaining.pop(0) if len(remaining) > 1 else remaining[0])(handler)


def ranged(data: bytes, *, break_after: int | None = None, etag: str = '"one"') -> Route:
    """Serve a file with range requests; a response may be cut off after some bytes."""

    def route(handler: PhotoHandler) -> None:
        start = 0
        requested = handler.headers.get("Range")
        if requested and handler.headers.get("If-Range") == etag:
            start = int(requested.removeprefix("bytes=").removesuffix("-"))
        if requested and start >= len(data):
            handler.head(416, Content_Range=f"bytes */{len(data)}", Content_Length="0")
            return
        rest = data[start:]
        span = f"bytes {start}-{len(data) - 1}/{len(data)}"
        parts = {"Content_Range": span} if start else {}
        handler.head(206 if start else 200, Content_Length=str(len(rest)), ETag=etag, **parts)
        handler.wfile.write(rest[:break_after])
        if break_after is not None and break_after < len(rest):
            handler.close_connection = True

    return route
