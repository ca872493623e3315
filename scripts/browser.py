"""Find the browser of the tests, or get one: ``python -m scripts.browser`` prints its path.

The order: Chromium from PATH, Playwright's own, Debian's package where we are root.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.environment import VENV, SetupError, apt_install

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_ASK_PLAYWRIGHT = (
    "from playwright.sync_api import sync_playwright\n"
    "with sync_playwright() as p: print(p.chromium.executable_path)"
)


def find_browser(python: Path | str = sys.executable) -> Path | None:
    """Return the browser to test with, or None.

    Parameters
    ----------
    python : Path or str
        A Python that has Playwright, asked for Playwright's own browser.
    """
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    command = [str(python), "-c", _ASK_PLAYWRIGHT]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    path = Path(answer.stdout.strip())
    return path if answer.returncode == 0 and path.is_file() else None


def ensure_browser(python: Path | str) -> Path:
    """Find a browser, or install one.

    Raises
    ------
    SetupError
        If there is none and none can be had here.
    """
    if found := find_browser(python):
        return found
    print("No Chromium on this machine; asking Playwright for its own.", flush=True)
    # One try: where its host cannot be reached, Debian's package is the quicker way.
    environment = os.environ | {"PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "5000"}
    command = [str(python), "-m", "playwright", "install", "--with-deps", "chromium-headless-shell"]
    subprocess.run(command, env=environment, check=False)
    if found := find_browser(python):
        return found
    apt_install("chromium")
    if found := find_browser(python):
        return found
    raise SetupError(
        "The tests need Chromium, and none could be installed. "
        "Install it (on Debian: sudo apt install chromium) and run make test again."
    )


def main() -> int:
    """Print the path of the browser; exit code 1 without one."""
    found = find_browser(VENV / "bin" / "python")
    print(found or "no browser")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
