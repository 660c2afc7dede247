"""The virtual clock by itself: order, grain and the end of an advance."""

from __future__ import annotations

from contextvars import ContextVar

import pytest

from dtimer.sim.clock import COMPACT_ABOVE, VirtualClock

START_US = 1_000_000


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START_US)


def fire(clock: VirtualClock, until_us: int) -> None:
    """Run everything up to `until_us`, as the world does but without a loop."""
    while due := clock.take_due(until_us):
        for timer in due:
            timer.run()


def test_timers_fire_in_the_order_of_their_times(clock: VirtualClock) -> None:
    """Whatever the order in which they were set."""
    fired: list[int] = []
    for when_us in (START_US + 30_000, START_US + 10_000, START_US + 20_000):
        clock.call_at(when_us, lambda when_us=when_us: fired.append(when_us))  # type: ignore[misc]  # bound per loop

    fire(clock, START_US + 30_000)

    assert fired == [START_US + 10_000, START_US + 20_000, START_US + 30_000]


def test_timers_of_one_time_fire_in_the_order_they_were_set(clock: VirtualClock) -> None:
    """Else runs with the same seed could differ."""
    fired: list[str] = []
    for name in "abcdefgh":
        clock.call_at(START_US + 5_000, lambda name=name: fired.append(name))  # type: ignore[misc]  # bound per loop

    fire(clock, START_US + 5_000)

    assert "".join(fired) == "abcdefgh"


@pytest.mark.parametrize(
    ("when_us", "fired_at_us"),
    [(START_US + 1, START_US + 1_000), (START_US + 1_000, START_US + 1_000), (START_US + 1_001, START_US + 2_000)],
)
def test_a_timer_ahead_fires_on_the_next_full_millisecond(clock: VirtualClock, when_us: int, fired_at_us: int) -> None:
    """Real event loops have that grain, and what only works without it would fail in production."""
    fired: list[int] = []
    clock.call_at(when_us, lambda: fired.append(clock.now_us))

    fire(clock, START_US + 10_000)

    assert fired == [fired_at_us]


@pytest.mark.parametrize("when_us", [0, START_US - 1, START_US, START_US + 7])
def test_a_timer_that_is_due_already_fires_without_moving_the_clock(clock: VirtualClock, when_us: int) -> None:
    """What is due now needs no time to pass, also when now is off the grid."""
    clock.catch_up(START_US + 7)
    fired: list[int] = []
    clock.call_at(when_us, lambda: fired.append(clock.now_us))

    fire(clock, clock.now_us)

    assert fired == [START_US + 7]


def test_a_timer_at_the_very_end_is_reached_although_it_is_rounded_beyond(clock: VirtualClock) -> None:
    """`advance(1 s)` after a post must deliver what is due in 1 s, even if the post took a microsecond."""
    fired: list[int] = []
    clock.call_at(START_US + 1_001, lambda: fired.append(clock.now_us))

    assert not clock.take_due(START_US + 1_000)
    fire(clock, START_US + 1_001)

    assert fired == [START_US + 2_000]


def test_a_timer_past_the_end_does_not_fire_in_the_millisecond_of_one_before_it(clock: VirtualClock) -> None:
    """It is for the next advance, although the clock has got to it."""
    fired: list[str] = []
    clock.call_at(START_US + 100, lambda: fired.append("reached"))
    clock.call_at(START_US + 200, lambda: fired.append("later"))

    fire(clock, START_US + 150)
    assert fired == ["reached"]
    fire(clock, START_US + 200)

    assert fired == ["reached", "later"]
    assert clock.now_us == START_US + 1_000


def test_a_cancelled_timer_does_not_fire(clock: VirtualClock) -> None:
    """Nor does it move the clock to its time."""
    fired: list[str] = []
    clock.call_at(START_US + 1_000, lambda: fired.append("cancelled")).cancel()

    fire(clock, START_US + 5_000)

    assert not fired
    assert clock.now_us == START_US


def test_a_timer_can_be_cancelled_by_one_of_the_same_time(clock: VirtualClock) -> None:
    """As on a real loop, where both are taken off the heap before the first one runs."""
    fired: list[str] = []

    def cancel_second() -> None:
        second.cancel()

    clock.call_at(START_US + 1_000, cancel_second)
    second = clock.call_at(START_US + 1_000, lambda: fired.append("second"))

    fire(clock, START_US + 5_000)

    assert not fired


def test_cancelling_late_or_twice_is_harmless(clock: VirtualClock) -> None:
    """Callers need not remember what has run."""
    timer = clock.call_at(START_US, lambda: None)
    fire(clock, START_US)

    timer.cancel()
    timer.cancel()
    another = clock.call_at(START_US + 1_000, lambda: None)

    assert clock.take_due(START_US + 1_000) == [another]


def test_cancelled_timers_do_not_pile_up(clock: VirtualClock) -> None:
    """A node sets and cancels a timer with each claim; a simulated year must not fill the memory."""
    kept = clock.call_at(START_US + 2_000, lambda: None)

    for _ in range(10 * COMPACT_ABOVE):
        clock.call_at(START_US + 1_000, lambda: None).cancel()

    assert len(clock._heap) <= COMPACT_ABOVE + 2
    assert clock.take_due(START_US + 2_000) == [kept]


def test_the_clock_catches_up_but_never_goes_back(clock: VirtualClock) -> None:
    """The store gives out microseconds ahead of it; an older one changes nothing."""
    clock.catch_up(START_US + 3)
    clock.catch_up(START_US + 1)

    assert clock.now_us == START_US + 3


def test_a_timer_keeps_the_context_it_was_set_in(clock: VirtualClock) -> None:
    """Tasks started by its callback belong to whoever set it, not to whoever moves the clock."""
    whose: ContextVar[str] = ContextVar("whose", default="")
    seen: list[str] = []
    reset = whose.set("setter")
    timer = clock.call_at(START_US, lambda: seen.append(whose.get()))
    whose.reset(reset)

    timer.context.run(timer.run)

    assert seen == ["setter"]
