"""A count that many processes share: forked kernels add to it, the server reads it."""

from __future__ import annotations

import contextlib
import os

_shared: int | None = None


def create() -> int:
    """Create a counter that forked processes inherit: an eventfd, whose sum the system keeps.

    Returns
    -------
    int
        Its descriptor. Linux only, like the forked kernels.
    """
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def share(descriptor: int) -> None:
    """Let :func:`increment` add to the counter of this descriptor; called in a forked kernel."""
    global _shared
    _shared = descriptor


def increment() -> None:
    """Add one; does nothing in a process without a shared counter."""
    if _shared is not None:
        # A count that is lost is no reason to lose an answer.
        with contextlib.suppress(OSError):
            os.eventfd_write(_shared, 1)


def take(descriptor: int) -> int:
    """Return the count since the last call."""
    try:
        return os.eventfd_read(descriptor)
    except BlockingIOError:  # none
        return 0
