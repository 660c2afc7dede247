"""The store's time, made from its host's clock (T2)."""

from __future__ import annotations

from dtimer.limits import CLOCK_STEP_US, INSTANT_MAX_US, SECOND_US, STORE_TIME_MAX_US
from dtimer.semantics import StoreClock


def test_it_is_the_hosts_time_while_that_goes_on() -> None:
    clock = StoreClock()

    assert [clock.read(host_us, 0) for host_us in (5, 6, 900)] == [5, 6, 900]
    assert clock.skew_us == 0


def test_microseconds_given_out_ahead_of_the_host_are_no_step() -> None:
    """A batch gives each item its own; the host catches up in no time."""
    clock = StoreClock()

    assert clock.read(1000, 1000 + CLOCK_STEP_US) == 1000 + CLOCK_STEP_US
    assert clock.skew_us == 0


def test_after_a_step_back_time_goes_on_at_its_normal_pace() -> None:
    """Else everything posted would wait until the host is where it was."""
    clock = StoreClock()
    before = clock.read(100 * SECOND_US, 0)

    after = clock.read(40 * SECOND_US, before)
    later = clock.read(41 * SECOND_US, after)

    assert after == before
    assert later == before + SECOND_US
    assert clock.skew_us == 60 * SECOND_US


def test_a_time_that_cannot_be_one_is_refused() -> None:
    """Given out once, it could not be taken back."""
    clock = StoreClock()
    assert clock.accepts(INSTANT_MAX_US)
    assert not clock.accepts(INSTANT_MAX_US + 1)

    clock.read(0, INSTANT_MAX_US)

    assert clock.accepts(STORE_TIME_MAX_US - INSTANT_MAX_US)
    assert not clock.accepts(STORE_TIME_MAX_US - INSTANT_MAX_US + 1)


def test_a_step_forward_is_taken_as_it_comes() -> None:
    """Nobody can tell it from a pause."""
    clock = StoreClock()
    before = clock.read(100, 0)

    assert clock.read(100 + SECOND_US, before) == 100 + SECOND_US
