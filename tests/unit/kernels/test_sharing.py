from __future__ import annotations

from collections.abc import Callable
from threading import Thread

from icon_classifier.kernels import sharing


def test_fill_free_blocks_leaves_fewer_free() -> None:
    def free() -> int:
        return sum(size * count for size, count in sharing._free_blocks())

    before = free()
    assert before > 0
    filler = sharing.fill_free_blocks()
    # What the filling itself allocates and frees is left.
    assert sum(map(len, filler)) > 0
    assert free() < before


def test_free_blocks_have_every_size_once() -> None:
    sizes = [size for size, _ in sharing._free_blocks()]
    assert sizes == sorted(set(sizes))
    assert all(size % 16 == 0 and size <= 512 for size in sizes)


def text() -> str:
    return "text"


def make() -> Callable[[], str]:
    return lambda: "made"


def not_run() -> str:
    return "not run"


def test_code_that_ran_is_copied_and_the_copy_does_the_same() -> None:
    before = text.__code__, make.__code__, not_run.__code__
    made = make()
    with sharing.executed_code() as executed:
        text()
        thread = Thread(target=lambda: make()())
        thread.start()
        thread.join()
    not_run()
    sharing.gather_code(executed)
    assert text.__code__ is not before[0]
    assert make.__code__ is not before[1]
    assert not_run.__code__ is before[2]
    assert made.__code__ is make().__code__  # of a function that was made before, and of a new one
    assert (text(), make()(), made()) == ("text", "made", "made")
