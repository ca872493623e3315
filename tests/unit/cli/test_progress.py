from __future__ import annotations

import io
import threading

from icon_classifier.cli.progress import Counter, progress


def counted(total: int) -> Counter:
    counter = Counter(lambda: range(total))
    counter.join()
    return counter


def test_items_are_passed_on_and_the_last_bar_is_full() -> None:
    file = io.StringIO()
    assert list(progress(range(7), counted(10), done=3, file=file)) == list(range(7))
    last = file.getvalue().split("\r")[-1]
    assert "10/10 photos" in last
    assert "░" not in last
    assert last.endswith("\n")


def test_before_the_count_ends_there_is_a_number() -> None:
    file = io.StringIO()
    gate = threading.Event()

    def slow():
        gate.wait(20)
        yield from range(5)

    counter = Counter(slow)
    items = progress(range(5), counter, file=file)
    for _ in range(3):
        next(items)
    assert "photos, " in file.getvalue()
    assert "/5" not in file.getvalue()
    gate.set()
    counter.join()
    assert list(items) == [3, 4]
    assert "5/5 photos" in file.getvalue()


def test_nothing_to_do() -> None:
    file = io.StringIO()
    assert list(progress([], counted(0), file=file)) == []
    assert "0 photos" in file.getvalue()
