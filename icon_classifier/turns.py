"""Taking turns across processes: as many kernels work on a photo at once as there are cores.

Decoding and the network take some 60 MB for a moment. Twenty kernels at once would not get done any
sooner than two at a time, but would need twenty times that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

__all__ = ["create", "share", "turn"]

_shared: int | None = None


def create() -> int:
    """Make what forked processes take turns by: a file in memory, of which each locks one byte.

    A lock of a process that dies is free at once, which a semaphore would not be.

    Returns
    -------
    int
        Its descriptor. Linux only, like the forked kernels.
    """
    return os.memfd_create("turns", os.MFD_CLOEXEC)


def share(descriptor: int) -> None:
    """Let :func:`turn` wait here; called in a forked kernel."""
    global _shared
    _shared = descriptor


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Work when it is this process's turn; at once where nobody else is to be waited for."""
    if _shared is None:
        yield
        return
    place = _take(_shared, len(os.sched_getaffinity(0)))
    try:
        yield
    finally:
        fcntl.lockf(_shared, fcntl.LOCK_UN, 1, place)


def _take(descriptor: int, places: int) -> int:
    """Lock a free byte, or wait for one of them."""
    for place in range(places):
        with contextlib.suppress(BlockingIOError, PermissionError):  # taken; POSIX allows both
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            return place
    place = os.getpid() % places
    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, place)
    return place
