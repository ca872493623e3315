"""Slots for computing: how many processes may work on a photo at the same time, and for how long.

As many as cores and memory allow: decoding and the network take some 60 MB for a moment, and twenty
kernels at the same time would not be done any sooner than two at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from icon_classifier.system import memory

MAX_SECONDS = 15.0
"""How long a process may hold a slot. A photo takes a second, a few on a slow host."""

_RANGE = 2**32
"""Bytes of each slot in the shared file. Whoever holds the slot has locked the first, and as many
more as tell this hold from the process's one before."""

_FLOCK = "hhqqi0q"
"""The system's ``struct flock``: type, whence, start, length, process id."""

_PAUSE_SECONDS = 0.001
"""How often the first who waits looks for a free slot: the system lets nobody wait for one of
several locks. The others wait for the lock of the first, behind those of the slots."""

_shared: int | None = None
_count = 1
_holds = 0
_held = False


def create() -> int:
    """Create what forked processes share: a file in memory, in which each slot is a locked range.

    The lock of a process that dies is released at once, which a semaphore's would not be.

    Returns
    -------
    int
        Its descriptor. Linux only, like the forked kernels.
    """
    descriptor = os.memfd_create("slots", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, memory.slot_count(memory.memory_limit(), memory.usable_cores()))
    return descriptor


def share(descriptor: int) -> None:
    """Let :func:`slot` wait for the slots of this descriptor; called in a forked kernel."""
    global _shared, _count
    _shared, _count = descriptor, os.fstat(descriptor).st_size


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
        fcntl.lockf(_shared, fcntl.LOCK_UN, _RANGE, index * _RANGE)


def _acquire(descriptor: int, count: int) -> int:
    """Lock whichever slot is free first, after those who came before; return its index."""
    global _holds
    _holds = _holds % (_RANGE - 1) + 1
    queue = count * _RANGE
    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, queue)
    try:
        while True:
            for index in range(count):
                with contextlib.suppress(BlockingIOError, PermissionError):  # POSIX allows both
                    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _holds, index * _RANGE)
                    return index
            time.sleep(_PAUSE_SECONDS)
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, queue)


class SlotWatch:
    """Measures how long slots are held; for one process that holds none itself.

    Who holds a slot is what the system says of its lock: there is nothing that a process could
    write wrongly or leave behind. Time that the process waits for a core counts half, for a photo
    is not to blame for a busy machine; time that it sleeps or is stopped counts whole.

    Parameters
    ----------
    descriptor : int
        As :func:`create` returned it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._holders: list[tuple[int, int] | None] = [None] * os.fstat(descriptor).st_size
        self._since = [0.0] * len(self._holders)
        self._last_release = time.monotonic()

    def overdue(self, seconds: float = MAX_SECONDS) -> list[int]:
        """Return the ids of the processes that hold a slot for longer; to be called each second."""
        found = []
        for index, known in enumerate(self._holders):
            holder = _holder(self._descriptor, index)
            if holder is None or holder != known:
                self._last_release = time.monotonic()
                self._holders[index] = holder
                self._since[index] = 0.0 if holder is None else _clock(holder[0])
            elif _clock(holder[0]) - self._since[index] > seconds:
                found.append(holder[0])
        return found

    @property
    def seconds_since_release(self) -> float:
        """For how long all slots have been held by the same processes."""
        return time.monotonic() - self._last_release


def _holder(descriptor: int, index: int) -> tuple[int, int] | None:
    """Return the process that holds a slot and the number of this hold; None if it is free."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, index * _RANGE, 1, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
    kind, _, _, length, pid = struct.unpack(_FLOCK, answer)
    return None if kind == fcntl.F_UNLCK else (pid, length)


def _clock(pid: int) -> float:
    """Return a clock in seconds that runs at half speed while a process waits for a core."""
    try:
        waited = int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # gone, or a system that does not say
        waited = 0.0
    return time.monotonic() - waited / 2
