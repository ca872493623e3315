"""Turns to send: who goes on where more is sent than there is memory for."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

MAX_SECONDS = 2.0
"""How long a turn lasts while others wait."""

MAX_SILENCE = 0.2
"""Seconds without a further piece after which a turn ends: a slow sender fills no memory."""


class Turns:
    """Senders in the order in which they came, of whom the first may send.

    Parameters
    ----------
    clock : callable, optional
        Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._line: dict[Hashable, None] = {}
        self._began = self._last = float("-inf")

    def ask(self, sender: Hashable) -> bool:
        """Return whether it is a sender's turn, who then sends a piece; the others ask again."""
        self._line.setdefault(sender)
        first, now = next(iter(self._line)), self._clock()
        if now - self._last > MAX_SILENCE or now - self._began > MAX_SECONDS:
            if first != sender:
                self.leave(first)
                self._line[first] = None
                first = next(iter(self._line))
            self._began = self._last = now
        if first != sender:
            return False
        self._last = now
        return True

    def pause(self) -> None:
        """Stop the clock: for now nobody may send."""
        self._began = self._last = self._clock()

    def leave(self, sender: Hashable) -> None:
        """Take a sender out of the line who has sent everything, or is gone."""
        self._line.pop(sender, None)
