"""Slots for computing: how many processes may work on a photo at the same time.

As many as cores and memory allow: decoding and the network take some 60 MB for a moment, and twenty
kernels at the same time would not be done any sooner than two at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from icon_classifier.system import memory

_shared: int | None = None
_count = 1
_held = False


def create() -> int:
    """Create what forked processes share: a file in memory, of which each slot is one locked byte.

    The lock of a process that dies is released at once, which a semaphore's would not be.

    Returns
    -------
    int
        Its descriptor. Linux only, like the forked kernels.
    """
    return os.memfd_create("slots", os.MFD_CLOEXEC)


def prepare() -> None:
    """Compute the number of slots; called once before any fork, as it reads many files."""
    global _count
    _count = memory.slot_count(memory.memory_limit(), memory.usable_cores())


def share(descriptor: int) -> None:
    """Let :func:`slot` wait for the slots of this descriptor; called in a forked kernel."""
    global _shared
    _shared = descriptor


@contextlib.contextmanager
def slot() -> Iterator[None]:
    """Hold a slot for the block; without shared slots there is nothing to wait for.

    A slot within a slot is the same one, so that a photo can be decoded, classified and shrunk in
    one: twenty that were decoded and wait for the network would hold 50 MB each. For the thread
    that works for the page, and for that one only.
    """
    global _held
    if _shared is None or _held:
        yield
        return
    index = _acquire(_shared, _count)
    _held = True
    try:
        yield
    finally:
        _held = False
        fcntl.lockf(_shared, fcntl.LOCK_UN, 1, index)


def _acquire(descriptor: int, count: int) -> int:
    """Lock a free byte, or wait for one of them; return its index."""
    for index in range(count):
        with contextlib.suppress(BlockingIOError, PermissionError):  # taken; POSIX allows both
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
            return index
    index = os.getpid() % count
    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, index)
    return index
