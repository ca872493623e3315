"""Chromium for benchmarks, and the slow network that they open pages through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from scripts.browser import find_browser
from tests.support.browser import ARGUMENTS

SLOW_NETWORK = {
    "offline": False,
    "latency": 100,  # ms
    "downloadThroughput": 4e6 / 8,  # bytes per second
    "uploadThroughput": 4e6 / 8,
}
"""4 Mbit/s each way, as Chromium's developer tools emulate it."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium for the length of a block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        yield browser
        browser.close()
