"""The page behind a proxy that does not pass on what its websocket needs."""

from __future__ import annotations

import contextlib
import socket
import socketserver
from collections.abc import Iterator
from threading import Thread

import pytest
from playwright.sync_api import Browser, expect

from icon_classifier.page.texts import PAGE_TEXTS
from tests.support.servers import Server, free_port


class Proxy(socketserver.ThreadingTCPServer):
    """Forwards connections, and replaces bytes in what the browser sends."""

    allow_reuse_address = True
    block_on_close = False
    daemon_threads = True

    def __init__(self, port: int, target: int, old: bytes, new: bytes) -> None:
        self.target, self.old, self.new = target, old, new
        super().__init__(("localhost", port), Forward)


class Forward(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        with socket.create_connection(("localhost", self.server.target)) as upstream:
            back = Thread(target=self._copy, args=(upstream, self.request), daemon=True)
            back.start()
            self._copy(self.request, upstream, self.server.old, self.server.new)
            back.join()

    def _copy(
        self, source: socket.socket, target: socket.socket, old: bytes = b"", new: bytes = b""
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data.replace(old, new) if old else data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy_port(colour_server: Server, request: pytest.FixtureRequest) -> Iterator[int]:
    port, target = free_port(), int(colour_server.url.rstrip("/").rpartition(":")[2])
    old, new = request.param
    old = old.replace(b"PORT", b"%d" % port)
    with Proxy(port, target, old, new) as proxy:
        thread = Thread(target=proxy.serve_forever)
        thread.start()
        yield port
        proxy.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "proxy_port",
    [(b"Host: localhost:PORT", b"Host: 127.0.0.1:80"), (b"Upgrade: websocket\r\n", b"")],
    ids=["host", "upgrade"],
    indirect=True,
)
def test_page_says_that_a_proxy_withholds_its_connection(
    colour_server: Server, browser: Browser, proxy_port: int
) -> None:
    page = browser.new_page()
    page.goto(f"http://localhost:{proxy_port}/")
    expect(page.get_by_text(PAGE_TEXTS["ended_proxy"])).to_be_visible(timeout=60_000)
    expect(page.get_by_text(PAGE_TEXTS["lost"])).to_be_hidden()
    assert "Refused a page's WebSocket: the p" in colour_server.text
    page.close()
