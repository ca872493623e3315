import os
import signal
from collections.abc import Iterator

import pytest

from icon_classifier.system import slots
from tests.support.processes import exit_code, forked


@pytest.fixture(name="shared")
def _shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(slots, "_shared", None)
    monkeypatch.setattr(slots, "_count", 2)
    descriptor = slots.create()
    slots.share(descriptor)
    yield descriptor
    os.close(descriptor)


def forked_holder(started: int, released: int) -> int:
    """Fork a process that holds a slot, writes a byte when it has it, and waits for another."""

    def hold() -> None:
        with slots.slot():
            os.write(started, b"w")
            os.read(released, 1)

    return forked(hold)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("killed", [False, True])
def test_third_process_waits_for_one_of_two_slots(killed: bool) -> None:
    (has_started, start), (may_end, release) = os.pipe(), os.pipe()
    pids = [forked_holder(start, may_end) for _ in range(2)]
    assert os.read(has_started, 1) + os.read(has_started, 1) == b"ww"

    pids.append(forked_holder(start, may_end))
    os.set_blocking(has_started, False)
    # It can only wait: both slots are held until a byte is written.
    with pytest.raises(BlockingIOError):
        os.read(has_started, 1)
    os.set_blocking(has_started, True)
    if killed:  # both, as nobody knows whose slot the third one waits for
        os.kill(pids[0], signal.SIGKILL)
        os.kill(pids[1], signal.SIGKILL)
    else:
        os.write(release, b"..")
    assert os.read(has_started, 1) == b"w"

    os.write(release, b"...")
    for pid in pids:
        exit_code(pid)
    for end in (has_started, start, may_end, release):
        os.close(end)


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


@pytest.mark.usefixtures("shared")
def test_little_memory_leaves_one_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots.memory, "usable_cores", lambda: 2)
    monkeypatch.setattr(slots.memory, "memory_limit", lambda: 512 * 2**20)
    slots.prepare()
    assert slots._count == 1
    monkeypatch.setattr(slots.memory, "memory_limit", lambda: 2**40)
    slots.prepare()
    assert slots._count == 2
