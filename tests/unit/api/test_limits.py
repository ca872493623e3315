from __future__ import annotations

import pytest

from icon_classifier.api.limits import MAX_CLIENTS, ApiKeys, Budget, RateLimiter
from icon_classifier.errors import ApiKeyError, BusyError, RateLimitError


def test_without_keys_every_request_is_accepted():
    ApiKeys().check(None)


def test_each_key_is_accepted():
    keys = ApiKeys(["one", "zwei-ß"])
    keys.check("one")
    keys.check("zwei-ß")


@pytest.mark.parametrize("key", [None, "", "on", "one ", "ONE", "\udcff"])
def test_any_other_key_is_refused(key):
    with pytest.raises(ApiKeyError):
        ApiKeys(["one", "two"]).check(key)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_empty_bucket_refuses_and_refills_evenly():
    clock = Clock()
    limiter = RateLimiter(60, clock=clock)
    limiter.charge("a", 60)
    with pytest.raises(RateLimitError) as caught:
        limiter.charge("a", 3)
    assert caught.value.retry_after == 3
    clock.now += 2.9
    with pytest.raises(RateLimitError):
        limiter.charge("a", 3)
    clock.now += 0.2
    limiter.charge("a", 3)


def test_each_client_has_its_own_bucket():
    limiter = RateLimiter(1, clock=Clock())
    limiter.charge("a")
    limiter.charge("b")
    with pytest.raises(RateLimitError):
        limiter.charge("a")


def test_bucket_holds_no_more_than_its_capacity():
    clock = Clock()
    limiter = RateLimiter(2, clock=clock)
    limiter.charge("a", 1)
    clock.now += 3600
    limiter.charge("a", 2)
    with pytest.raises(RateLimitError):
        limiter.charge("a", 1)


def test_least_recently_used_bucket_is_dropped():
    limiter = RateLimiter(1, clock=Clock())
    for number in range(MAX_CLIENTS + 1):
        limiter.charge(str(number))
    limiter.charge("0")  # dropped before, so full again
    with pytest.raises(RateLimitError):
        limiter.charge("2")


def test_rate_of_zero_is_no_limit():
    limiter = RateLimiter(0)
    for _ in range(1000):
        limiter.charge("a", 1000)


def test_budget_is_shared_and_freed_at_the_end() -> None:
    budget = Budget(100, 100, "bytes")
    with budget.reservation("a") as reserve:
        reserve(60)
        with budget.reservation("b") as other, pytest.raises(BusyError):
            other(60)
        reserve(40)
        assert budget.used == 100
    with budget.reservation("c") as reserve:
        reserve(100)


def test_budget_is_freed_after_an_error() -> None:
    budget = Budget(10, 10, "bytes")
    with pytest.raises(BusyError), budget.reservation("a") as reserve:
        [reserve(size) for size in (10, 1)]
    assert budget.used == 0


def test_client_alone_leaves_a_share_of_the_budget_for_the_next() -> None:
    budget = Budget(16, 4, "places")
    with budget.reservation("a") as first, budget.reservation("b") as second:
        first(12)
        with pytest.raises(BusyError):
            first(1)
        second(4)


def test_client_among_others_has_no_more_than_a_share_of_the_budget() -> None:
    budget = Budget(16, 4, "places")
    with (
        budget.reservation("a") as first,
        budget.reservation("a") as again,
        budget.reservation("b") as other,
    ):
        other(1)
        first(3)
        with pytest.raises(BusyError):
            again(2)
        again(1)
