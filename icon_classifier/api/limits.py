"""Who may ask the API, how often, and how much memory all requests together may take."""

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
    """The keys that open the API; with none, it is open to everybody.

    Parameters
    ----------
    keys : sequence of str
        The keys themselves.
    """

    def __init__(self, keys: Sequence[str] = ()) -> None:
        # Hashes have one length, so that comparing tells nothing about the length of a key.
        self._hashes = [_hash(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def check(self, key: str | None) -> None:
        """Let a request pass or not.

        Every key is compared, to the end, so that the time it takes tells nothing.

        Raises
        ------
        ApiKeyError
            If keys are asked for and this is none of them.
        """
        if not self._hashes:
            return
        given = _hash(key or "")
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        if not any(matches):
            raise ApiKeyError("a missing or wrong API key")


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class RateLimiter:
    """A bucket of tokens for each client: a photo costs one, and they come back evenly.

    Parameters
    ----------
    per_minute : int
        Tokens in a full bucket, which is also what comes back in a minute; 0: no limit.
    max_clients : int, optional
        Clients that are remembered; the one not seen for longest is forgotten first.
    clock : callable, optional
        Seconds, monotonic; tests turn it themselves.
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

    def take(self, client: str, cost: int = 1) -> None:
        """Charge a client.

        Raises
        ------
        RateLimitError
            If too few tokens are left; none is taken then.
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
                f"{client} asked for more than {self._capacity:.0f} photos a minute",
                retry_after=max(1, math.ceil(missing * 60 / self._capacity)),
            )


class Budget:
    """Bytes that all requests in progress may hold together.

    Parameters
    ----------
    total : int
        In bytes.
    """

    def __init__(self, total: int) -> None:
        self._free = total

    @contextlib.contextmanager
    def hold(self) -> Iterator[Callable[[int], None]]:
        """Give a function that takes so many bytes; they are given back at the end.

        The function raises a :class:`~icon_classifier.errors.BusyError` when there are no more.
        """
        held = 0

        def take(count: int) -> None:
            nonlocal held
            if count > self._free:
                raise BusyError("the requests in progress hold all the memory there is for them")
            self._free -= count
            held += count

        try:
            yield take
        finally:
            self._free += held
