"""API keys, rate limits for each client, and a fair share of what all requests need."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence

from icon_classifier.errors import ApiKeyError, BusyError, RateLimitError

MAX_CLIENTS = 10_000
"""Clients whose rate is remembered; the least recently seen is forgotten first."""


class ApiKeys:
    """The accepted API keys; without any, every request is accepted.

    Parameters
    ----------
    keys : sequence of str
        The keys in plain text.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        # Hashes have equal length, so a comparison's duration does not depend on a key's length.
        self._hashes = [_hash(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def check(self, key: str | None) -> None:
        """Compare a key with all accepted ones, in constant time.

        Raises
        ------
        ApiKeyError
            If there are accepted keys and this is none of them.
        """
        if not self._hashes:
            return
        given = _hash(key or "")
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        if not any(matches):
            raise ApiKeyError("missing or wrong API key")


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class RateLimiter:
    """A token bucket for each client: a photo costs one token, and tokens refill evenly.

    Parameters
    ----------
    per_minute : int
        Tokens in a full bucket, and tokens refilled in a minute; 0: no limit.
    clock : callable, optional
        Returns seconds, monotonic; tests pass their own.
    """

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = float(per_minute)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def charge(self, client: str, cost: int = 1) -> None:
        """Remove tokens from a client's bucket, at most as many as it can hold.

        Raises
        ------
        RateLimitError
            If the bucket holds too few; it is then left as it is.
        """
        if not self._capacity or cost <= 0:
            return
        now = self._clock()
        tokens, then = self._buckets.pop(client, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - then) * self._capacity / 60)
        enough = tokens >= cost
        self._buckets[client] = (tokens - cost if enough else tokens, now)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if not enough:
            raise RateLimitError(
                f"expected at most {self._capacity:.0f} photos a minute from {client}, got more",
                retry_after=max(1, math.ceil((cost - tokens) * 60 / self._capacity)),
            )


class Budget:
    """What requests share: bytes, places in a queue, downloads.

    One client holds at most its share while others hold some of it, and leaves a share for the next
    client while it is alone.

    Parameters
    ----------
    total : int
        How much there is.
    share : int
        How much of it each client may always hold.
    unit : str
        What it is, for the log.
    """

    def __init__(self, total: int, share: int, unit: str) -> None:
        self._total = total
        self._share = share
        self._unit = unit
        self._held: Counter[str] = Counter()

    @property
    def used(self) -> int:
        """How much of it is held, by all clients together."""
        return self._held.total()

    @contextlib.contextmanager
    def reservation(self, client: str) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves some for a client; all is freed when the block ends.

        The function raises a :class:`~icon_classifier.errors.BusyError` if the client may not hold
        that much more.
        """
        reserved = 0

        def reserve(count: int) -> None:
            nonlocal reserved
            used, own = self.used + count, self._held[client] + count
            limit = self._total - self._share if used == own else 0  # more than its share
            if used > self._total or own > max(self._share, limit):
                raise BusyError(
                    f"{client} asked for {count} more {self._unit} than are free for it"
                )
            self._held[client] += count
            reserved += count

        try:
            yield reserve
        finally:
            self._held -= Counter({client: reserved})  # keeps no client that holds nothing
