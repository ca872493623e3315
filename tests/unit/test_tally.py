import os
from collections.abc import Iterator

import pytest

from icon_classifier import tally


@pytest.fixture(name="counter")
def _counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(tally, "_shared", None)
    descriptor = tally.create()
    yield descriptor
    os.close(descriptor)


def test_what_forked_processes_count_is_read_once(counter: int) -> None:
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            tally.share(counter)
            tally.count()
            tally.count()
            os._exit(0)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    assert tally.take(counter) == 6
    assert tally.take(counter) == 0


def test_nobody_reads(counter: int) -> None:
    tally.count()
    assert tally.take(counter) == 0


def test_a_counter_that_is_gone_costs_no_answer() -> None:
    descriptor = tally.create()
    os.close(descriptor)
    tally.share(descriptor)
    tally.count()
