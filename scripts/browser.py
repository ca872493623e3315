"""Find the browser of the tests, or install one.

The order: Chromium from PATH, Playwright's own, Debian's package when running as root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.environment import ensure_program

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_ASK_PLAYWRIGHT = (
    "from playwright.sync_api import sync_playwright\n"
    "with sync_playwright() as p: print(p.chromium.executable_path)"
)


def find_browser(python: Path | str = sys.executable) -> Path | None:
    """Return the browser to test with, or None; `python` has Playwright installed."""
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    command = [str(python), "-c", _ASK_PLAYWRIGHT]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    path = Path(answer.stdout.strip())
    return path if answer.returncode == 0 and path.is_file() else None


def ensure_browser(python: Path | str) -> Path:
    """Find a browser, or install one; :exc:`SetupError` if that is impossible."""
    if found := find_browser(python):
        return found
    print("No Chromium on this machine; downloading Playwright's.", flush=True)
    # One try: where its host cannot be reached, Debian's package is faster.
    environment = os.environ | {"PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "5000"}
    command = [str(python), "-m", "playwright", "install", "--with-deps", "chromium-headless-shell"]
    subprocess.run(command, env=environment, check=False)
    return find_browser(python) or ensure_program("chromium")
