"""The clock bound and the history."""

from __future__ import annotations

from dtimer.limits import CLOCK_WINDOW_US
from dtimer.node.history import Finding, History
from dtimer.node.store_clock import ClockBound
from dtimer.values import Applied


def test_before_the_first_reply_nothing_is_known() -> None:
    assert ClockBound().local_us(5) is None
    assert ClockBound().store_us(5) is None


def test_of_all_replies_the_fastest_counts() -> None:
    clock = ClockBound()
    clock.learn(1_000, 120, sent_us=0)
    clock.learn(2_000, 1_050, sent_us=1_000)
    clock.learn(3_000, 2_500, sent_us=1_000)

    assert clock.local_us(5_000) == 5_000 - 950
    assert clock.store_us(0) == 950


def test_a_bound_is_forgotten_after_one_to_two_windows() -> None:
    """Or a drifting clock would make it wrong."""
    clock = ClockBound()
    clock.learn(1_000, 0, sent_us=0)
    clock.learn(CLOCK_WINDOW_US, CLOCK_WINDOW_US, sent_us=0)
    assert clock.store_us(0) == 1_000

    clock.learn(2 * CLOCK_WINDOW_US, 2 * CLOCK_WINDOW_US, sent_us=0)

    assert clock.store_us(0) == 0


def test_another_clock_begins_with_nothing() -> None:
    clock = ClockBound()
    clock.learn(1_000, 0, sent_us=0)
    clock.forget()

    assert clock.store_us(0) is None


def test_a_bound_that_a_reply_refutes_is_forgotten() -> None:
    """The store's clock was set back: by the old bound the node would come too early again and again."""
    clock = ClockBound()
    clock.learn(1_000, 0, sent_us=0)
    clock.learn(1_400, 1_000, sent_us=900)

    assert clock.store_us(0) == 400


def test_a_slow_reply_refutes_nothing() -> None:
    clock = ClockBound()
    clock.learn(1_000, 0, sent_us=0)
    clock.learn(1_900, 2_000, sent_us=900)

    assert clock.store_us(0) == 1_000


def reply(seq: int, *, epoch: str = "a", skew_us: int = 0) -> Applied[None]:
    return Applied(epoch=epoch, seq=seq, at_us=0, value=None, skew_us=skew_us)


def test_a_history_that_goes_on_is_no_finding() -> None:
    history = History()
    assert history.saw(reply(5, skew_us=7), history.mark()) == Finding()
    assert history.saw(reply(5, skew_us=7), history.mark()) == Finding()
    assert history.saw(reply(9, skew_us=7), history.mark()) == Finding()


def test_a_reply_that_was_overtaken_is_no_finding() -> None:
    history = History()
    history.saw(reply(5), history.mark())
    before = history.mark()
    history.saw(reply(9), before)

    assert history.saw(reply(8), before) == Finding()


def test_a_number_below_one_seen_before_the_request_means_lost_writes() -> None:
    history = History()
    history.saw(reply(9), history.mark())

    assert history.saw(reply(8), history.mark()) == Finding(lost_writes=True)
    assert history.saw(reply(8), history.mark()) == Finding()


def test_another_epoch_means_lost_writes_once_for_all_requests_under_way() -> None:
    history = History()
    history.saw(reply(9), history.mark())
    first, second, late = history.mark(), history.mark(), history.mark()

    assert history.saw(reply(1, epoch="b"), first) == Finding(lost_writes=True)
    assert history.saw(reply(2, epoch="b"), second) == Finding()
    assert history.saw(reply(10, epoch="a"), late) == Finding()
    assert history.epoch == "b"


def test_a_step_of_the_clock_is_told_by_its_size_once() -> None:
    history = History()
    history.saw(reply(1, skew_us=10), history.mark())

    assert history.saw(reply(2, skew_us=25), history.mark()) == Finding(step_us=15)
    assert history.saw(reply(3, skew_us=25), history.mark()) == Finding()
