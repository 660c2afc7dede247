"""When a node claims."""

from __future__ import annotations

import pytest

from dtimer.limits import BACKOFF_MAX_US, BACKOFF_MIN_US, POLL_MAX_US, PULSE_JITTER_US, PULSE_SILENCE_US
from dtimer.node.planner import Backoff, ClaimNow, Planner, WaitUntil
from dtimer.protocol.values import Pace

MS = 1_000


def no_jitter(below: int) -> int:
    return 0


@pytest.fixture
def planner() -> Planner:
    """Joined and subscribed at 0, its first claim answered at 0: nothing is due."""
    planner = Planner(no_jitter, Pace())
    planner.joined(0)
    planner.subscribed(0)
    answer(planner, 0)
    return planner


def answer(
    planner: Planner, now_us: int, *, seq: int = 1, left: int = 8, more: bool = False, come_at_us: int | None = None
) -> None:
    planner.claiming(now_us, ClaimNow())
    planner.claimed(now_us, seq=seq, room_left=left, more=more, come_at_us=come_at_us)


def test_a_node_that_joined_claims_at_once_even_without_room() -> None:
    planner = Planner(no_jitter, Pace())
    planner.joined(0)

    assert planner.next_claim(0, 0) == ClaimNow()


def test_a_node_comes_when_it_was_told_to_by_its_reply(planner: Planner) -> None:
    answer(planner, 0, come_at_us=100 * MS)

    assert planner.next_claim(99 * MS, 8) == WaitUntil(100 * MS)
    assert planner.next_claim(100 * MS, 8) == ClaimNow()


def test_a_node_comes_when_it_was_told_to_by_a_wakeup(planner: Planner) -> None:
    planner.told(50 * MS, 2)

    assert planner.next_claim(0, 8) == WaitUntil(50 * MS)


def test_of_two_times_the_earlier_one_counts(planner: Planner) -> None:
    """Too early finds nothing; too late is late."""
    answer(planner, 0, come_at_us=100 * MS)
    planner.told(300 * MS, 2)
    planner.told(200 * MS, 3)

    assert planner.next_claim(0, 8) == WaitUntil(100 * MS)
    answer(planner, 100 * MS, seq=2)
    assert planner.next_claim(100 * MS, 8) == WaitUntil(200 * MS)


@pytest.mark.parametrize("times", [(300, 200), (200, 300)])
def test_of_two_wakeups_the_earlier_one_counts_whichever_came_last(planner: Planner, times: tuple[int, int]) -> None:
    first, second = times
    planner.told(first * MS, 2)
    planner.told(second * MS, 3)

    assert planner.next_claim(0, 8) == WaitUntil(200 * MS)


def test_a_wakeup_that_is_older_than_the_last_reply_is_ignored(planner: Planner) -> None:
    answer(planner, 0, seq=5)

    planner.told(1, 5)

    assert planner.next_claim(10, 8) == WaitUntil(PULSE_SILENCE_US)


def test_a_wakeup_that_overtakes_the_reply_before_it_is_kept(planner: Planner) -> None:
    planner.claiming(0, ClaimNow())
    planner.told(70 * MS, 9)
    planner.claimed(0, seq=8, room_left=8, more=False, come_at_us=None)

    assert planner.next_claim(0, 8) == WaitUntil(70 * MS)


def test_a_full_claim_is_followed_by_another_when_room_comes_back(planner: Planner) -> None:
    """The store has parked the node, so nobody else would wake it (rule D8)."""
    answer(planner, 0, left=0)

    assert isinstance(planner.next_claim(1, 0), WaitUntil)
    assert planner.next_claim(2, 1) == ClaimNow()


def test_room_that_comes_back_to_a_node_with_room_means_nothing(planner: Planner) -> None:
    answer(planner, 0, left=1)

    assert isinstance(planner.next_claim(1, 8), WaitUntil)


def test_more_is_fetched_at_once_while_there_is_room(planner: Planner) -> None:
    answer(planner, 0, left=1, more=True)

    assert planner.next_claim(0, 1) == ClaimNow()


def test_more_waits_for_room(planner: Planner) -> None:
    answer(planner, 0, left=0, more=True)

    assert isinstance(planner.next_claim(0, 0), WaitUntil)


def test_silence_makes_a_fallback_claim_with_a_pulse(planner: Planner) -> None:
    assert planner.next_claim(PULSE_SILENCE_US - 1, 8) == WaitUntil(PULSE_SILENCE_US)
    assert planner.next_claim(PULSE_SILENCE_US, 8) == ClaimNow(pulse=True)


def test_a_node_without_room_leaves_looking_to_others(planner: Planner) -> None:
    """It could take nothing, and its pulse would silence those who could (D7)."""
    assert planner.next_claim(2 * PULSE_SILENCE_US, 0) == WaitUntil(POLL_MAX_US)
    assert planner.next_claim(2 * PULSE_SILENCE_US, 1) == ClaimNow(pulse=True)


def test_the_silence_is_longer_by_what_the_dice_say() -> None:
    planner = Planner(lambda below: below - 1, Pace())
    planner.joined(0)
    answer(planner, 0)

    assert planner.next_claim(0, 8) == WaitUntil(PULSE_SILENCE_US + PULSE_JITTER_US - 1)


def test_anybodys_pulse_ends_the_silence(planner: Planner) -> None:
    planner.heard_pulse(500 * MS)

    assert planner.next_claim(PULSE_SILENCE_US, 8) == WaitUntil(500 * MS + PULSE_SILENCE_US)


def test_a_fallback_whose_pulse_was_not_heard_means_a_deaf_node(planner: Planner) -> None:
    planner.claiming(PULSE_SILENCE_US, ClaimNow(pulse=True))
    planner.claimed(PULSE_SILENCE_US, seq=2, room_left=8, more=False, come_at_us=None)

    assert planner.next_claim(2 * PULSE_SILENCE_US, 8) == ClaimNow(pulse=True, deaf=True)


def test_a_slow_answer_leaves_the_pulse_time_to_be_heard(planner: Planner) -> None:
    """It may come a moment after the answer, however late that is (rule W1)."""
    planner.claiming(PULSE_SILENCE_US, ClaimNow(pulse=True))
    planner.claimed(3 * PULSE_SILENCE_US, seq=2, room_left=8, more=False, come_at_us=None)

    assert planner.next_claim(3 * PULSE_SILENCE_US, 8) == WaitUntil(4 * PULSE_SILENCE_US)


def test_a_fallback_that_failed_proves_nothing_about_the_ears(planner: Planner) -> None:
    """Its pulse was perhaps never sent, so a subscription that stands would be dropped for nothing (rule W1)."""
    planner.claiming(PULSE_SILENCE_US, ClaimNow(pulse=True))
    planner.failed(PULSE_SILENCE_US)

    assert planner.next_claim(3 * PULSE_SILENCE_US, 8) == ClaimNow(pulse=True)


def test_a_fallback_whose_pulse_was_heard_does_not(planner: Planner) -> None:
    planner.claiming(PULSE_SILENCE_US, ClaimNow(pulse=True))
    planner.claimed(PULSE_SILENCE_US, seq=2, room_left=8, more=False, come_at_us=None)
    planner.heard_pulse(PULSE_SILENCE_US)

    assert planner.next_claim(2 * PULSE_SILENCE_US, 8) == ClaimNow(pulse=True)


def test_without_a_subscription_no_pulse_is_expected(planner: Planner) -> None:
    planner.unsubscribed()
    planner.claiming(PULSE_SILENCE_US, ClaimNow(pulse=True))
    planner.claimed(PULSE_SILENCE_US, seq=2, room_left=8, more=False, come_at_us=None)

    assert planner.next_claim(2 * PULSE_SILENCE_US, 8) == ClaimNow(pulse=True)


def test_a_new_subscription_is_followed_by_a_claim(planner: Planner) -> None:
    """What was said while it was deaf is lost (rule N4)."""
    planner.unsubscribed()
    planner.subscribed(10)

    assert planner.next_claim(10, 0) == ClaimNow()


def test_a_subscription_during_a_claim_is_followed_by_another(planner: Planner) -> None:
    planner.claiming(0, ClaimNow())
    planner.subscribed(0)
    planner.claimed(0, seq=2, room_left=8, more=False, come_at_us=None)

    assert planner.next_claim(0, 8) == ClaimNow()


def test_a_node_gives_a_sign_of_life_however_many_pulses_it_hears(planner: Planner) -> None:
    for now_us in range(0, POLL_MAX_US, 500 * MS):
        planner.heard_pulse(now_us)
        assert isinstance(planner.next_claim(now_us, 0), WaitUntil)
    planner.heard_pulse(POLL_MAX_US)

    assert planner.next_claim(POLL_MAX_US, 0) == ClaimNow()


def test_after_a_failure_it_pauses_and_claims_at_once(planner: Planner) -> None:
    planner.claiming(0, ClaimNow())
    planner.failed(0)

    assert not planner.may_call(BACKOFF_MIN_US - 1)
    assert planner.next_claim(0, 8) == WaitUntil(BACKOFF_MIN_US)
    assert planner.next_claim(BACKOFF_MIN_US, 0) == ClaimNow()


def test_a_pulse_puts_off_what_waits_for_silence_and_nothing_else(planner: Planner) -> None:
    planner.heard_pulse(500 * MS)
    assert planner.due_us() == 500 * MS + PULSE_SILENCE_US
    assert planner.due_us(with_room=False) == POLL_MAX_US

    planner.told(700 * MS, 2)
    planner.heard_pulse(600 * MS)
    assert planner.due_us() == 700 * MS

    planner.failed(600 * MS)
    planner.heard_pulse(601 * MS)
    assert planner.due_us() == 600 * MS + BACKOFF_MIN_US


def test_nothing_breaks_the_pause_after_a_failure(planner: Planner) -> None:
    planner.failed(0)
    planner.told(0, 9)
    planner.subscribed(0)

    assert planner.next_claim(1, 8) == WaitUntil(BACKOFF_MIN_US)


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


def test_joining_again_voids_what_was_known(planner: Planner) -> None:
    """The numbers of another history mean nothing: a wake-up must not be taken for an old one."""
    answer(planner, 0, seq=1000, come_at_us=5)
    planner.joined(10)
    answer(planner, 10, seq=1)

    planner.told(50 * MS, 2)

    assert planner.next_claim(10, 8) == WaitUntil(50 * MS)


def test_a_backend_may_set_a_slower_pace() -> None:
    planner = Planner(no_jitter, Pace(pulse_silence_us=50, pulse_jitter_us=1, poll_us=30))
    planner.joined(0)
    answer(planner, 0)

    assert planner.next_claim(0, 8) == WaitUntil(30)
    assert planner.next_claim(50, 8) == ClaimNow(pulse=True)
