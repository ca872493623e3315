"""Search the memory of a process for bytes that should be gone, freed memory included."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import psutil


@contextlib.contextmanager
def _stopped(process: int) -> Iterator[None]:
    """Stop another process: else memory that was listed may be unmapped before it is read."""
    if process == os.getpid():
        yield
        return
    stopped = psutil.Process(process)
    stopped.suspend()
    try:
        while stopped.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
            time.sleep(0.001)  # between two looks at a condition
        yield
    finally:
        stopped.resume()


def count(mark: bytes, process: int | None = None) -> int:
    """Return how often a process (this one by default) has some bytes in writable memory."""
    process = process or os.getpid()
    pattern = re.compile(re.escape(mark))
    found = 0
    # What is read is kept out of this process's heap, where the next search would find it again: in
    # a shared mapping of its own, which the search leaves out.
    with mmap.mmap(-1, 2**24) as buffer, _stopped(process):
        memory = os.open(f"/proc/{process}/mem", os.O_RDONLY)
        try:
            for line in Path(f"/proc/{process}/maps").read_text().splitlines():
                span, rights, *_ = line.split()
                if not rights.startswith("rw") or "[v" in line or "/dev/zero" in line:
                    continue
                start, end = (int(part, 16) for part in span.split("-"))
                while start < end:
                    size = os.preadv(memory, [memoryview(buffer)[: end - start]], start)
                    found += sum(1 for _ in pattern.finditer(buffer, 0, size))
                    start += size
        finally:
            os.close(memory)
    return found
