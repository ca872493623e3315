import os
from collections.abc import Iterator

import pytest

from icon_classifier.system import counter


@pytest.fixture
def descriptor(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(counter, "_shared", None)
    created = counter.create()
    yield created
    os.close(created)


def test_what_forked_processes_count_is_read_once(descriptor: int) -> None:
    children = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                counter.share(descriptor)
                counter.count()
                counter.count()
                status = 0
            finally:
                os._exit(status)  # a child must never get back into pytest
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
    assert counter.take(descriptor) == 6
    assert counter.take(descriptor) == 0


def test_nobody_reads(descriptor: int) -> None:
    counter.count()
    assert counter.take(descriptor) == 0


def test_a_counter_that_is_gone_costs_no_answer() -> None:
    descriptor = counter.create()
    os.close(descriptor)
    counter.share(descriptor)
    counter.count()
