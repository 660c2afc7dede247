"""What happens to an event: each rule of the machine, as a claim."""

from __future__ import annotations

import pytest

from dtimer.limits import (
    BATCH_MAX_BYTES,
    CLAIM_EXTRA_ENTRIES,
    DAY_US,
    DEAD_LETTER_AGE_US,
    DEAD_LETTERS_MAX,
    SECOND_US,
)
from dtimer.protocol import operations as op
from dtimer.protocol.outcomes import (
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    ClaimStatus,
    ConfirmOutcome,
    DiscardOutcome,
    ExtendOutcome,
    PostOutcome,
    ReleaseOutcome,
    ResendOutcome,
)
from dtimer.protocol.values import (
    After,
    EndReason,
    EventState,
    Extension,
    Failure,
    IfExists,
    LetterName,
    Member,
    Receipt,
    Release,
    RetryPolicy,
    Window,
)
from dtimer.semantics import Machine
from support.store import START_US, Store, ids


def joined(*nodes: str) -> Store:
    store = Store()
    store.join(*(nodes or ("a",)))
    return store


class TestPosting:
    def test_needs_no_node(self) -> None:
        """P1."""
        assert Store().post() is PostOutcome.CREATED

    def test_the_last_of_two_posts_under_one_id_wins(self) -> None:
        """P3: exactly one event has an id."""
        store = joined()
        store.post("e", 5, payload=b"old")

        outcome = store.post("e", 10, payload=b"new")
        store.wait(100)

        assert outcome is PostOutcome.REPLACED
        assert store.take().event.payload == b"new"
        assert ids(store.claim()) == []

    def test_keep_and_error_leave_the_live_event_alone(self) -> None:
        """P3."""
        store = joined()
        store.post("e", 5, payload=b"old")

        assert store.post("e", 0, payload=b"new", if_exists=IfExists.KEEP) is PostOutcome.KEPT
        assert store.post("e", 0, payload=b"new", if_exists=IfExists.ERROR) is PostOutcome.CONFLICT

        store.wait(100)
        assert store.take().event.payload == b"old"

    def test_replacing_an_unconfirmed_event_voids_its_receipt(self) -> None:
        """P3: else the confirm of the old work would delete the new event."""
        store = joined()
        store.post(max_retries=1)
        old = store.take()
        store.post(max_retries=1, payload=b"new")

        assert store.do(op.Confirm((old.receipt,))) == (ConfirmOutcome.STALE,)

        assert store.take().event.payload == b"new"

    def test_a_dead_letter_is_not_live(self) -> None:
        """P3."""
        store = joined()
        store.post(dead_letter=True)
        store.do(op.Bury(store.take().receipt, ""))

        assert store.post(if_exists=IfExists.ERROR) is PostOutcome.CREATED


class TestTime:
    def test_nothing_is_given_out_before_it_is_due(self) -> None:
        """T3, to the microsecond."""
        store = joined()
        store.post("e", 1000)
        store.wait(999)
        assert ids(store.claim()) == []

        store.wait(1)
        assert ids(store.claim()) == ["e"]

    def test_equal_delays_fire_in_the_order_posted(self) -> None:
        """T4, also when the ids would sort otherwise."""
        store = joined()
        for id in ("z", "y", "x"):
            store.post(id, 7)

        store.wait(100)

        assert ids(store.claim()) == ["z", "y", "x"]

    def test_a_batch_of_retries_comes_back_in_order(self) -> None:
        """T4."""
        store = joined()
        for id in ("z", "y", "x"):
            store.post(id, max_retries=1)
        store.claim(timeout_us=10)

        store.wait(100)

        assert ids(store.claim()) == ["z", "y", "x"]

    def test_ties_go_by_the_bytes_of_the_id(self) -> None:
        """T4: only absolute times can tie."""
        store = joined()
        for id in ("\U0001f600", "ä", "b", "a"):
            store.post(id, at_us=START_US + 50)

        store.wait(100)

        assert ids(store.claim()) == ["a", "b", "ä", "\U0001f600"]

    def test_the_past_is_due_at_once(self) -> None:
        """T5, T6."""
        store = joined()
        store.post("d", -5_000_000)
        store.post("t", at_us=1)

        assert ids(store.claim()) == ["d", "t"]

    def test_a_machine_refuses_time_that_goes_back(self) -> None:
        """T2: whoever drives it must not."""
        machine = Machine("e")
        machine.apply(op.Discard(()), at_us=10, reach=lambda _: True)

        with pytest.raises(AssertionError, match="never goes back"):
            machine.apply(op.Discard(()), at_us=9, reach=lambda _: True)


class TestDelivery:
    def test_what_requires_no_confirm_is_given_out_once_and_gone(self) -> None:
        """The default, as the original's: at most once, nothing to confirm."""
        store = joined()
        store.post()

        delivery = store.take()

        assert delivery.deadline_us is None
        assert store.do(op.Confirm((delivery.receipt,))) == (ConfirmOutcome.NOT_FOUND,)
        assert store.do(op.Peek("e")) is None

    def test_an_unconfirmed_event_is_nobody_elses_before_its_deadline(self) -> None:
        """D1, D3."""
        store = joined("a", "b")
        store.post(max_retries=1)
        store.take("a", timeout_us=1000)
        store.wait(999)
        assert ids(store.claim("b")) == []

        store.wait(1)
        retried = store.take("b")

        assert (retried.num_retries, retried.receipt.delivery_number) == (1, 2)

    def test_there_are_no_more_deliveries_than_one_and_max_retries(self) -> None:
        """D2, E5."""
        store = joined()
        store.post(max_retries=2)
        retries = []
        for _ in range(3):
            retries.append(store.take(timeout_us=10).num_retries)
            store.wait(10)

        last = store.claim()

        assert retries == [0, 1, 2]
        assert [(ended.event.id, ended.reason, ended.dead_letter) for ended in last.ended] == [
            ("e", EndReason.EXHAUSTED, False)
        ]
        assert store.look().live == 0

    def test_the_events_own_timeout_goes_before_the_nodes(self) -> None:
        """D4."""
        store = joined()
        store.post("own", max_retries=1, confirm_timeout_us=5)
        store.post("node", max_retries=1)

        own, node = store.claim(timeout_us=70).deliveries

        assert own.deadline_us == own.at_us + 5
        assert node.deadline_us == node.at_us + 70

    def test_the_payload_comes_back_byte_for_byte_each_time(self) -> None:
        """P4."""
        store = joined()
        store.post(payload=b"[] \x00\xff\n9007199254740993", max_retries=1)
        first = store.take(timeout_us=1)
        store.wait(1)

        assert store.take().event == first.event

    def test_what_expired_is_reported_instead_of_delivered(self) -> None:
        """P7."""
        store = joined()
        store.post("fresh", 10, expires_after_us=5)
        store.post("late", 10, expires_after_us=5)
        store.wait(12)
        assert ids(store.claim(room=1)) == ["fresh"]
        store.wait(5)

        claimed = store.claim()

        assert [(ended.event.id, ended.reason) for ended in claimed.ended] == [("late", EndReason.EXPIRED)]
        assert ids(claimed) == []

    def test_a_retry_expires_by_the_first_due_time(self) -> None:
        """P7: a release or a deadline does not make old news young."""
        store = joined()
        store.post(max_retries=5, expires_after_us=100)
        delivery = store.take()
        store.release(delivery, Release.COUNTED, 200)
        store.wait(300)

        assert [ended.reason for ended in store.claim().ended] == [EndReason.EXPIRED]

    def test_changing_the_delay_moves_the_expiry_with_it(self) -> None:
        """P7, E3."""
        store = joined()
        store.post("e", 10, expires_after_us=100)
        store.do(op.ChangeDelay("e", 500))
        store.wait(550)

        assert ids(store.claim()) == ["e"]

    def test_a_claim_takes_no_more_than_its_room(self) -> None:
        """N2."""
        store = joined()
        for number in range(5):
            store.post(str(number))

        claimed = store.claim(room=3)

        assert ids(claimed) == ["0", "1", "2"]
        assert claimed.more

    def test_what_is_exhausted_uses_no_room_up_to_a_limit(self) -> None:
        """D5: clearing up is bounded, and does not stand in the way."""
        store = joined()
        for number in range(CLAIM_EXTRA_ENTRIES + 1):
            store.post(f"old{number}", max_retries=1)
        for _ in range(2):
            store.claim(room=CLAIM_EXTRA_ENTRIES + 1, timeout_us=1)
            store.wait(1000)
        store.post("new")

        first, second = store.claim(room=1), store.claim(room=1)

        assert (len(first.ended), ids(first), first.more) == (CLAIM_EXTRA_ENTRIES, [], True)
        assert (len(second.ended), ids(second), second.more) == (1, ["new"], False)

    def test_a_reply_has_a_limit_in_bytes_but_always_one_event(self) -> None:
        """D5."""
        store = joined()
        for id in ("huge", "large", "small"):
            store.post(id, payload=bytes(BATCH_MAX_BYTES + 1 if id == "huge" else BATCH_MAX_BYTES // 2))
        store.post("last", payload=b"x")

        assert ids(store.claim()) == ["huge"]
        assert ids(store.claim()) == ["large", "small"]
        assert ids(store.claim()) == ["last"]


class TestEnding:
    def test_a_confirm_ends_the_event(self) -> None:
        """E1."""
        store = joined()
        store.post(max_retries=3)
        delivery = store.take(timeout_us=10)

        assert store.do(op.Confirm((delivery.receipt, delivery.receipt))) == (
            ConfirmOutcome.CONFIRMED,
            ConfirmOutcome.NOT_FOUND,
        )

        store.wait(DAY_US)
        assert store.claim().deliveries == ()

    def test_a_late_confirm_counts_as_long_as_nobody_claimed_again(self) -> None:
        """E1, whatever other traffic there was."""
        store = joined()
        store.post(max_retries=1)
        delivery = store.take(timeout_us=10)
        store.wait(SECOND_US)
        store.post("other")
        store.do(op.Peek("e"))

        assert store.do(op.Confirm((delivery.receipt,))) == (ConfirmOutcome.CONFIRMED,)

    def test_an_old_receipt_changes_nothing(self) -> None:
        """E1: a slow handler's confirm must not kill the running retry."""
        store = joined()
        store.post(max_retries=2)
        old = store.take(timeout_us=10)
        store.wait(10)
        new = store.take(timeout_us=10)

        assert store.do(op.Confirm((old.receipt,))) == (ConfirmOutcome.STALE,)
        assert store.do(op.Extend((Extension(old.receipt, 10**9),))) == (ExtendOutcome.STALE,)
        assert store.release(old, Release.UNCOUNTED) is ReleaseOutcome.STALE
        assert store.do(op.Bury(old.receipt, "")) is BuryOutcome.STALE

        assert store.do(op.Confirm((new.receipt,))) == (ConfirmOutcome.CONFIRMED,)

    def test_a_forged_receipt_changes_nothing(self) -> None:
        """E1: the number alone is no proof."""
        store = joined()
        store.post(max_retries=2)
        store.take()

        assert store.do(op.Confirm((Receipt("e", 1, "guess"),))) == (ConfirmOutcome.STALE,)

    def test_confirming_the_newest_is_for_unconfirmed_events_only(self) -> None:
        """E1, the operator's form."""
        store = joined()
        store.post(max_retries=1)
        assert store.do(op.ConfirmNewest("e")) is ConfirmOutcome.NOT_FOUND
        store.take()

        assert store.do(op.ConfirmNewest("e")) is ConfirmOutcome.CONFIRMED
        assert store.do(op.ConfirmNewest("e")) is ConfirmOutcome.NOT_FOUND

    def test_cancel_tells_what_it_stopped(self) -> None:
        """E2."""
        store = joined()
        store.post("out", max_retries=1)
        store.take(timeout_us=10)
        store.post("waiting", 50)

        assert store.do(op.Cancel(("out", "waiting", "waiting", "none"))) == (
            CancelOutcome.STOPPED,
            CancelOutcome.CANCELLED,
            CancelOutcome.NOT_FOUND,
            CancelOutcome.NOT_FOUND,
        )

        store.wait(DAY_US)
        assert store.claim().deliveries == ()

    def test_change_delay_moves_what_is_scheduled(self) -> None:
        """E3."""
        store = joined()
        store.post("e", 500)

        assert store.do(op.ChangeDelay("e", 100)) is ChangeOutcome.MOVED

        store.wait(100)
        assert ids(store.claim()) == ["e"]

    def test_change_delay_creates_no_phantom_and_touches_no_delivery(self) -> None:
        """E3."""
        store = joined()
        assert store.do(op.ChangeDelay("none", 5)) is ChangeOutcome.NOT_FOUND
        assert store.look().live == 0
        store.post(max_retries=1)
        delivery = store.take(timeout_us=10)

        assert store.do(op.ChangeDelay("e", 5_000_000)) is ChangeOutcome.UNCONFIRMED

        shown = store.do(op.Peek("e"))
        assert shown is not None
        assert shown.next_us == delivery.deadline_us

    def test_a_release_gives_back_counted_or_not(self) -> None:
        """E4."""
        store = joined()
        store.post(max_retries=1)
        store.release(store.take(), Release.UNCOUNTED, 10)
        assert ids(store.claim()) == []
        store.wait(10)
        again = store.take()
        store.release(again, Release.COUNTED)
        counted = store.take()

        assert (again.num_retries, again.receipt.delivery_number) == (0, 2)
        assert (counted.num_retries, counted.receipt.delivery_number) == (1, 3)
        assert store.release(counted, Release.COUNTED) is ReleaseOutcome.EXHAUSTED
        assert store.look().live == 0

    def test_a_released_delivery_has_no_receipt_any_more(self) -> None:
        """E4, E1."""
        store = joined()
        store.post(max_retries=1)
        delivery = store.take()
        store.release(delivery, Release.UNCOUNTED, 10)

        assert store.do(op.Confirm((delivery.receipt,))) == (ConfirmOutcome.STALE,)

    def test_extend_moves_the_deadline(self) -> None:
        """E4, also past it."""
        store = joined()
        store.post(max_retries=1)
        delivery = store.take(timeout_us=10)
        store.wait(50)

        assert store.do(op.Extend((Extension(delivery.receipt, 100),))) == (ExtendOutcome.EXTENDED,)

        store.wait(99)
        assert ids(store.claim()) == []
        store.wait(1)
        assert ids(store.claim()) == ["e"]


class TestDeadLetters:
    def exhausted(self, store: Store, id: str = "e") -> None:
        store.post(id, dead_letter=True, payload=b"p")
        store.take(timeout_us=1)
        store.wait(1)
        store.claim()

    def test_what_was_to_be_kept_is_a_dead_letter_when_exhausted(self) -> None:
        """E5: one attempt even without retries, then kept."""
        store = joined()
        self.exhausted(store)

        (letter,) = store.do(op.ListDeadLetters(None, 10)).items

        assert letter.event is not None
        assert (letter.id, letter.event.payload, letter.reason, letter.num_counted) == (
            "e", b"p", EndReason.EXHAUSTED, 1
        )  # fmt: skip

    def test_what_was_refused_for_long_is_buried_at_the_next_refusal(self) -> None:
        """F4: until then other nodes may be on their way that run code which can read it."""
        store = joined()
        store.post(max_retries=1)
        error = Failure("ValueError", "not JSON")
        outcomes = []
        for _ in range(3):
            outcomes.append(store.release(store.take(), Release.REFUSED, failure=error, refused_for_us=SECOND_US))
            store.wait(SECOND_US // 2)

        (letter,) = store.do(op.ListDeadLetters(None, 10)).items

        assert outcomes == [ReleaseOutcome.RELEASED, ReleaseOutcome.RELEASED, ReleaseOutcome.BURIED]
        assert (letter.reason, letter.delivery_number, letter.num_counted) == (EndReason.REFUSED, 3, 0)
        assert letter.last_error is not None
        assert letter.last_error.failure == error

    def test_a_resent_letter_is_an_event_like_new(self) -> None:
        """E5."""
        store = joined()
        self.exhausted(store)

        assert store.do(op.Resend(LetterName("e"), After(5), IfExists.ERROR)) is ResendOutcome.CREATED

        store.wait(5)
        assert store.take().num_retries == 0
        assert store.do(op.Resend(LetterName("e"), After(5), IfExists.ERROR)) is ResendOutcome.NOT_FOUND

    def test_a_letter_stays_when_a_live_event_has_its_id(self) -> None:
        """E5, P3."""
        store = joined()
        self.exhausted(store)
        store.post("e", 50)

        assert store.do(op.Resend(LetterName("e"), After(5), IfExists.KEEP)) is ResendOutcome.KEPT
        assert store.do(op.Resend(LetterName("e"), After(5), IfExists.ERROR)) is ResendOutcome.CONFLICT
        assert store.look().dead_letters == 1
        assert store.do(op.Resend(LetterName("e"), After(5), IfExists.REPLACE)) is ResendOutcome.REPLACED
        assert store.look().dead_letters == 0

    def test_a_discarded_letter_is_gone(self) -> None:
        """E5."""
        store = joined()
        self.exhausted(store)

        assert store.do(op.Discard((LetterName("e"), LetterName("e")))) == (
            DiscardOutcome.DISCARDED,
            DiscardOutcome.NOT_FOUND,
        )

    def test_an_old_letter_does_not_exist(self) -> None:
        """E5: for no operation."""
        store = joined()
        self.exhausted(store)
        store.wait(DEAD_LETTER_AGE_US)

        assert store.do(op.ListDeadLetters(None, 10)).items == ()
        assert store.do(op.Resend(LetterName("e"), After(0), IfExists.REPLACE)) is ResendOutcome.NOT_FOUND
        assert store.do(op.Discard((LetterName("e"),))) == (DiscardOutcome.NOT_FOUND,)
        assert store.look().dead_letters == 0

    def test_the_oldest_letter_goes_when_there_are_too_many(self) -> None:
        """E5: counted, and never without bound."""
        store = joined()
        for number in range(DEAD_LETTERS_MAX + 1):
            store.post(str(number), dead_letter=True)
            store.do(op.Bury(store.take().receipt, ""))

        look = store.look()

        assert (look.dead_letters, look.dead_letters_dropped) == (DEAD_LETTERS_MAX, 1)
        assert store.do(op.ListDeadLetters(None, 1)).items[0].id == "1"

    def test_an_unreadable_record_is_set_aside_with_its_bytes(self) -> None:
        """F4: and its neighbours do not notice (F5)."""
        store = joined()
        store.machine.plant("bad", b"\x00what", START_US)
        store.post("good")

        claimed = store.claim()
        (letter,) = store.do(op.ListDeadLetters(None, 10)).items

        assert ids(claimed) == ["good"]
        assert [(bad.id, bad.raw) for bad in claimed.unreadable] == [("bad", b"\x00what")]
        assert (letter.event, letter.raw, letter.reason) == (None, b"\x00what", EndReason.UNREADABLE)
        assert store.do(op.Resend(LetterName("bad"), After(0), IfExists.REPLACE)) is ResendOutcome.UNREADABLE


class TestReading:
    def test_peek_shows_where_an_event_stands(self) -> None:
        """R1."""
        store = joined()
        store.post(max_retries=2)
        before = store.do(op.Peek("e"))
        delivery = store.take(timeout_us=50)
        after = store.do(op.Peek("e"))

        assert before is not None
        assert after is not None
        assert (before.state, before.num_retries, before.delivery_number) == (EventState.SCHEDULED, 0, 0)
        assert (after.state, after.num_retries, after.delivery_number) == (EventState.UNCONFIRMED, 0, 1)
        assert after.next_us == delivery.deadline_us
        assert store.do(op.Peek("none")) is None

    def test_upcoming_shows_windows_of_the_queue(self) -> None:
        """R2: the same windows as the original gives."""
        store = joined()
        store.post("over")
        store.wait(2_000_000)
        for number in (1, 2, 3):
            store.post(f"a{number}", number * 1_000_000 - number)

        def shown(offset_us: int | None = None, duration_us: int | None = None) -> list[str]:
            return [item.event.id for item in store.page(Window(offset_us, duration_us)).items]

        assert shown() == ["over", "a1", "a2", "a3"]
        assert shown(0) == ["a1", "a2", "a3"]
        assert shown(1_500_000) == ["a2", "a3"]
        assert shown(None, 1_500_000) == ["over", "a1"]
        assert shown(500_000, 1_000_000) == ["a1"]
        assert shown(500_000, 0) == []
        assert shown(None, 0) == ["over"]

    def test_pages_go_on_where_the_last_one_ended(self) -> None:
        """R2: also through a tie, and when the last entry is gone meanwhile."""
        store = joined()
        for id in "abcde":
            store.post(id, at_us=START_US + 50)
        first = store.page(limit=2)
        store.do(op.Cancel(("b",)))
        assert first.next is not None

        second = store.do(op.Upcoming(first.next, 2))
        assert second.next is not None
        third = store.do(op.Upcoming(second.next, 2))

        assert [[item.event.id for item in page.items] for page in (first, second, third)] == [
            ["a", "b"], ["c", "d"], ["e"]
        ]  # fmt: skip
        assert third.next is None

    def test_reads_show_the_number_and_everything_else_adds_one(self) -> None:
        """O1."""
        store = joined()
        before = store.reply(op.Peek("e")).seq

        assert store.reply(op.Upcoming(Window(), 1)).seq == before
        assert store.reply(op.Cancel(("none",))).seq == before + 1


def test_a_claim_of_a_stranger_takes_nothing_but_confirms_and_extends() -> None:
    """N1, E1, E4."""
    store = joined("a")
    store.post("slow", max_retries=1)
    slow = store.take("a")
    store.post(max_retries=1)
    delivery = store.take("a")
    store.post("new")
    claim = op.Claim(
        member=Member("stranger", "1"),
        room=8,
        confirm_timeout_us=1,
        nonce="n",
        confirming=(delivery.receipt,),
        extending=(Extension(slow.receipt, 10**9), Extension(delivery.receipt, 10**9)),
    )

    claimed = store.do(claim)

    assert (claimed.status, claimed.deliveries) == (ClaimStatus.NOT_JOINED, ())
    assert claimed.confirmed == (ConfirmOutcome.CONFIRMED,)
    assert claimed.extended == (ExtendOutcome.EXTENDED, ExtendOutcome.NOT_FOUND)


def test_a_retry_policy_grows_up_to_its_cap() -> None:
    """D3."""
    policy = RetryPolicy(100, 2.0, 500)

    assert [policy.delay_after(number) for number in range(5)] == [100, 200, 400, 500, 500]
    assert RetryPolicy(100).delay_after(1_000_000) == 100
