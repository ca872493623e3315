"""Search the memory of a process for bytes that should be gone, freed memory included."""

from __future__ import annotations

import contextlib
import os
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
    found = 0
    with _stopped(process), Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            if not rights.startswith("rw") or "[v" in line:
                continue
            memory.seek(start)
            while start < end:
                piece = memory.read(min(end - start, 2**24))
                if not piece:
                    break
                found += piece.count(mark)
                start += len(piece)
    return found
