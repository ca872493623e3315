import os
import signal
import time
from collections.abc import Iterator

import pytest

from icon_classifier.system import slots
from icon_classifier.system.slots import SlotWatch
from tests.support.processes import exit_code, forked

Pipes = tuple[int, int, int, int]


@pytest.fixture(name="shared")
def _shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(slots, "_shared", None)
    monkeypatch.setattr(slots.memory, "slot_count", lambda *_: 2)
    descriptor = slots.create()
    slots.share(descriptor)
    yield descriptor
    os.close(descriptor)


@pytest.fixture(name="pipes")
def _pipes() -> Iterator[Pipes]:
    """Ends of two pipes: read and write what has started, read and write what may end."""
    ends = (*os.pipe(), *os.pipe())
    yield ends
    for end in ends:
        os.close(end)


def forked_holder(started: int, released: int) -> int:
    """Fork a process that holds a slot, writes a byte when it has it, and waits for another."""

    def hold() -> None:
        with slots.slot():
            os.write(started, b"w")
            os.read(released, 1)

    return forked(hold)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("killed", [False, True])
def test_third_process_waits_for_one_of_two_slots(killed: bool, pipes: Pipes) -> None:
    has_started, start, may_end, release = pipes
    pids = [forked_holder(start, may_end) for _ in range(2)]
    assert os.read(has_started, 1) + os.read(has_started, 1) == b"ww"

    pids.append(forked_holder(start, may_end))
    os.set_blocking(has_started, False)
    # It can only wait: both slots are held until a byte is written.
    with pytest.raises(BlockingIOError):
        os.read(has_started, 1)
    os.set_blocking(has_started, True)
    if killed:
        os.kill(pids[0], signal.SIGKILL)
    else:
        os.write(release, b".")
    assert os.read(has_started, 1) == b"w"

    os.write(release, b"...")
    for pid in pids:
        exit_code(pid)


@pytest.mark.usefixtures("shared")
def test_all_who_wait_take_the_slot_that_is_free(pipes: Pipes) -> None:
    has_started, start, may_end, release = pipes
    busy = [forked_holder(start, may_end) for _ in range(2)]
    assert os.read(has_started, 1) + os.read(has_started, 1) == b"ww"
    waiting = [forked_holder(start, may_end) for _ in range(4)]
    for _ in waiting:  # one slot stays held for the whole time
        os.write(release, b".")
        assert os.read(has_started, 1) == b"w"
    os.write(release, b"..")
    assert [exit_code(pid) for pid in busy + waiting] == [0] * 6


def test_without_shared_slots_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_shared", None)
    with slots.slot():
        pass


@pytest.mark.usefixtures("shared")
def test_slot_is_released_after_an_error() -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="a fault"), slots.slot():
            raise ValueError("a fault")

    def hold() -> None:
        with slots.slot():
            pass

    assert exit_code(forked(hold)) == 0


def test_slot_within_a_slot_is_the_same(shared: int) -> None:
    with slots.slot():
        with slots.slot():
            pass
        has_index, index = os.pipe()
        exit_code(forked(lambda: os.write(index, bytes([slots._acquire(shared, 2)]))))
        assert os.read(has_index, 1) == b"\1"  # the first slot is still held
    os.close(has_index)
    os.close(index)
    assert not slots._held


def test_little_memory_leaves_one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_shared", None)
    monkeypatch.setattr(slots.memory, "usable_cores", lambda: 2)
    for limit, count in ((512 * 2**20, 1), (2**40, 2)):
        monkeypatch.setattr(slots.memory, "memory_limit", lambda limit=limit: limit)
        descriptor = slots.create()
        slots.share(descriptor)
        assert slots._count == count
        os.close(descriptor)


def until_overdue(watch: SlotWatch, seconds: float) -> list[int]:
    """Look at the slots until a process has held one for so long."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if found := watch.overdue(seconds):
            return found
        time.sleep(0.01)  # between two looks at a condition
    return []


@pytest.mark.parametrize("stopped", [False, True])
def test_watch_finds_who_holds_a_slot_too_long(shared: int, stopped: bool, pipes: Pipes) -> None:
    has_started, start, may_end, _ = pipes
    watch = SlotWatch(shared)
    pid = forked_holder(start, may_end)
    assert os.read(has_started, 1) == b"w"
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    assert watch.overdue(60) == []
    assert until_overdue(watch, 0.3) == [pid]
    os.kill(pid, signal.SIGKILL)
    assert exit_code(pid) == -signal.SIGKILL
    assert watch.overdue(0.0) == []  # a dead process holds nothing


def test_watch_tells_one_hold_from_the_next(shared: int, pipes: Pipes) -> None:
    """Fifty photos in a row are no photo that takes fifty times as long."""
    has_started, start, may_end, release = pipes
    watch = SlotWatch(shared)

    def hold_twice() -> None:
        for _ in range(2):
            with slots.slot():
                os.write(start, b"w")
                os.read(may_end, 1)

    pid = forked(hold_twice)
    for _ in range(2):
        assert os.read(has_started, 1) == b"w"
        assert watch.overdue(0.0) == []
        assert until_overdue(watch, 0.0) == [pid]
        os.write(release, b".")
    exit_code(pid)


def test_watch_counts_no_waiting_for_a_slot(shared: int, pipes: Pipes) -> None:
    has_started, start, may_end, _ = pipes
    pids = [forked_holder(start, may_end) for _ in range(2)]
    assert os.read(has_started, 1) + os.read(has_started, 1) == b"ww"
    watch = SlotWatch(shared)
    waiting = forked_holder(start, may_end)
    watch.overdue(0.0)
    assert sorted(watch.overdue(0.0)) == sorted(pids)
    assert waiting not in until_overdue(watch, 0.3)
    for pid in [*pids, waiting]:
        os.kill(pid, signal.SIGKILL)
        exit_code(pid)


def test_waiting_for_a_core_counts_half(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/proc/1/schedstat": "7000000000 4000000000 12\n"}
    monkeypatch.setattr(slots.Path, "read_text", lambda path: files[str(path)])
    monkeypatch.setattr(slots.time, "monotonic", lambda: 100.0)
    assert slots._clock(1) == 98.0


def test_all_slots_held_by_the_same_are_told_from_work(shared: int, pipes: Pipes) -> None:
    has_started, start, may_end, _ = pipes
    watch = SlotWatch(shared)
    pids = [forked_holder(start, may_end) for _ in range(2)]
    assert os.read(has_started, 1) + os.read(has_started, 1) == b"ww"
    watch.overdue()
    before = watch.seconds_since_release
    watch.overdue()
    assert watch.seconds_since_release > before
    os.kill(pids[0], signal.SIGKILL)
    exit_code(pids[0])
    since = time.monotonic()
    watch.overdue()
    assert watch.seconds_since_release <= time.monotonic() - since
    os.kill(pids[1], signal.SIGKILL)
    exit_code(pids[1])
