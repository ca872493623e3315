"""A browser that fails a test whose page logs an error or asks another host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from scripts.browser import find_browser
from tests.support.browser import ARGUMENTS, keep_file_choosers
from tests.support.servers import ROOT

STOCK = (
    "https://cdn.jsdelivr.net/npm/@fortawesome/",
    "https://cdnjs.cloudflare.com/ajax/libs/mathjax/",
)
"""What Voilà's stock template requests from other hosts; nothing else may be requested."""

TIMEOUT_MS = 90_000
"""How long to wait for what is expected, in milliseconds; a loaded machine is slow."""

ARTEFACTS = ROOT / "artefacts"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of one file.

    Playwright runs an event loop for as long: no asynchronous test of another file may run beside.
    """
    path = find_browser()
    # Never skipped: a page that nobody opened is not tested.
    assert path is not None, "there is no browser: make test installs one"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages, each with a browser context of its own; an error in one fails the test."""
    problems: list[str] = []
    contexts = []

    def watch(page: Page) -> None:
        def on_console(message: Any) -> None:
            url = message.location.get("url", "")
            # A browser that a test took offline logs that by itself.
            offline = "ERR_INTERNET_DISCONNECTED" in message.text
            if message.type == "error" and not url.startswith(STOCK) and not offline:
                problems.append(f"console: {message.text} ({url})")

        def on_request(request: Any) -> None:
            parts = urlsplit(request.url)
            if request.url.startswith(STOCK):
                return
            if parts.scheme.startswith(("http", "ws")) and parts.hostname != "localhost":
                problems.append(f"request to another host: {request.url}")

        keep_file_choosers(page)
        page.on("console", on_console)
        page.on("pageerror", lambda error: problems.append(f"script: {error}"))
        page.on("request", on_request)
        page.on("websocket", on_request)

    def open_page(url: str | None = None, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        watch(page)
        if url is not None:
            page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots are kept; git does not."""
    ARTEFACTS.mkdir(exist_ok=True)
    return ARTEFACTS
