import os
import signal
from collections.abc import Iterator

import pytest

from icon_classifier.system import slots


@pytest.fixture(name="shared")
def _shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(slots, "_shared", None)
    monkeypatch.setattr(slots, "_places", 2)
    descriptor = slots.create()
    slots.share(descriptor)
    yield descriptor
    os.close(descriptor)


def fork_working(tell: int, go_on: int) -> int:
    """Fork a process that takes a turn, tells so, and works until it may go on."""
    pid = os.fork()
    if pid == 0:
        with slots.turn():
            os.write(tell, b"w")
            os.read(go_on, 1)
        os._exit(0)
    return pid


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("killed", [False, True])
def test_a_third_waits_for_one_of_two_cores(killed: bool) -> None:
    (told, tell), (go_on, let_go_on) = os.pipe(), os.pipe()
    pids = [fork_working(tell, go_on) for _ in range(2)]
    assert os.read(told, 1) + os.read(told, 1) == b"ww"

    pids.append(fork_working(tell, go_on))
    os.set_blocking(told, False)
    # It can only wait: both places are locked until somebody is let go on.
    with pytest.raises(BlockingIOError):
        os.read(told, 1)
    os.set_blocking(told, True)
    if killed:  # both, as nobody knows whose place the third one waits for
        os.kill(pids[0], signal.SIGKILL)
        os.kill(pids[1], signal.SIGKILL)
    else:
        os.write(let_go_on, b"..")
    assert os.read(told, 1) == b"w"

    os.write(let_go_on, b"...")
    for pid in pids:
        os.waitpid(pid, 0)
    for end in (told, tell, go_on, let_go_on):
        os.close(end)


def test_alone_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_shared", None)
    with slots.turn():
        pass


def test_a_turn_ends_with_an_error(shared: int) -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="a fault"), slots.turn():
            raise ValueError("a fault")
    pid = os.fork()
    if pid == 0:
        with slots.turn():
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert shared >= 0


def test_a_turn_within_a_turn_is_the_same_turn(shared: int) -> None:
    with slots.turn():
        with slots.turn():
            pass
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:  # another kernel
            os.write(tell, bytes([slots._take(shared, 2)]))
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(told, 1) == b"\1"  # the first place is still held
    os.close(told)
    os.close(tell)
    assert not slots._held


def test_little_memory_makes_one_wait_for_another(
    shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots.memory, "memory_limit", lambda: 512 * 2**20)
    slots.reckon()
    assert slots._places == 1
    monkeypatch.setattr(slots.memory, "memory_limit", lambda: 2**40)
    slots.reckon()
    assert slots._places == 2
    assert shared == slots._shared
