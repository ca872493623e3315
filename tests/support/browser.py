"""What tests and benchmarks share about Chromium and Playwright."""

from __future__ import annotations

from typing import Any

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


def keep_file_choosers(page: Any) -> None:
    """Keep Playwright's interception of file choosers on for the whole life of a page.

    Without a listener Playwright switches it off in the background after each
    ``expect_file_chooser``, and on again for the next one: a click that falls between finds none.
    """
    page.on("filechooser", lambda _: None)
