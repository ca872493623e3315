import pytest

from icon_classifier.server.turns import MAX_SECONDS, MAX_SILENCE, Turns


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def turns(clock: Clock) -> Turns:
    return Turns(clock)


def test_first_who_asks_goes_on_until_they_leave(turns: Turns) -> None:
    for _ in range(3):
        assert [turns.ask(sender) for sender in "abc"] == [True, False, False]
    turns.leave("a")
    assert [turns.ask(sender) for sender in "cb"] == [False, True]


def test_silent_sender_loses_the_turn_and_gets_another(turns: Turns, clock: Clock) -> None:
    assert [turns.ask(sender) for sender in "ab"] == [True, False]
    clock.now += MAX_SILENCE + 0.01
    assert turns.ask("b")
    assert not turns.ask("a")
    turns.leave("b")
    assert turns.ask("a")


def test_turn_ends_while_others_wait(turns: Turns, clock: Clock) -> None:
    end = clock.now + MAX_SECONDS
    while clock.now < end:
        assert [turns.ask(sender) for sender in "ab"] == [True, False]
        clock.now += MAX_SILENCE / 2
    clock.now += MAX_SILENCE / 2
    assert [turns.ask(sender) for sender in "ba"] == [True, False]


def test_turn_of_who_is_alone_does_not_end(turns: Turns, clock: Clock) -> None:
    for _ in range(5):
        assert turns.ask("a")
        clock.now += MAX_SECONDS


def test_clock_stops_while_nobody_may_send(turns: Turns, clock: Clock) -> None:
    assert [turns.ask(sender) for sender in "ab"] == [True, False]
    clock.now += 10 * MAX_SECONDS
    turns.pause()
    assert [turns.ask(sender) for sender in "ba"] == [False, True]


def test_sender_who_leaves_need_not_have_asked(turns: Turns) -> None:
    turns.leave("a")
    assert turns.ask("b")
