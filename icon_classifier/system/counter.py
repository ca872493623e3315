"""Counting across processes: forked kernels count, the server reads."""

from __future__ import annotations

import contextlib
import os

_shared: int | None = None


def create() -> int:
    """Make a counter that forked processes inherit: an eventfd, whose sum the system keeps.

    Returns
    -------
    int
        Its descriptor. Linux only, like the forked kernels.
    """
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def share(descriptor: int) -> None:
    """Let :func:`count` count here; called in a forked kernel."""
    global _shared
    _shared = descriptor


def count() -> None:
    """Count one; does nothing where nobody reads."""
    if _shared is not None:
        # A count that is lost is no reason to lose an answer.
        with contextlib.suppress(OSError):
            os.eventfd_write(_shared, 1)


def take(descriptor: int) -> int:
    """Read how many were counted since the last time."""
    try:
        return os.eventfd_read(descriptor)
    except BlockingIOError:  # none
        return 0
