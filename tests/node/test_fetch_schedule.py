"""When a node claims."""

from __future__ import annotations

import pytest

from dtimer.limits import BACKOFF_MAX_US, BACKOFF_MIN_US, POLL_MAX_US, PULSE_JITTER_US, PULSE_SILENCE_US
from dtimer.node.fetch_schedule import Backoff, ClaimNow, FetchSchedule, WaitUntil
from dtimer.protocol.values import Pace

MS = 1_000


def no_jitter(below: int) -> int:
    return 0


@pytest.fixture
def schedule() -> FetchSchedule:
    """Joined and subscribed at 0, its first claim answered at 0: nothing is due."""
    schedule = FetchSchedule(no_jitter, Pace)
    schedule.joined(0)
    schedule.subscribed(0)
    answer(schedule, 0)
    return schedule


def answer(
    schedule: FetchSchedule,
    now_us: int,
    *,
    seq: int = 1,
    left: int = 8,
    more: bool = False,
    come_at_us: int | None = None,
) -> None:
    schedule.claiming(now_us, ClaimNow())
    schedule.claimed(now_us, seq=seq, room_left=left, more=more, come_at_us=come_at_us)


def test_a_node_that_joined_claims_at_once_even_without_room() -> None:
    schedule = FetchSchedule(no_jitter, Pace)
    schedule.joined(0)

    assert schedule.next_claim(0, 0) == ClaimNow()


def test_a_node_comes_when_it_was_told_to_by_its_reply(schedule: FetchSchedule) -> None:
    answer(schedule, 0, come_at_us=100 * MS)

    assert schedule.next_claim(99 * MS, 8) == WaitUntil(100 * MS)
    assert schedule.next_claim(100 * MS, 8) == ClaimNow()


def test_a_node_comes_when_it_was_told_to_by_a_wakeup(schedule: FetchSchedule) -> None:
    schedule.notified(50 * MS, 2)

    assert schedule.next_claim(0, 8) == WaitUntil(50 * MS)


def test_of_two_times_the_earlier_one_counts(schedule: FetchSchedule) -> None:
    """Too early finds nothing; too late is late."""
    answer(schedule, 0, come_at_us=100 * MS)
    schedule.notified(300 * MS, 2)
    schedule.notified(200 * MS, 3)

    assert schedule.next_claim(0, 8) == WaitUntil(100 * MS)
    answer(schedule, 100 * MS, seq=2)
    assert schedule.next_claim(100 * MS, 8) == WaitUntil(200 * MS)


@pytest.mark.parametrize("times", [(300, 200), (200, 300)])
def test_of_two_wakeups_the_earlier_one_counts_whichever_came_last(
    schedule: FetchSchedule, times: tuple[int, int]
) -> None:
    first, second = times
    schedule.notified(first * MS, 2)
    schedule.notified(second * MS, 3)

    assert schedule.next_claim(0, 8) == WaitUntil(200 * MS)


def test_a_wakeup_that_is_older_than_the_last_reply_is_ignored(schedule: FetchSchedule) -> None:
    answer(schedule, 0, seq=5)

    schedule.notified(1, 5)

    assert schedule.next_claim(10, 8) == WaitUntil(PULSE_SILENCE_US)


def test_a_wakeup_that_overtakes_the_reply_before_it_is_kept(schedule: FetchSchedule) -> None:
    schedule.claiming(0, ClaimNow())
    schedule.notified(70 * MS, 9)
    schedule.claimed(0, seq=8, room_left=8, more=False, come_at_us=None)

    assert schedule.next_claim(0, 8) == WaitUntil(70 * MS)


def test_a_full_claim_is_followed_by_another_when_room_comes_back(schedule: FetchSchedule) -> None:
    """The store has parked the node, so nothing else would wake it (rule D8)."""
    answer(schedule, 0, left=0)

    assert isinstance(schedule.next_claim(1, 0), WaitUntil)
    assert schedule.next_claim(2, 1) == ClaimNow()


def test_room_that_comes_back_to_a_node_with_room_means_nothing(schedule: FetchSchedule) -> None:
    answer(schedule, 0, left=1)

    assert isinstance(schedule.next_claim(1, 8), WaitUntil)


def test_more_is_fetched_at_once_while_there_is_room(schedule: FetchSchedule) -> None:
    answer(schedule, 0, left=1, more=True)

    assert schedule.next_claim(0, 1) == ClaimNow()


def test_more_waits_for_room(schedule: FetchSchedule) -> None:
    answer(schedule, 0, left=0, more=True)

    assert isinstance(schedule.next_claim(0, 0), WaitUntil)


def test_silence_makes_a_fallback_claim_with_a_pulse(schedule: FetchSchedule) -> None:
    assert schedule.next_claim(PULSE_SILENCE_US - 1, 8) == WaitUntil(PULSE_SILENCE_US)
    assert schedule.next_claim(PULSE_SILENCE_US, 8) == ClaimNow(pulse=True)


def test_a_node_without_room_leaves_looking_to_others(schedule: FetchSchedule) -> None:
    """It could take nothing, and its pulse would silence those who could (D7)."""
    assert schedule.next_claim(2 * PULSE_SILENCE_US, 0) == WaitUntil(POLL_MAX_US)
    assert schedule.next_claim(2 * PULSE_SILENCE_US, 1) == ClaimNow(pulse=True)


def test_the_silence_is_longer_by_what_the_dice_say() -> None:
    schedule = FetchSchedule(lambda below: below - 1, Pace)
    schedule.joined(0)
    answer(schedule, 0)

    assert schedule.next_claim(0, 8) == WaitUntil(PULSE_SILENCE_US + PULSE_JITTER_US - 1)


def test_anybodys_pulse_ends_the_silence(schedule: FetchSchedule) -> None:
    schedule.received_pulse(500 * MS)

    assert schedule.next_claim(PULSE_SILENCE_US, 8) == WaitUntil(500 * MS + PULSE_SILENCE_US)


def test_a_fallback_whose_pulse_was_not_heard_means_a_deaf_node(schedule: FetchSchedule) -> None:
    schedule.claiming(PULSE_SILENCE_US, ClaimNow(pulse=True))
    schedule.claimed(PULSE_SILENCE_US, seq=2, room_left=8, more=False, come_at_us=None)

    assert schedule.next_claim(2 * PULSE_SILENCE_US, 8) == ClaimNow(pulse=True, subscription_lost=True)


def test_a_slow_answer_leaves_the_pulse_time_to_be_heard(schedule: FetchSchedule) -> None:
    """It may come a moment after the answer, however late that is (rule W1)."""
    schedule.claiming(PULSE_SILENCE_US, ClaimNow(pulse=True))
    schedule.claimed(3 * PULSE_SILENCE_US, seq=2, room_left=8, more=False, come_at_us=None)

    assert schedule.next_claim(3 * PULSE_SILENCE_US, 8) == WaitUntil(4 * PULSE_SILENCE_US)


def test_a_fallback_that_failed_proves_nothing_about_the_ears(schedule: FetchSchedule) -> None:
    """Its pulse was perhaps never sent, so a subscription that stands would be dropped for nothing (rule W1)."""
    schedule.claiming(PULSE_SILENCE_US, ClaimNow(pulse=True))
    schedule.failed(PULSE_SILENCE_US)

    assert schedule.next_claim(3 * PULSE_SILENCE_US, 8) == ClaimNow(pulse=True)


def test_a_fallback_whose_pulse_was_heard_does_not(schedule: FetchSchedule) -> None:
    schedule.claiming(PULSE_SILENCE_US, ClaimNow(pulse=True))
    schedule.claimed(PULSE_SILENCE_US, seq=2, room_left=8, more=False, come_at_us=None)
    schedule.received_pulse(PULSE_SILENCE_US)

    assert schedule.next_claim(2 * PULSE_SILENCE_US, 8) == ClaimNow(pulse=True)


def test_without_a_subscription_no_pulse_is_expected(schedule: FetchSchedule) -> None:
    schedule.unsubscribed()
    schedule.claiming(PULSE_SILENCE_US, ClaimNow(pulse=True))
    schedule.claimed(PULSE_SILENCE_US, seq=2, room_left=8, more=False, come_at_us=None)

    assert schedule.next_claim(2 * PULSE_SILENCE_US, 8) == ClaimNow(pulse=True)


def test_a_new_subscription_is_followed_by_a_claim(schedule: FetchSchedule) -> None:
    """What was said while it was deaf is lost (rule N4)."""
    schedule.unsubscribed()
    schedule.subscribed(10)

    assert schedule.next_claim(10, 0) == ClaimNow()


def test_a_subscription_during_a_claim_is_followed_by_another(schedule: FetchSchedule) -> None:
    schedule.claiming(0, ClaimNow())
    schedule.subscribed(0)
    schedule.claimed(0, seq=2, room_left=8, more=False, come_at_us=None)

    assert schedule.next_claim(0, 8) == ClaimNow()


def test_a_node_gives_a_sign_of_life_however_many_pulses_it_hears(schedule: FetchSchedule) -> None:
    for now_us in range(0, POLL_MAX_US, 500 * MS):
        schedule.received_pulse(now_us)
        assert isinstance(schedule.next_claim(now_us, 0), WaitUntil)
    schedule.received_pulse(POLL_MAX_US)

    assert schedule.next_claim(POLL_MAX_US, 0) == ClaimNow()


def test_after_a_failure_it_pauses_and_claims_at_once(schedule: FetchSchedule) -> None:
    schedule.claiming(0, ClaimNow())
    schedule.failed(0)

    assert not schedule.may_call(BACKOFF_MIN_US - 1)
    assert schedule.next_claim(0, 8) == WaitUntil(BACKOFF_MIN_US)
    assert schedule.next_claim(BACKOFF_MIN_US, 0) == ClaimNow()


def test_a_pulse_puts_off_what_waits_for_silence_and_nothing_else(schedule: FetchSchedule) -> None:
    schedule.received_pulse(500 * MS)
    assert schedule.due_us() == 500 * MS + PULSE_SILENCE_US
    assert schedule.due_us(with_room=False) == POLL_MAX_US

    schedule.notified(700 * MS, 2)
    schedule.received_pulse(600 * MS)
    assert schedule.due_us() == 700 * MS

    schedule.failed(600 * MS)
    schedule.received_pulse(601 * MS)
    assert schedule.due_us() == 600 * MS + BACKOFF_MIN_US


def test_nothing_breaks_the_pause_after_a_failure(schedule: FetchSchedule) -> None:
    schedule.failed(0)
    schedule.notified(0, 9)
    schedule.subscribed(0)

    assert schedule.next_claim(1, 8) == WaitUntil(BACKOFF_MIN_US)


def test_pauses_double_up_to_a_cap_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(no_jitter)

    pauses = [backoff.next_us() for _ in range(1000)]

    assert pauses[:4] == [BACKOFF_MIN_US << n for n in range(4)]
    assert max(pauses) == pauses[-1] == BACKOFF_MAX_US
    backoff.reset()
    assert backoff.next_us() == BACKOFF_MIN_US


def test_the_dice_shorten_a_pause_by_less_than_half() -> None:
    backoff = Backoff(lambda below: below - 1)

    assert backoff.next_us() == BACKOFF_MIN_US // 2 + 1


def test_joining_again_voids_what_was_known(schedule: FetchSchedule) -> None:
    """The numbers of another history mean nothing: a wake-up must not be taken for an old one."""
    answer(schedule, 0, seq=1000, come_at_us=5)
    schedule.joined(10)
    answer(schedule, 10, seq=1)

    schedule.notified(50 * MS, 2)

    assert schedule.next_claim(10, 8) == WaitUntil(50 * MS)


def test_a_backend_may_set_a_slower_pace() -> None:
    schedule = FetchSchedule(no_jitter, lambda: Pace(pulse_silence_us=50, pulse_jitter_us=1, poll_us=30))
    schedule.joined(0)
    answer(schedule, 0)

    assert schedule.next_claim(0, 8) == WaitUntil(30)
    assert schedule.next_claim(50, 8) == ClaimNow(pulse=True)
