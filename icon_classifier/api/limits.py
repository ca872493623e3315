"""API keys, rate limits for each client, and a limit on the memory of all requests."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from icon_classifier.errors import ApiKeyError, BusyError, RateLimitError


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
    max_clients : int, optional
        Buckets that are kept; the least recently used is dropped first.
    clock : callable, optional
        Returns seconds, monotonic; tests pass their own.
    """

    def __init__(
        self,
        per_minute: int,
        *,
        max_clients: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._capacity = float(per_minute)
        self._max_clients = max_clients
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def charge(self, client: str, cost: int = 1) -> None:
        """Remove tokens from a client's bucket.

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
        if len(self._buckets) > self._max_clients:
            self._buckets.popitem(last=False)
        if not enough:
            missing = min(cost, self._capacity) - tokens
            raise RateLimitError(
                f"expected at most {self._capacity:.0f} photos a minute from {client}, got more",
                retry_after=max(1, math.ceil(missing * 60 / self._capacity)),
            )


class MemoryBudget:
    """Bytes that all requests in progress may hold together.

    Parameters
    ----------
    total : int
        In bytes.
    """

    def __init__(self, total: int) -> None:
        self._free = total

    @contextlib.contextmanager
    def reservation(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves a number of bytes; all are freed when the block ends.

        The function raises a :class:`~icon_classifier.errors.BusyError` if too few are free.
        """
        reserved = 0

        def reserve(count: int) -> None:
            nonlocal reserved
            if count > self._free:
                raise BusyError(f"expected {count} free bytes for requests, got {self._free}")
            self._free -= count
            reserved += count

        try:
            yield reserve
        finally:
            self._free += reserved
