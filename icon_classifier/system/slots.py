"""Taking turns across processes: as many kernels work on a photo at once as cores and memory allow.

Decoding and the network take some 60 MB for a moment. Twenty kernels at once would not get done any
sooner than two at a time, but would need twenty times that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from icon_classifier.system import memory

_shared: int | None = None
_places = 1
_held = False


def create() -> int:
    """Make what forked processes take turns by: a file in memory, of which each locks one byte.

    A lock of a process that dies is free at once, which a semaphore would not be.

    Returns
    -------
    int
        Its descriptor. Linux only, like the forked kernels.
    """
    return os.memfd_create("turns", os.MFD_CLOEXEC)


def reckon() -> None:
    """Find out how many may work at once; called once before any fork, as it reads many files."""
    global _places
    _places = memory.works_that_fit(memory.memory_limit(), memory.usable_cores())


def share(descriptor: int) -> None:
    """Let :func:`turn` wait here; called in a forked kernel."""
    global _shared
    _shared = descriptor


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Work when it is this process's turn; at once where nobody else is to be waited for.

    A turn within a turn is the same turn, so that a photo can be decoded, looked at and shrunk in
    one: twenty that were decoded and wait for the network would hold 50 MB each. For the thread
    that works for the page, and for that one only.
    """
    global _held
    if _shared is None or _held:
        yield
        return
    place = _take(_shared, _places)
    _held = True
    try:
        yield
    finally:
        _held = False
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
