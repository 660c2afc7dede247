"""A book of every event, kept from what the store was asked and what it answered; every answer must agree with it.

The book knows of an event only what a user was promised. A store that loses writes takes its entries back with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from attrs import define, evolve, frozen
from typing_extensions import override

from dtimer.limits import REFUSAL_WAIT_MAX_US, STORE_TIME_MAX_US
from dtimer.protocol import operations as op
from dtimer.protocol import outcomes as out
from dtimer.protocol.operations import Operation, Read
from dtimer.protocol.values import (
    After,
    Applied,
    Claimed,
    Delivery,
    Due,
    EndedEvent,
    EndReason,
    EventData,
    EventState,
    Extension,
    IfExists,
    LetterName,
    Receipt,
    Release,
)
from dtimer.sim.checks.violation import Complain
from dtimer.sim.faulty.observer import Observer
from dtimer.sim.faulty.store import LOSE_MAX_US

SAME_CALL_US: Final = 1_000
"""Items of one call get a microsecond each, and a call has at most 512 of them."""
_PUT: Final = {IfExists.REPLACE: "replaced", IfExists.KEEP: "kept", IfExists.ERROR: "conflict"}


@frozen
class Entry:
    """A live event.

    Attributes:
        due_us: it is not claimable before; by the store's clock, like all times here.
        wait_us: for so much longer at most the store may keep it back (F4).
        expires_us: it is not delivered after.
        number: of its newest delivery.
        counted: how many of its deliveries count.
        out: the receipt of the delivery that is unconfirmed.
    """

    data: EventData
    due_us: int
    expires_us: int | None
    number: int = 0
    counted: int = 0
    out: Receipt | None = None
    wait_us: int = 0

    @property
    def due_by_us(self) -> int:
        """It is claimable from then on at the latest."""
        return self.due_us + self.wait_us + SAME_CALL_US

    @property
    def spent(self) -> bool:
        """It has had all its deliveries."""
        return self.counted > self.data.max_retries


@frozen
class Dead:
    """A dead letter, and the time of the operation that buried it."""

    at_us: int
    data: EventData


@define
class _Change:
    """How an entry was before it was changed, to be taken back."""

    t_us: int
    book: dict[str, Any]
    id: str
    before: Entry | tuple[Dead, ...] | None


class Ledger(Observer):
    """Keeps the book of one namespace.

    Attributes:
        live: the events that are.
        dead: dead letters, without regard to their age and number.
        on_delivery: told of each delivery: host, its event, and how late it is.
    """

    def __init__(self, now_us: Callable[[], int], complain: Complain) -> None:
        self.live: dict[str, Entry] = {}
        self.dead: dict[str, tuple[Dead, ...]] = {}
        self.on_delivery: Callable[[str, Delivery], None] = lambda host, delivery: None
        self._now_us = now_us
        self._complain = complain
        self._host = ""
        self._changes: deque[_Change] = deque()
        self._last: Applied[Any] | None = None
        self._entries: dict[type, Callable[[Any, Any, int], None]] = {
            op.Post: self._posted,
            op.Cancel: self._cancelled,
            op.ChangeDelay: self._moved,
            op.Claim: self._claimed,
            op.Confirm: self._confirmed,
            op.ConfirmNewest: self._confirmed_newest,
            op.GiveBack: self._given_back,
            op.Extend: self._extended,
            op.Bury: self._buried,
            op.Peek: self._peeked,
            op.Resend: self._resent,
            op.Discard: self._discarded,
        }

    # --- what is observed --------------------------------------------------------------------------------

    @override
    def on_applied(
        self, host: str, number: int, namespace: str, operation: Operation[Any], applied: Applied[Any]
    ) -> None:
        self._host = host
        self._in_order(operation, applied)
        enter = self._entries.get(type(operation))
        if enter is not None:
            enter(operation, applied.value, applied.at_us)

    @override
    def on_rolled_back(self, until_us: int | None) -> None:
        """The store has forgotten, so the book does."""
        self._last = None
        if until_us is None:
            self.live.clear()
            self.dead.clear()
            self._changes.clear()
            return
        while self._changes and self._changes[-1].t_us > until_us:
            change = self._changes.pop()
            if change.before is None:
                change.book.pop(change.id, None)
            else:
                change.book[change.id] = change.before

    def compare(self, live: int) -> None:
        """With the number of live events that the store has."""
        if live != len(self.live):
            self._complain("S6", "store", "", f"it has {live} live events where {len(self.live)} should be")

    # --- the order of operations (O1, T2) -----------------------------------------------------------------

    def _in_order(self, operation: Operation[Any], applied: Applied[Any]) -> None:
        last = self._last
        step = 0 if isinstance(operation, Read) else 1
        if last is None or step:
            # A read leaves nothing behind, its time neither: the next one may be earlier if the clock was set back.
            self._last = applied
        if last is not None:
            follows = (applied.epoch, applied.seq) == (last.epoch, last.seq + step)
            self._expect(follows, "O1", "", f"{operation.method} has number {applied.seq} after {last.seq}")
            back_us = last.at_us - applied.at_us
            self._expect(back_us <= 0, "T2", "", f"the store's time went back by {back_us} us")

    # --- posting (P1 to P7) -------------------------------------------------------------------------------

    def _posted(self, operation: op.Post, outcomes: tuple[out.PostOutcome, ...], at_us: int) -> None:
        self._expect(len(outcomes) == len(operation.events), "P5", "", "outcomes are missing")
        for new, outcome in zip(operation.events, outcomes, strict=False):
            self._put(new.event, new.due, new.if_exists, outcome.value, at_us)

    def _resent(self, operation: op.Resend, outcome: out.ResendOutcome, at_us: int) -> None:
        dead = self._dead(operation.letter)
        if dead is not None and outcome not in {out.ResendOutcome.NOT_FOUND, out.ResendOutcome.UNREADABLE}:
            self._put(dead.data, operation.due, operation.if_exists, outcome.value, at_us)
            if outcome:
                self._forget(dead)

    def _put(self, data: EventData, due: Due, if_exists: IfExists, outcome: str, at_us: int) -> None:
        expected = _PUT[if_exists] if data.id in self.live else "created"
        self._expect(outcome == expected, "P3", data.id, f"a post was {outcome} and should have been {expected}")
        if expected in {"created", "replaced"}:
            skew_us = 0 if self._last is None else self._last.skew_us
            due_us = at_us + due.delay_us if isinstance(due, After) else max(due.due_us + skew_us, at_us)
            due_us = min(due_us, STORE_TIME_MAX_US)
            self._set(self.live, data.id, Entry(data, due_us, _expiry(data, due_us)))

    # --- delivery (D1 to D6, T3, T4) ----------------------------------------------------------------------

    def _claimed(self, operation: op.Claim, claimed: Claimed, at_us: int) -> None:
        for receipt, outcome in zip(operation.confirming, claimed.confirmed, strict=False):
            self._confirm(receipt, outcome)
        for extension, how in zip(operation.extending, claimed.extended, strict=False):
            self._extend(extension, how, at_us)
        taken = len(claimed.deliveries)
        joined = claimed.status is out.ClaimStatus.JOINED
        self._expect(joined or not taken, "N1", "", f"a node that is none took {taken} events")
        self._expect(taken <= operation.room, "N2", "", f"{taken} events were given for a room of {operation.room}")
        dues = [delivery.due_us for delivery in claimed.deliveries]
        self._expect(dues == sorted(dues), "T4", "", "events were not given in the order of their due times")
        for ended in claimed.ended:
            self._ended(ended, at_us)
        for delivery in claimed.deliveries:
            self._delivered(operation, delivery)
        for unreadable in claimed.unreadable:
            self._expect(False, "F4", unreadable.id, "a record could not be read, and nothing spoiled it")

    def _delivered(self, operation: op.Claim, given: Delivery) -> None:
        id, number = given.event.id, given.receipt.delivery_number
        entry = self.live.get(id)
        if entry is None:
            self._expect(False, "E1 E2", id, f"delivery {number} of an event that had ended or never was")
            return
        data, counted = entry.data, entry.counted
        early_us = max(entry.due_us, given.due_us) - given.at_us
        in_time = given.at_us >= given.due_us >= entry.due_us
        self._expect(in_time, "T3 D1", id, f"delivery {number} came {early_us} us early")
        near = given.due_us <= entry.due_by_us
        self._expect(near, "D3", id, f"its due time is {given.due_us}, not {entry.due_us}")
        self._expect(number == entry.number + 1, "D2", id, f"delivery {number} followed delivery {entry.number}")
        self._expect(given.num_retries == counted, "D2", id, f"{given.num_retries} retries after {counted} that count")
        self._expect(not entry.spent, "D2", id, f"retry {counted} of {data.max_retries}")
        same = given.event.payload == data.payload and given.event.headers == data.headers
        self._expect(same, "P4", id, "its payload or headers are not those that were posted")
        late = entry.expires_us is not None and given.at_us > entry.expires_us
        self._expect(not late, "P7", id, "it was delivered after it had expired")
        after: Entry | None = None
        deadline_us: int | None = None
        if data.requires_confirm:
            timeout_us = operation.confirm_timeout_us if data.confirm_timeout_us is None else data.confirm_timeout_us
            deadline_us = given.at_us + timeout_us
            after = Entry(data, deadline_us, entry.expires_us, number, counted + 1, given.receipt)
        right = given.deadline_us == deadline_us
        self._expect(right, "D4", id, f"its deadline is {given.deadline_us}, not {deadline_us}")
        self._set(self.live, id, after)
        self.on_delivery(self._host, given)

    def _ended(self, ended: EndedEvent, at_us: int) -> None:
        id, why = ended.event.id, ended.reason.value
        entry = self.live.get(id)
        if entry is None:
            self._expect(False, "E5", id, f"{why} is told of an event that had ended or never was")
            return
        if ended.reason is EndReason.EXPIRED:
            over = entry.expires_us is not None and at_us > entry.expires_us
            self._expect(over, "P7", id, "it is told as expired before its time")
        else:
            spent = entry.out is not None and entry.spent
            self._expect(spent, "E5", id, f"it is told as {why} after {entry.counted} of {entry.data.max_retries + 1}")
        self._expect(at_us >= entry.due_us, "E5", id, "it was ended before its deadline")
        self._bury(entry, kept=entry.data.dead_letter, at_us=at_us)

    # --- ending (E1 to E5) --------------------------------------------------------------------------------

    def _confirmed(self, operation: op.Confirm, outcomes: tuple[out.ConfirmOutcome, ...], at_us: int) -> None:
        self._expect(len(outcomes) == len(operation.receipts), "P5", "", "outcomes are missing")
        for receipt, outcome in zip(operation.receipts, outcomes, strict=False):
            self._confirm(receipt, outcome)

    def _confirm(self, receipt: Receipt, outcome: out.ConfirmOutcome) -> None:
        if self._held("E1", receipt, outcome.value) is not None:
            self._set(self.live, receipt.id, None)

    def _confirmed_newest(self, operation: op.ConfirmNewest, outcome: out.ConfirmOutcome, at_us: int) -> None:
        held = self._state(operation.id) == "unconfirmed"
        expected = out.ConfirmOutcome.CONFIRMED if held else out.ConfirmOutcome.NOT_FOUND
        self._expect(outcome is expected, "E1", operation.id, f"the operator's confirm was {outcome.value}")
        if held:
            self._set(self.live, operation.id, None)

    def _cancelled(self, operation: op.Cancel, outcomes: tuple[out.CancelOutcome, ...], at_us: int) -> None:
        how = {"none": "not_found", "scheduled": "cancelled", "unconfirmed": "stopped"}
        for id, outcome in zip(operation.ids, outcomes, strict=False):
            expected = how[self._state(id)]
            self._expect(outcome.value == expected, "E2", id, f"a cancel was {outcome.value}, not {expected}")
            self._set(self.live, id, None)

    def _moved(self, operation: op.ChangeDelay, outcome: out.ChangeOutcome, at_us: int) -> None:
        id, entry = operation.id, self.live.get(operation.id)
        expected = {"none": "not_found", "scheduled": "moved", "unconfirmed": "unconfirmed"}[self._state(id)]
        self._expect(outcome.value == expected, "E3", id, f"a change of delay was {outcome.value}")
        if entry is not None and entry.out is None:
            due_us = at_us + operation.delay_us
            self._set(self.live, id, evolve(entry, due_us=due_us, expires_us=_expiry(entry.data, due_us), wait_us=0))

    def _given_back(self, operation: op.GiveBack, outcome: out.ReleaseOutcome, at_us: int) -> None:
        id, how, released = operation.receipt.id, operation.how, out.ReleaseOutcome.RELEASED
        entry = self._held("E4", operation.receipt, outcome.value)
        if entry is None:
            return
        if how is Release.COUNTED:
            expected = out.ReleaseOutcome.EXHAUSTED if entry.spent else released
            self._expect(outcome is expected, "E4", id, f"a counted release was {outcome.value}")
        if how is Release.FAILED:
            self._expect(outcome is released, "F3", id, f"of a failed delivery, {outcome.value}")
        elif outcome is released:
            # When a refused one is due the store says (F4).
            delay_us, wait_us = (0, REFUSAL_WAIT_MAX_US) if how is Release.REFUSED else (operation.delay_us, 0)
            counted = entry.counted - (how is not Release.COUNTED)
            after = evolve(entry, due_us=at_us + delay_us, counted=counted, out=None, wait_us=wait_us)
            self._set(self.live, id, after)
        else:
            kept = entry.data.dead_letter or outcome is out.ReleaseOutcome.BURIED
            self._bury(entry, kept=kept, at_us=at_us)

    def _extended(self, operation: op.Extend, outcomes: tuple[out.ExtendOutcome, ...], at_us: int) -> None:
        self._expect(len(outcomes) == len(operation.extensions), "P5", "", "outcomes are missing")
        for extension, outcome in zip(operation.extensions, outcomes, strict=False):
            self._extend(extension, outcome, at_us)

    def _extend(self, extension: Extension, outcome: out.ExtendOutcome, at_us: int) -> None:
        entry = self._held("E4", extension.receipt, outcome.value)
        if entry is not None:
            self._set(self.live, entry.data.id, evolve(entry, due_us=at_us + extension.timeout_us))

    def _buried(self, operation: op.Bury, outcome: out.BuryOutcome, at_us: int) -> None:
        entry = self._held("F4", operation.receipt, outcome.value)
        if entry is not None:
            self._bury(entry, kept=True, at_us=at_us)

    def _discarded(self, operation: op.Discard, outcomes: tuple[out.DiscardOutcome, ...], at_us: int) -> None:
        for name, outcome in zip(operation.letters, outcomes, strict=True):
            dead = self._dead(name)
            if outcome and dead is not None:
                self._forget(dead)

    # --- reading (R1) -------------------------------------------------------------------------------------

    def _peeked(self, operation: op.Peek, pending: Any, at_us: int) -> None:
        id, entry = operation.id, self.live.get(operation.id)
        self._expect((pending is None) == (entry is None), "R1", id, "a peek and the book disagree")
        if pending is not None and entry is not None:
            unconfirmed = pending.state is EventState.UNCONFIRMED
            self._expect(unconfirmed == (entry.out is not None), "R1", id, f"it was seen as {pending.state.value}")
            near = entry.due_us <= pending.next_us <= entry.due_by_us
            self._expect(near, "R1", id, f"its next time is {pending.next_us}, not {entry.due_us}")

    # --- helpers ------------------------------------------------------------------------------------------

    def _state(self, id: str) -> str:
        entry = self.live.get(id)
        return "none" if entry is None else "scheduled" if entry.out is None else "unconfirmed"

    def _held(self, rules: str, receipt: Receipt, outcome: str) -> Entry | None:
        """The event that a receipt holds, if it does; the outcome of what is asked with it must say so."""
        entry = self.live.get(receipt.id)
        found = "none" if entry is None else "newest" if entry.out == receipt else "old"
        told = {"stale": "old", "not_found": "none"}.get(outcome, "newest")
        self._expect(told == found, rules, receipt.id, f"by the {found} receipt the outcome was {outcome}")
        return entry if found == "newest" and told == found else None

    def _bury(self, entry: Entry, *, kept: bool, at_us: int) -> None:
        id = entry.data.id
        self._set(self.live, id, None)
        if kept:
            self._set(self.dead, id, (*self.dead.get(id, ()), Dead(at_us, entry.data)))

    def _dead(self, name: LetterName) -> Dead | None:
        """The letter that is meant: the newest that was buried by the time in its name."""
        found = [dead for dead in self.dead.get(name.id, ()) if name.buried_us is None or dead.at_us <= name.buried_us]
        return found[-1] if found else None

    def _forget(self, dead: Dead) -> None:
        id = dead.data.id
        self._set(self.dead, id, tuple(other for other in self.dead[id] if other is not dead) or None)

    def _set(self, book: dict[str, Any], id: str, now: Entry | tuple[Dead, ...] | None) -> None:
        t_us = self._now_us()
        self._changes.append(_Change(t_us, book, id, book.get(id)))
        while self._changes[0].t_us < t_us - LOSE_MAX_US:
            self._changes.popleft()
        if now is None:
            book.pop(id, None)
        else:
            book[id] = now

    def _expect(self, holds: bool, rules: str, id: str, words: str) -> None:
        if not holds:
            self._complain(rules, self._host, id, words)


def _expiry(data: EventData, due_us: int) -> int | None:
    # Of the items of one call each has a microsecond of its own.
    return None if data.expires_after_us is None else due_us + data.expires_after_us + SAME_CALL_US
