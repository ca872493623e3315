import os
from collections.abc import Iterator

import pytest

from icon_classifier.system import counter
from tests.support.processes import exit_code, forked


@pytest.fixture
def descriptor(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(counter, "_shared", None)
    created = counter.create()
    yield created
    os.close(created)


def test_counts_of_forked_processes_are_taken_once(descriptor: int) -> None:
    def count() -> None:
        counter.share(descriptor)
        counter.increment()
        counter.increment()

    assert [exit_code(pid) for pid in [forked(count) for _ in range(3)]] == [0, 0, 0]
    assert counter.take(descriptor) == 6
    assert counter.take(descriptor) == 0


def test_process_without_a_shared_counter_counts_nothing(descriptor: int) -> None:
    counter.increment()
    assert counter.take(descriptor) == 0


@pytest.mark.usefixtures("descriptor")
def test_closed_counter_raises_nothing() -> None:
    closed = counter.create()
    os.close(closed)
    counter.share(closed)
    counter.increment()
