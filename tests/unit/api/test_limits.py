from __future__ import annotations

import pytest

from icon_classifier.api.limits import ApiKeys, Budget, RateLimiter
from icon_classifier.errors import ApiKeyError, BusyError, RateLimitError


def test_without_keys_everybody_may_ask():
    ApiKeys().check(None)


def test_each_key_opens():
    keys = ApiKeys(["one", "zwei-ß"])
    keys.check("one")
    keys.check("zwei-ß")


@pytest.mark.parametrize("key", [None, "", "on", "one ", "ONE", "\udcff"])
def test_no_other_key_opens(key):
    with pytest.raises(ApiKeyError):
        ApiKeys(["one", "two"]).check(key)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_tokens_are_used_up_and_come_back_evenly():
    clock = Clock()
    limiter = RateLimiter(60, clock=clock)
    limiter.take("a", 60)
    with pytest.raises(RateLimitError) as caught:
        limiter.take("a", 3)
    assert caught.value.retry_after == 3
    clock.now += 2.9
    with pytest.raises(RateLimitError):
        limiter.take("a", 3)
    clock.now += 0.2
    limiter.take("a", 3)


def test_clients_have_buckets_of_their_own():
    limiter = RateLimiter(1, clock=Clock())
    limiter.take("a")
    limiter.take("b")
    with pytest.raises(RateLimitError):
        limiter.take("a")


def test_a_bucket_never_overflows():
    clock = Clock()
    limiter = RateLimiter(2, clock=clock)
    limiter.take("a", 1)
    clock.now += 3600
    limiter.take("a", 2)
    with pytest.raises(RateLimitError):
        limiter.take("a", 1)


def test_the_client_not_seen_for_longest_is_forgotten():
    limiter = RateLimiter(1, max_clients=2, clock=Clock())
    for client in "abc":
        limiter.take(client)
    limiter.take("a")  # forgotten, so full again
    with pytest.raises(RateLimitError):
        limiter.take("c")


def test_zero_is_no_limit():
    limiter = RateLimiter(0)
    for _ in range(1000):
        limiter.take("a", 1000)


def test_the_budget_is_shared_and_given_back():
    budget = Budget(100)
    with budget.hold() as take:
        take(60)
        with budget.hold() as other, pytest.raises(BusyError):
            other(60)
        take(40)
    with budget.hold() as take:
        take(100)


def test_the_budget_is_given_back_after_an_error():
    budget = Budget(10)
    with pytest.raises(BusyError), budget.hold() as take:
        [take(size) for size in (10, 1)]
    with budget.hold() as take:
        take(10)
