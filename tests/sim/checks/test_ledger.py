"""The book complains of each answer that breaks a rule, and of no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.outcomes import CancelOutcome, ChangeOutcome, ConfirmOutcome, ExtendOutcome, ReleaseOutcome
from dtimer.protocol.values import (
    After,
    Applied,
    Claimed,
    Delivery,
    EndedEvent,
    EndReason,
    EventData,
    Extension,
    IfExists,
    LetterName,
    Member,
    NewEvent,
    Receipt,
    Release,
)
from dtimer.semantics import Machine
from dtimer.sim.checks.ledger import Ledger

ME = Member("n1", "0001", 10_000_000)
START_US = 1_000_000_000
SECOND = 1_000_000
A = EventData(id="a", payload=b"1", max_retries=1, dead_letter=True)
ONCE = EventData(id="once", payload=b"2")

Lie = Callable[[Any], Any]


class Book:
    """A sound machine whose answers reach the book, changed or not."""

    def __init__(self) -> None:
        self.now_us = 0
        self.complaints: list[str] = []
        self.machine = Machine("epoch")
        self.ledger = Ledger(lambda: self.now_us, lambda rules, *_: self.complaints.append(rules))
        self.ask(op.Join(ME))

    def ask(self, operation: Operation[Any], *, after_s: float = 0, lie: Lie | None = None) -> Any:
        """What the machine answers; the book is told the lie instead, if there is one."""
        self.now_us += round(after_s * SECOND)
        at_us = max(START_US + self.now_us, self.machine.last_us)
        applied: Applied[Any] = self.machine.apply(operation, at_us=at_us, reach=lambda _: True)
        told = applied if lie is None else lie(applied)
        self.ledger.on_applied("n1", 1, "dt", operation, told)
        return applied.value

    def post(self, event: EventData = A, delay_s: float = 1, lie: Lie | None = None) -> None:
        self.ask(op.Post((NewEvent(event, After(round(delay_s * SECOND))),)), lie=lie)

    def posted(self) -> Book:
        self.post()
        return self

    def claim(self, *, after_s: float = 2, room: int = 5, lie: Lie | None = None) -> Claimed:
        claim = op.Claim(member=ME, room=room, confirm_timeout_us=10 * SECOND, nonce=f"c{self.now_us}")
        claimed: Claimed = self.ask(claim, after_s=after_s, lie=lie)
        return claimed

    def take(self) -> Receipt:
        """Post, claim, and give the receipt."""
        self.post()
        return self.claim().deliveries[0].receipt


def value(change: Callable[[Any], Any]) -> Lie:
    return lambda applied: evolve(applied, value=change(applied.value))


def always(answer: Any) -> Lie:
    return value(lambda _: answer)


def delivery(**changes: Any) -> Lie:
    """The first delivery of a claim is another."""

    def change(claimed: Claimed) -> Claimed:
        first, *others = claimed.deliveries
        return evolve(claimed, deliveries=(evolve(first, **changes), *others))

    return value(change)


def shifted(name: str, by: int) -> Lie:
    def change(claimed: Claimed) -> Claimed:
        first: Delivery = claimed.deliveries[0]
        return evolve(claimed, deliveries=(evolve(first, **{name: getattr(first, name) + by}),))

    return value(change)


def too_early(book: Book) -> None:
    book.post(delay_s=60)
    early = Delivery(
        event=A, receipt=Receipt("a", 1, "c"), due_us=START_US, at_us=START_US + 5, num_retries=0, deadline_us=5
    )
    book.claim(lie=value(lambda claimed: evolve(claimed, deliveries=(early,))))


def number_is_skipped(book: Book) -> None:
    book.post()
    book.claim(lie=delivery(receipt=Receipt("a", 2, "c")))


def given_twice(book: Book) -> None:
    """An event that is at most once comes again."""
    book.post(ONCE)
    twice = book.claim().deliveries
    book.claim(lie=value(lambda claimed: evolve(claimed, deliveries=twice)))


def too_many_tries(book: Book) -> None:
    """As if the first delivery had not been counted, the third is given out."""
    for _ in range(2):
        book.take() if not book.ledger.live else book.claim(after_s=11)
    again = book.ledger.live["a"]
    third = Delivery(
        event=A, receipt=Receipt("a", 3, "c"), due_us=again.due_us, at_us=again.due_us + 1, num_retries=2,
        deadline_us=again.due_us + 1 + 10 * SECOND,
    )  # fmt: skip
    book.claim(after_s=11, lie=value(lambda claimed: evolve(claimed, deliveries=(third,), ended=())))


def out_of_order(book: Book) -> None:
    book.post()
    book.post(ONCE, delay_s=1.5)
    book.claim(lie=value(lambda claimed: evolve(claimed, deliveries=claimed.deliveries[::-1])))


def more_than_room(book: Book) -> None:
    book.post()
    book.post(ONCE)
    both = op.Claim(member=ME, room=5, confirm_timeout_us=10 * SECOND, nonce="c")
    asked = evolve(both, room=1)
    book.now_us += 2 * SECOND
    applied = book.machine.apply(both, at_us=START_US + book.now_us, reach=lambda _: True)
    book.ledger.on_applied("n1", 1, "dt", asked, applied)


def expired_too_soon(book: Book) -> None:
    data = evolve(A, expires_after_us=60 * SECOND)
    book.post(data)
    told = EndedEvent(event=data, reason=EndReason.EXPIRED, delivery_number=0, num_counted=0, dead_letter=True)
    book.claim(lie=value(lambda claimed: evolve(claimed, deliveries=(), ended=(told,))))


def delivered_after_expiry(book: Book) -> None:
    data = evolve(A, expires_after_us=1)
    book.post(data)
    at_us = START_US + book.now_us + 2 * SECOND
    due_us = book.ledger.live["a"].due_us
    late = Delivery(
        event=data, receipt=Receipt("a", 1, "c"), due_us=due_us, at_us=at_us, num_retries=0,
        deadline_us=at_us + 10 * SECOND,
    )  # fmt: skip
    book.claim(lie=value(lambda claimed: evolve(claimed, deliveries=(late,), ended=())))


def exhausted_too_soon(book: Book) -> None:
    book.take()
    told = EndedEvent(event=A, reason=EndReason.EXHAUSTED, delivery_number=1, num_counted=1, dead_letter=True)
    book.claim(after_s=11, lie=value(lambda claimed: evolve(claimed, deliveries=(), ended=(told,))))


def old_receipt(book: Book) -> None:
    old = book.take()
    book.claim(after_s=11)
    book.ask(op.Confirm((old,)), lie=always((ConfirmOutcome.CONFIRMED,)))


def confirm_refused(book: Book) -> None:
    book.ask(op.Confirm((book.take(),)), lie=always((ConfirmOutcome.STALE,)))


def cancel_missed(book: Book) -> None:
    book.post()
    book.ask(op.Cancel(("a",)), lie=always((CancelOutcome.NOT_FOUND,)))


def cancelled_yet_given(book: Book) -> None:
    book.post()
    claimed = Book()
    claimed.post()
    given = claimed.claim().deliveries
    book.ask(op.Cancel(("a",)))
    book.claim(lie=value(lambda nothing: evolve(nothing, deliveries=given)))


def release_not_counted(book: Book) -> None:
    book.take()
    last = book.claim(after_s=11).deliveries[0].receipt
    book.ask(op.GiveBack(receipt=last, how=Release.COUNTED, delay_us=0), lie=always(ReleaseOutcome.RELEASED))


def a_gap(book: Book) -> None:
    book.post(lie=lambda applied: evolve(applied, seq=applied.seq + 1))


def another_epoch(book: Book) -> None:
    book.post(lie=lambda applied: evolve(applied, epoch="other"))


def time_goes_back(book: Book) -> None:
    book.post()
    book.post(ONCE, lie=lambda applied: evolve(applied, at_us=applied.at_us - 10))


def peek_sees_nothing(book: Book) -> None:
    book.post()
    book.ask(op.Peek("a"), lie=always(None))


def lost_without_a_word(book: Book) -> None:
    book.post()
    book.ledger.compare(0)


WRONG: dict[str, tuple[str, Callable[[Book], object]]] = {
    "given out early": ("T3 D1", too_early),
    "a delivery number is skipped": ("D2", number_is_skipped),
    "retries are miscounted": ("D2", lambda book: book.posted().claim(lie=delivery(num_retries=1))),
    "more tries than were asked for": ("D2", too_many_tries),
    "another payload": ("P4", lambda book: book.posted().claim(lie=delivery(event=evolve(A, payload=b"!")))),
    "another deadline": ("D4", lambda book: book.posted().claim(lie=shifted("deadline_us", 1))),
    "another due time": ("D3", lambda book: book.posted().claim(lie=shifted("due_us", 5_000))),
    "at most once comes twice": ("E1 E2", given_twice),
    "out of order": ("T4", out_of_order),
    "more than there is room": ("N2", more_than_room),
    "told as expired too soon": ("P7", expired_too_soon),
    "delivered after it expired": ("P7", delivered_after_expiry),
    "told as exhausted too soon": ("E5", exhausted_too_soon),
    "an old receipt confirms": ("E1", old_receipt),
    "the newest receipt does not": ("E1", confirm_refused),
    "a cancel finds nothing": ("E2", cancel_missed),
    "what was cancelled is given": ("E1 E2", cancelled_yet_given),
    "an unconfirmed event is moved": (
        "E3",
        lambda book: (book.take(), book.ask(op.ChangeDelay("a", 5), lie=always(ChangeOutcome.MOVED)))[1],
    ),
    "an exhausting release releases": ("E4", release_not_counted),
    "an extension finds nothing": (
        "E4",
        lambda book: book.ask(op.Extend((Extension(book.take(), 5),)), lie=always((ExtendOutcome.NOT_FOUND,))),
    ),
    "a number is left out": ("O1", a_gap),
    "another epoch": ("O1", another_epoch),
    "time goes back": ("T2", time_goes_back),
    "a peek sees nothing": ("R1", peek_sees_nothing),
    "an event is gone": ("S6", lost_without_a_word),
}


@pytest.mark.parametrize(("rules", "do"), WRONG.values(), ids=WRONG)
def test_it_complains(rules: str, do: Callable[[Book], object]) -> None:
    book = Book()

    do(book)

    assert rules in book.complaints


def test_it_is_silent_when_all_is_well() -> None:
    book = Book()
    receipt = book.take()
    book.ask(op.Extend((Extension(receipt, 30 * SECOND),)))
    book.ask(op.Peek("a"))
    book.ask(op.GiveBack(receipt=receipt, how=Release.COUNTED, delay_us=5 * SECOND), after_s=1)
    book.ask(op.ChangeDelay("a", 2 * SECOND))
    (last,) = book.claim(after_s=3).deliveries
    book.ask(op.Confirm((receipt, last.receipt)))
    book.ask(op.Confirm((last.receipt,)))
    book.take()
    book.claim(after_s=11)
    book.claim(after_s=11)
    book.ask(op.Resend(LetterName("a"), After(0), IfExists.REPLACE))
    book.post(ONCE, delay_s=0)
    book.claim()
    book.ask(op.Cancel(("a", "once")))

    book.ledger.compare(0)
    assert book.complaints == []


def test_what_the_store_has_lost_is_lost_from_the_book() -> None:
    """Then the same event can be given out once more, and a later post never was."""
    book = Book()
    before = book.machine.copy()
    book.post(delay_s=1)
    after_post, post_us = book.machine.copy(), book.now_us
    book.claim()
    book.now_us += 1
    book.post(ONCE)

    book.machine = after_post
    book.ledger.on_rolled_back(post_us)
    assert list(book.ledger.live) == ["a"]
    book.claim()

    book.machine = before
    book.ledger.on_rolled_back(None)
    book.ledger.compare(0)
    book.post()
    book.claim()
    assert book.complaints == []


def test_a_store_that_goes_back_without_having_lost_anything_is_wrong() -> None:
    book = Book()
    before = book.machine.copy()
    book.post()
    book.machine = before
    book.post()

    assert "O1" in book.complaints
