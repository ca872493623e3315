"""What tests and benchmarks share about Chromium and Playwright."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Locator, Page, expect

ARGUMENTS = [
    "--no-sandbox",  # root in a container has no other choice
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
"""Options of Chromium."""

STOCK = (
    "https://cdn.jsdelivr.net/npm/@fortawesome/",
    "https://cdnjs.cloudflare.com/ajax/libs/mathjax/",
)
"""What Voilà's stock template requests from other hosts; nothing else may be requested."""

LOST = ("ERR_INTERNET_DISCONNECTED", "ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET")
"""What a browser logs by itself where a test took it offline or ended its server."""

IMPATIENT = ("widget model not found", "/labextensions/@jupyter-widgets/")
"""What JupyterLab's own widget manager logs where a model takes it more than two seconds, as on a
busy machine, and a part of its address. A test awaits what it expects to see."""

TIMEOUT_MS = 90_000
"""How long to wait for what is expected, in milliseconds; a loaded machine is slow."""
expect.set_options(timeout=TIMEOUT_MS)


def keep_file_choosers(page: Any) -> None:
    """Keep Playwright's interception of file choosers on for the whole life of a page.

    Without a listener Playwright switches it off in the background after each
    ``expect_file_chooser``, and on again for the next one: a click that falls between finds none.
    """
    page.on("filechooser", lambda _: None)


def texts_when_shown(element: Locator) -> Callable[[], list[str]]:
    """Collect the text of an element whenever it is shown, from now on.

    It may be shown for less than the time between two looks of Playwright.
    """
    element.evaluate(
        """element => {
          element.texts = [];
          const look = () => { if (!element.hidden) element.texts.push(element.innerText); };
          new MutationObserver(look).observe(element, { attributes: true });
        }"""
    )

    def texts() -> list[str]:
        found: list[str] = element.evaluate("element => element.texts")
        return found

    return texts


@contextlib.contextmanager
def watching(browser: Browser, *, errors: bool = False) -> Iterator[Callable[..., Page]]:
    """Open pages, each with a browser context of its own.

    An error in one fails the block, unless `errors` are expected.
    """
    problems: list[str] = []
    contexts = []

    def watch(page: Page) -> None:
        def on_console(message: Any) -> None:
            url = message.location.get("url", "")
            text, address = IMPATIENT
            fine = any(reason in message.text for reason in LOST) or (
                text in message.text and address in url
            )
            if message.type == "error" and not url.startswith(STOCK) and not fine:
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
    assert errors or not problems, problems
