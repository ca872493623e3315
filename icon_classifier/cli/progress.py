"""How far a long run has come, on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

Item = TypeVar("Item")

_EVERY_SECONDS = 0.2
_WIDTH = 24


class Counter:
    """Counts in a thread of its own, so that nobody waits for the end of the count.

    Parameters
    ----------
    items : callable
        Called in that thread; gives what is to be counted.
    """

    def __init__(self, items: Callable[[], Iterable[object]]) -> None:
        self.total: int | None = None
        self._items = items
        self._thread = threading.Thread(target=self._count, name="count", daemon=True)
        self._thread.start()

    def _count(self) -> None:
        self.total = sum(1 for _ in self._items())

    def join(self) -> None:
        """Wait for the end of the count."""
        self._thread.join()


def progress(
    items: Iterable[Item], counter: Counter, *, done: int = 0, file: TextIO | None = None
) -> Iterator[Item]:
    """Pass items on and draw a bar of how many there were.

    Parameters
    ----------
    items : iterable
        Passed on as they are.
    counter : Counter
        Knows how many there are, sooner or later.
    done : int, optional
        How many were done before.
    file : text file, optional
        A terminal; standard error if not given.
    """
    file = file or sys.stderr
    start = time.monotonic()
    drawn = float("-inf")
    count = 0
    all_done = False
    try:
        for item in items:
            yield item
            count += 1
            now = time.monotonic()
            if now - drawn >= _EVERY_SECONDS:
                drawn = now
                print(f"\r{_bar(count, done, counter.total, now - start)}", end="", file=file)
                file.flush()
        all_done = True
    finally:
        # A short run may end before its count does: then this is the count.
        total = done + count if all_done else counter.total
        line = _bar(count, done, total, time.monotonic() - start)
        print(f"\r{line}", file=file, flush=True)


def _bar(count: int, done: int, total: int | None, seconds: float) -> str:
    rate = count / max(seconds, 1e-9)
    if not total:
        return f"{done + count} photos, {rate:.1f}/s   "
    share = min(1.0, (done + count) / total)
    full = int(_WIDTH * share)
    left = max(0, total - done - count) / rate if rate else 0.0
    minutes, rest = divmod(round(left), 60)
    bar = "█" * full + "░" * (_WIDTH - full)
    return f"{bar} {done + count}/{total} photos, {rate:.1f}/s, {minutes}:{rest:02d} left   "
