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
from dtimer.protocol.operations import Operation, Read
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


@define
class _Order:
    """Where a namespace's history stands (rule O1)."""

    epoch: str
    seq: int
    at_us: int


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
        self._changes: deque[_Change] = deque()
        self._order: _Order | None = None
        self._ways: dict[type, Callable[[str, Any, Applied[Any]], None]] = {
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

    # --- what is watched ---------------------------------------------------------------------------------

    @override
    def on_applied(
        self, host: str, number: int, namespace: str, operation: Operation[Any], applied: Applied[Any]
    ) -> None:
        self._in_order(host, operation, applied)
        way = self._ways.get(type(operation))
        if way is not None:
            way(host, operation, applied)

    @override
    def on_rolled_back(self, until_us: int | None) -> None:
        """The store has forgotten, so the book does."""
        self._order = None
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

    def _in_order(self, host: str, operation: Operation[Any], applied: Applied[Any]) -> None:
        before = self._order
        step = 0 if isinstance(operation, Read) else 1
        if before is None or step:
            # A read leaves nothing behind, its time neither: the next one may be earlier if the clock was set back.
            self._order = _Order(applied.epoch, applied.seq, applied.at_us)
        if before is None:
            return
        if applied.epoch != before.epoch or applied.seq != before.seq + step:
            self._complain("O1", host, "", f"{operation.method} has number {applied.seq} after {before.seq}")
        if applied.at_us < before.at_us:
            self._complain("T2", host, "", f"the store's time went back by {before.at_us - applied.at_us} us")

    # --- posting (P1 to P7) -------------------------------------------------------------------------------

    def _posted(self, host: str, operation: op.Post, applied: Applied[tuple[PostOutcome, ...]]) -> None:
        self._expect(len(applied.value) == len(operation.events), "P5", host, "", "outcomes are missing")
        for new, outcome in zip(operation.events, applied.value, strict=False):
            self._put(host, new.event, new.due, new.if_exists, outcome.value, applied=applied)

    def _resent(self, host: str, operation: op.Resend, applied: Applied[ResendOutcome]) -> None:
        dead = self._dead(operation.letter)
        if dead is None or applied.value in {ResendOutcome.NOT_FOUND, ResendOutcome.UNREADABLE}:
            return
        self._put(host, dead.data, operation.due, operation.if_exists, applied.value.value, applied=applied)
        if applied.value:
            self._forget(dead)

    def _put(
        self, host: str, data: EventData, due: Due, if_exists: IfExists, outcome: str, *, applied: Applied[Any]
    ) -> None:
        before = self.live.get(data.id)
        if before is None:
            expected = "created"
        else:
            expected = {IfExists.REPLACE: "replaced", IfExists.KEEP: "kept", IfExists.ERROR: "conflict"}[if_exists]
        self._expect(outcome == expected, "P3", host, data.id, f"a post was {outcome} and should have been {expected}")
        if expected in {"created", "replaced"}:
            at_us = applied.at_us
            due_us = at_us + due.delay_us if isinstance(due, After) else max(due.due_us + applied.skew_us, at_us)
            due_us = min(due_us, STORE_TIME_MAX_US)
            self._set(self.live, data.id, Entry(data, due_us, _expiry(data, due_us)))

    # --- delivery (D1 to D6, T3, T4) ----------------------------------------------------------------------

    def _claimed(self, host: str, operation: op.Claim, applied: Applied[Claimed]) -> None:
        claimed = applied.value
        for receipt, outcome in zip(operation.confirming, claimed.confirmed, strict=False):
            self._confirm(host, receipt, outcome)
        for extension, how in zip(operation.extending, claimed.extended, strict=False):
            self._extend(host, extension, how, applied.at_us)
        taken = len(claimed.deliveries)
        self._expect(
            claimed.status is ClaimStatus.JOINED or not taken,
            "N1",
            host,
            "",
            f"a node that is none took {taken} events",
        )
        self._expect(
            taken <= operation.room, "N2", host, "", f"{taken} events were given for a room of {operation.room}"
        )
        dues = [delivery.due_us for delivery in claimed.deliveries]
        self._expect(dues == sorted(dues), "T4", host, "", "events were not given in the order of their due times")
        for ended in claimed.ended:
            self._ended(host, ended, applied.at_us)
        for delivery in claimed.deliveries:
            self._delivered(host, operation, delivery)
        for unreadable in claimed.unreadable:
            self._complain("F4", host, unreadable.id, "a record could not be read, and nobody spoiled it")

    def _delivered(self, host: str, operation: op.Claim, delivery: Delivery) -> None:
        id, number = delivery.event.id, delivery.receipt.delivery_number
        entry = self.live.get(id)
        if entry is None:
            self._complain("E1 E2", host, id, f"delivery {number} of an event that had ended or never was")
            return
        data = entry.data
        self._expect(delivery.at_us >= delivery.due_us >= entry.due_us, "T3 D1", host, id, _early(delivery, entry))
        self._expect(
            delivery.due_us <= entry.due_us + entry.wait_us + SAME_CALL_US,
            "D3",
            host,
            id,
            f"its due time is {delivery.due_us}, not {entry.due_us}",
        )
        self._expect(number == entry.number + 1, "D2", host, id, f"delivery {number} followed delivery {entry.number}")
        self._expect(
            delivery.num_retries == entry.counted,
            "D2",
            host,
            id,
            f"{delivery.num_retries} retries after {entry.counted} that count",
        )
        self._expect(entry.counted <= data.max_retries, "D2", host, id, f"retry {entry.counted} of {data.max_retries}")
        self._expect(
            delivery.event.payload == data.payload and delivery.event.headers == data.headers,
            "P4", host, id, "its payload or headers are not those that were posted",
        )  # fmt: skip
        late = entry.expires_us is not None and delivery.at_us > entry.expires_us
        self._expect(not late, "P7", host, id, "it was delivered after it had expired")
        if data.requires_confirm:
            timeout_us = operation.confirm_timeout_us if data.confirm_timeout_us is None else data.confirm_timeout_us
            deadline_us = delivery.at_us + timeout_us
            self._expect(
                delivery.deadline_us == deadline_us,
                "D4",
                host,
                id,
                f"its deadline is {delivery.deadline_us}, not {deadline_us}",
            )
            self._set(
                self.live,
                id,
                Entry(data, deadline_us, entry.expires_us, number, entry.counted + 1, delivery.receipt),
            )
        else:
            self._expect(delivery.deadline_us is None, "D4", host, id, "it is at most once, and yet has a deadline")
            self._set(self.live, id, None)
        self.on_delivery(host, delivery)

    def _ended(self, host: str, ended: EndedEvent, at_us: int) -> None:
        id = ended.event.id
        entry = self.live.get(id)
        if entry is None:
            self._complain("E5", host, id, f"{ended.reason.value} is told of an event that had ended or never was")
            return
        if ended.reason is EndReason.EXPIRED:
            over = entry.expires_us is not None and at_us > entry.expires_us
            self._expect(over, "P7", host, id, "it is told as expired before its time")
        else:
            spent = entry.out is not None and entry.counted > entry.data.max_retries
            self._expect(
                spent, "E5", host, id, f"it is told as exhausted after {entry.counted} of {entry.data.max_retries + 1}"
            )
        self._expect(at_us >= entry.due_us, "E5", host, id, "it was ended before its deadline")
        self._bury(entry, kept=entry.data.dead_letter, at_us=at_us)

    # --- ending (E1 to E5) --------------------------------------------------------------------------------

    def _confirmed(self, host: str, operation: op.Confirm, applied: Applied[tuple[ConfirmOutcome, ...]]) -> None:
        self._expect(len(applied.value) == len(operation.receipts), "P5", host, "", "outcomes are missing")
        for receipt, outcome in zip(operation.receipts, applied.value, strict=False):
            self._confirm(host, receipt, outcome)

    def _confirm(self, host: str, receipt: Receipt, outcome: ConfirmOutcome) -> None:
        found = self._holder(receipt)
        expected = {"newest": ConfirmOutcome.CONFIRMED, "old": ConfirmOutcome.STALE, "none": ConfirmOutcome.NOT_FOUND}[
            found
        ]
        self._expect(
            outcome is expected, "E1", host, receipt.id, f"a confirm by the {found} receipt was {outcome.value}"
        )
        if found == "newest":
            self._set(self.live, receipt.id, None)

    def _confirmed_newest(self, host: str, operation: op.ConfirmNewest, applied: Applied[ConfirmOutcome]) -> None:
        entry = self.live.get(operation.id)
        out = entry is not None and entry.out is not None
        expected = ConfirmOutcome.CONFIRMED if out else ConfirmOutcome.NOT_FOUND
        self._expect(
            applied.value is expected, "E1", host, operation.id, f"the operator's confirm was {applied.value.value}"
        )
        if out:
            self._set(self.live, operation.id, None)

    def _cancelled(self, host: str, operation: op.Cancel, applied: Applied[tuple[CancelOutcome, ...]]) -> None:
        for id, outcome in zip(operation.ids, applied.value, strict=False):
            entry = self.live.get(id)
            expected = (
                CancelOutcome.NOT_FOUND
                if entry is None
                else CancelOutcome.CANCELLED
                if entry.out is None
                else CancelOutcome.STOPPED
            )
            self._expect(outcome is expected, "E2", host, id, f"a cancel was {outcome.value}, not {expected.value}")
            self._set(self.live, id, None)

    def _moved(self, host: str, operation: op.ChangeDelay, applied: Applied[ChangeOutcome]) -> None:
        entry = self.live.get(operation.id)
        expected = (
            ChangeOutcome.NOT_FOUND
            if entry is None
            else ChangeOutcome.MOVED
            if entry.out is None
            else ChangeOutcome.UNCONFIRMED
        )
        self._expect(
            applied.value is expected, "E3", host, operation.id, f"a change of delay was {applied.value.value}"
        )
        if entry is not None and entry.out is None:
            due_us = applied.at_us + operation.delay_us
            expires_us = _expiry(entry.data, due_us)
            self._set(self.live, operation.id, evolve(entry, due_us=due_us, expires_us=expires_us, wait_us=0))

    def _given_back(self, host: str, operation: op.GiveBack, applied: Applied[ReleaseOutcome]) -> None:
        outcome, id = applied.value, operation.receipt.id
        found, entry = self._holder(operation.receipt), self.live.get(id)
        if not self._agrees(host, "E4", id, found, outcome.value) or entry is None or found != "newest":
            return
        if operation.how is Release.COUNTED:
            spent = entry.counted > entry.data.max_retries
            expected = ReleaseOutcome.EXHAUSTED if spent else ReleaseOutcome.RELEASED
            self._expect(outcome is expected, "E4", host, id, f"a counted release was {outcome.value}")
        if operation.how is Release.FAILED:
            self._expect(outcome is ReleaseOutcome.RELEASED, "F3", host, id, f"of a failed delivery, {outcome.value}")
        elif outcome is ReleaseOutcome.RELEASED:
            counted = entry.counted - (operation.how is not Release.COUNTED)
            # When a refused one is due the store says (F4): not before now, at least.
            refused = operation.how is Release.REFUSED
            due_us = applied.at_us + (0 if refused else operation.delay_us)
            wait_us = REFUSAL_WAIT_MAX_US if refused else 0
            self._set(self.live, id, evolve(entry, due_us=due_us, counted=counted, out=None, wait_us=wait_us))
        else:
            self._bury(entry, kept=entry.data.dead_letter or outcome is ReleaseOutcome.BURIED, at_us=applied.at_us)

    def _extended(self, host: str, operation: op.Extend, applied: Applied[tuple[ExtendOutcome, ...]]) -> None:
        self._expect(len(applied.value) == len(operation.extensions), "P5", host, "", "outcomes are missing")
        for extension, outcome in zip(operation.extensions, applied.value, strict=False):
            self._extend(host, extension, outcome, applied.at_us)

    def _extend(self, host: str, extension: Extension, outcome: ExtendOutcome, at_us: int) -> None:
        id = extension.receipt.id
        found, entry = self._holder(extension.receipt), self.live.get(id)
        if self._agrees(host, "E4", id, found, outcome.value) and entry is not None and found == "newest":
            self._set(self.live, id, evolve(entry, due_us=at_us + extension.timeout_us))

    def _buried(self, host: str, operation: op.Bury, applied: Applied[BuryOutcome]) -> None:
        id = operation.receipt.id
        found, entry = self._holder(operation.receipt), self.live.get(id)
        if self._agrees(host, "F4", id, found, applied.value.value) and entry is not None and found == "newest":
            self._bury(entry, kept=True, at_us=applied.at_us)

    def _discarded(self, host: str, operation: op.Discard, applied: Applied[tuple[DiscardOutcome, ...]]) -> None:
        for name, outcome in zip(operation.letters, applied.value, strict=True):
            dead = self._dead(name)
            if outcome and dead is not None:
                self._forget(dead)

    # --- reading (R1) -------------------------------------------------------------------------------------

    def _peeked(self, host: str, operation: op.Peek, applied: Applied[Any]) -> None:
        entry, pending = self.live.get(operation.id), applied.value
        self._expect((pending is None) == (entry is None), "R1", host, operation.id, "a peek and the book disagree")
        if pending is not None and entry is not None:
            out = pending.state is EventState.UNCONFIRMED
            self._expect(
                out == (entry.out is not None), "R1", host, operation.id, f"it was seen as {pending.state.value}"
            )
            near = entry.due_us <= pending.next_us <= entry.due_us + entry.wait_us + SAME_CALL_US
            self._expect(near, "R1", host, operation.id, f"its next time is {pending.next_us}, not {entry.due_us}")

    # --- helpers ------------------------------------------------------------------------------------------

    def _holder(self, receipt: Receipt) -> str:
        entry = self.live.get(receipt.id)
        return "none" if entry is None else "newest" if entry.out == receipt else "old"

    def _agrees(self, host: str, rules: str, id: str, found: str, outcome: str) -> bool:
        """Whether an outcome fits to what a receipt is."""
        told = {"stale": "old", "not_found": "none"}.get(outcome, "newest")
        self._expect(told == found, rules, host, id, f"by the {found} receipt the outcome was {outcome}")
        return told == found

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

    def _expect(self, holds: bool, rules: str, host: str, id: str, words: str) -> None:
        if not holds:
            self._complain(rules, host, id, words)


def _expiry(data: EventData, due_us: int) -> int | None:
    # Of the items of one call each has a microsecond of its own.
    return None if data.expires_after_us is None else due_us + data.expires_after_us + SAME_CALL_US


def _early(delivery: Delivery, entry: Entry) -> str:
    early_us = max(entry.due_us, delivery.due_us) - delivery.at_us
    return f"delivery {delivery.receipt.delivery_number} came {early_us} us early"
