"""What a visitor reads whose page cannot start or go on, and how they go on."""

from __future__ import annotations

import contextlib
import socket
import socketserver
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Page, expect

from icon_classifier.cli.smoke import smoke
from icon_classifier.errors import DeploymentError
from icon_classifier.kernels.process import can_fork
from icon_classifier.page.texts import OWN_BROWSER, PAGE_TEXTS
from tests.support.servers import PAGE, Server, free_port, voila, write_page

NewPage = Callable[..., Page]

CELL = """
import time
import ipywidgets as widgets
from icon_classifier.system import slots
button = widgets.Button(description="Hold")

@button.on_click
def hold(_):
    with slots.slot():
        time.sleep(1000)

button
"""
SITE = 'https://site.example/bears/?"><b>&amp;'

forked = pytest.mark.skipif(not can_fork(), reason="kernels are forked on Linux only")


@forked
def test_page_whose_photo_took_too_long_says_so_and_can_be_reloaded(
    unwatched_page: NewPage, tmp_path: Path
) -> None:
    write_page(tmp_path, CELL, template="slim", slot_timeout=1)
    with voila(tmp_path, notebook=PAGE) as server:
        page = unwatched_page(server.url)
        button = page.get_by_role("button", name="Hold")
        expect(button).to_be_visible()
        button.click()
        expect(page.get_by_role("alert")).to_contain_text(PAGE_TEXTS["ended_slow"])
        expect(page.locator("main")).to_have_js_property("inert", True)
        expect(page.get_by_role("link")).to_have_count(0)
        page.get_by_role("button", name=PAGE_TEXTS["reload"]).click()
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(button).to_be_enabled()


@forked
def test_page_that_is_full_or_has_ended_offers_the_static_site(
    unwatched_page: NewPage, tmp_path: Path
) -> None:
    write_page(tmp_path, CELL, template="slim", slot_timeout=1, max_visitors=1, site_url=SITE)
    with voila(tmp_path, notebook=PAGE) as server:
        page = unwatched_page(server.url)
        button = page.get_by_role("button", name="Hold")
        expect(button).to_be_visible()
        link = page.get_by_role("link", name=OWN_BROWSER)
        expect(link).to_be_hidden()
        refused = unwatched_page(server.url)
        expect(refused.get_by_role("link", name=OWN_BROWSER)).to_have_attribute("href", SITE)
        button.click()
        expect(link).to_be_visible()
        page.route("https://site.example/**", lambda route: route.fulfill(body="The site"))
        with page.expect_request("https://site.example/**") as request:
            link.click()
        assert "referer" not in request.value.all_headers()
        expect(page.get_by_text("The site")).to_be_visible()


def test_refused_page_loads_by_itself_when_there_is_capacity(
    unwatched_page: NewPage, tmp_path: Path
) -> None:
    write_page(tmp_path, CELL, template="slim", max_visitors=1, leave_timeout=600)
    with voila(tmp_path, notebook=PAGE) as server:
        first, second = unwatched_page(server.url), unwatched_page()
        expect(first.get_by_role("button", name="Hold")).to_be_visible()
        answer = second.goto(server.url)
        assert answer is not None
        assert answer.status == 503
        expect(second.get_by_role("heading")).to_have_text("Just a moment")
        expect(second.get_by_text("tries again every 10 seconds")).to_be_visible()
        expect(second.get_by_role("link")).to_have_text(["Try again now"])
        first.goto("about:blank")  # leaves the page, which ends its kernel
        expect(second.get_by_role("button", name="Hold")).to_be_visible()


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
    port, target = free_port(), colour_server.port
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
    colour_server: Server, unwatched_page: NewPage, proxy_port: int
) -> None:
    page = unwatched_page(f"http://localhost:{proxy_port}/")
    expect(page.get_by_text(PAGE_TEXTS["ended_proxy"])).to_be_visible()
    expect(page.get_by_text(PAGE_TEXTS["lost"])).to_be_hidden()
    assert "Refused a page's WebSocket: the p" in colour_server.text
    with ThreadPoolExecutor() as pool:  # Playwright's event loop runs in this thread
        failure = pool.submit(smoke, f"http://localhost:{proxy_port}/").exception()
    assert isinstance(failure, DeploymentError)
    assert "behind a proxy, see docs/deploying.md" in str(failure)
