"""A browser and the page as it is shipped, for the tests of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from icon_classifier.model.session import Model
from scripts.browser import find_browser
from tests.support.browser import ARGUMENTS, watching
from tests.support.servers import ROOT, Server, voila

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
    """Open pages for one test; an error in one fails it."""
    with watching(browser) as open_page:
        yield open_page


@pytest.fixture
def unwatched_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages for a test in which the browser reports errors."""
    with watching(browser, errors=True) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def shipped(project_model: Model) -> Iterator[Server]:
    """Voilà with the shipped model, started as a host does."""
    with voila() as server:
        yield server


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """Where screenshots are kept; git does not."""
    ARTEFACTS.mkdir(exist_ok=True)
    return ARTEFACTS
