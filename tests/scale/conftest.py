"""An isolated Ray, and a browser for several visitors."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from scripts.browser import find_browser
from tests.support.browser import ARGUMENTS

# Ray reads these when it is imported. Starting it on a loaded machine takes long.
os.environ |= {
    "RAY_raylet_start_wait_time_s": "40",
    "RAY_agent_register_timeout_ms": "240000",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}
os.environ.pop("RAY_ADDRESS", None)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by Ray's own code
    for name in ("api", "cli"):
        importlib.import_module(f"icon_classifier.{name}.on_ray")


@pytest.fixture
def new_visitor() -> Iterator[Callable[[], Page]]:
    """Open pages, each with its own cookies."""
    path = find_browser()
    assert path is not None, "there is no browser: make test-scale installs one"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield lambda: chromium.new_context().new_page()
        chromium.close()
