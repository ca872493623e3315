"""A host of static files for tests: it serves a folder as it is, and fails where a test says so."""

from __future__ import annotations

import contextlib
import functools
import http.server
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.servers import free_port


class SiteHost(http.server.ThreadingHTTPServer):
    """Serves the sub-folders of a folder.

    Attributes
    ----------
    url : str
        Its address; ends with a slash.
    paths : list of str
        What was requested so far.
    cut, damaged : set of str
        How names start of which half is sent before the connection is lost, and of which one byte
        is another.
    held : set of str
        How names start of which only half is sent before `release`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: list[str] = []
        self.cut: set[str] = set()
        self.damaged: set[str] = set()
        self.held: set[str] = set()
        self._released = threading.Event()
        address = ("localhost", free_port())
        super().__init__(address, functools.partial(_Handler, directory=str(folder)))
        self.url = f"http://localhost:{address[1]}/"

    def release(self) -> None:
        """Send what is held."""
        self.held.clear()
        self._released.set()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection as its handler left it."""
        self.close_request(request)

    def wait(self) -> None:
        self._released.wait()


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: SiteHost

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):  # the browser has left
            self._respond()

    def _respond(self) -> None:
        self.server.paths.append(self.path)
        name = self.path.rpartition("/")[2]

        def concerns(prefixes: set[str]) -> bool:
            return any(name.startswith(prefix) for prefix in prefixes)

        if not any(map(concerns, (self.server.cut, self.server.damaged, self.server.held))):
            super().do_GET()
            return
        data = bytearray(Path(self.translate_path(self.path)).read_bytes())
        half = len(data) // 2
        if concerns(self.server.damaged):
            data[half] ^= 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:half])
        if concerns(self.server.cut):
            # Closed without a word: the browser sees a connection that is reset.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return
        if concerns(self.server.held):
            self.server.wait()
        self.wfile.write(data[half:])

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def site_host(folder: Path) -> Iterator[SiteHost]:
    """Serve the sub-folders of a folder until the block ends."""
    with SiteHost(folder) as host:
        thread = threading.Thread(target=host.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield host
        host.release()
        host.shutdown()
        thread.join()
