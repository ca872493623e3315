"""Visitors for a played host: many that stay, and one with a browser."""

import asyncio
import contextlib
import re

from icon_classifier.server.visitor import example_photo, visiting
from scripts import starting
from scripts.browser import find_browser
from scripts.environment import SetupError


async def _memory_with(url: str, pid: int, count: int, seconds: float) -> float:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(visiting(url, example_photo(), seconds))
        return starting.tree_memory(pid)


def memory_with(url: str, pid: int, count: int, seconds: float = 120) -> float:
    """Measure a server with `count` visitors who have their answer and keep the page open.

    No browser is needed: each visitor has a websocket of his own.

    Parameters
    ----------
    url : str
        The page.
    pid : int
        The server's process.
    count : int
        How many visitors; they come one after another.
    seconds : float
        How long each may wait for his answer.

    Returns
    -------
    float
        Megabytes (2**20 bytes) of the process and all below it (:func:`starting.tree_memory`).
        When this returns, the visitors have left and their kernels have ended.
    """
    return asyncio.run(_memory_with(url, pid, count, seconds))


def see(url: str) -> str:
    """Open the page in a browser, upload the example, and return the line with the label."""
    from playwright.sync_api import Error, sync_playwright

    path = find_browser()
    if path is None:
        raise SetupError("there is no browser; make deploy-check installs one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page()
        try:
            page.goto(url)
            # Not just any input for files: the drop zone's answers by itself.
            with page.expect_file_chooser(timeout=60_000) as chooser:
                page.get_by_role("button", name="Choose a photo").click(timeout=60_000)
            chooser.value.set_files(example_photo())
            # The browser reads the file first; a click before that would find no photo chosen.
            page.get_by_text("(1)").first.wait_for(timeout=60_000)
            page.get_by_role("button", name="Classify Icon").click()
            answer = page.get_by_text(re.compile("Prediction: ")).first
            answer.wait_for(timeout=60_000)
            text = answer.inner_text()
        except Error as error:
            raise SetupError(f"the browser did not get an answer from {url}: {error}") from error
        finally:
            browser.close()
    if "grizzly" not in text:
        raise SetupError(f"the browser read {text!r} in a photo of a grizzly")
    return text
