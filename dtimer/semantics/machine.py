"""What happens to an event: every rule of dtimer, once, as a pure state machine.

Rule 1: everything that decides what happens to an event is in this file; who is told to come is in ``ring.py``, what
is kept of the dead in ``dead_letters.py``, what time it is in ``clock.py``, which servers it was on in
``branches.py``, and nothing of it anywhere else in Python.

Rule 2: this package cannot wait, read a clock, roll dice or reach anything. What a store could not decide alone
comes in with the operation: the time, the tokens, and whether an announcement reached anybody.

Theory of operation
===================

A namespace is one queue of live events, ordered by the time at which each may be claimed next: its due time while
it is *scheduled*, its deadline while it is *unconfirmed*. One order serves both, so a retry is as punctual as a first
delivery, and a claim's work is bounded by what it asks for::

    post --> scheduled --claim--> unconfirmed --confirm--> gone
               ^  |                  |   |
               |  +--cancel-> gone   |   +-- claimed again past its deadline, while retries are left
               +------release--------+   +-- found past its deadline by a claim, none left: exhausted
                                         +-- cancel --> gone

An event that *requires no confirm* (neither ``max_retries`` nor ``dead_letter``, the default) goes from scheduled
straight to gone: at most once, nothing to confirm.

State changes only through operations; the passing of time only makes entries claimable. So a history of operations
with their times is all there is to know, and :meth:`Machine.apply` replays any history to the same replies.

A *receipt* names one delivery: the event's id, the delivery's number and the claim's token. An operation on a delivery
must show the newest receipt; an older one changes nothing. Whether the deadline has passed does not matter to it:
as long as nobody has claimed the event again, the holder of the newest receipt is still in charge.

Every posted, moved, released, delivered or buried item is given a microsecond of its own (:meth:`Machine._tick`), so
that equal delays fire in the order in which they were given, and the retries of a batch come back in its order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from typing import cast

from attrs import define, evolve

from dtimer.limits import (
    BATCH_MAX_BYTES,
    CLAIM_EXTRA_ENTRIES,
    STORE_TIME_MAX_US,
    UNARMED_OVERDUE_US,
    UNREADABLE_SHOWN_BYTES,
)
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation, ReplyT_co
from dtimer.protocol.outcomes import (
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    ClaimStatus,
    ConfirmOutcome,
    DiscardOutcome,
    ExtendOutcome,
    JoinOutcome,
    PostOutcome,
    ReleaseOutcome,
    ResendOutcome,
)
from dtimer.protocol.values import (
    After,
    Applied,
    At,
    Branch,
    Claimed,
    ClockReset,
    Cursor,
    DeadLetter,
    DeadLetterPage,
    Delivery,
    Due,
    EndedEvent,
    EndReason,
    EventData,
    EventState,
    Extension,
    Failure,
    IfExists,
    Inspection,
    LastError,
    LetterName,
    Page,
    Parked,
    Pending,
    Receipt,
    Release,
    Unreadable,
)
from dtimer.semantics.branches import Branches
from dtimer.semantics.dead_letters import DeadLetters
from dtimer.semantics.refusals import Refusals, one_more, wait_after
from dtimer.semantics.ring import Ring

Reach = Callable[[str], bool]


@define
class _Entry:
    """A live event.

    Attributes:
        record: what was posted, or the bytes of a record that dtimer did not write.
        next_us: its place in the queue: due time or deadline.
        due_us: when it was due, by the post or the last change of delay.
        number: deliveries so far.
        counted: those of them that count as attempts (D2).
        refusals: of its payload, since an attempt last counted; None: there was none (F4).
        nonce: the token of the newest delivery while it is unconfirmed, else empty.
        node: which node has or had the newest delivery.
        error: what went wrong last (E5).
        wall_skew_us: the skew when it was posted for a time of day; None: it was posted, or moved, by a delay (T6).
    """

    record: EventData | bytes
    next_us: int
    due_us: int
    number: int = 0
    counted: int = 0
    refusals: Refusals | None = None
    nonce: str = ""
    node: str = ""
    error: LastError | None = None
    wall_skew_us: int | None = None

    @property
    def event(self) -> EventData:
        assert isinstance(self.record, EventData), "only a readable event is ever delivered"
        return self.record

    def copy(self) -> _Entry:
        return _Entry(
            self.record,
            self.next_us,
            self.due_us,
            self.number,
            self.counted,
            self.refusals,
            self.nonce,
            self.node,
            self.error,
            self.wall_skew_us,
        )

    def holds(self, receipt: Receipt) -> bool:
        """Whether the receipt is for the newest delivery, and that is out (E1)."""
        return self.nonce != "" and (self.number, self.nonce) == (receipt.delivery_number, receipt.nonce)

    def failed(self, at_us: int, failure: Failure | None) -> None:
        """What is known of its newest delivery (E5)."""
        self.error = LastError(delivery_number=self.number, node=self.node, at_us=at_us, failure=failure)

    def missed(self) -> None:
        """Its deadline has passed, and it is claimed: if nothing was told of the delivery, that is its error."""
        if self.nonce and (self.error is None or self.error.delivery_number < self.number):
            self.failed(self.next_us, None)


class Machine:
    """One namespace. `apply` is the only way to change it.

    Attributes:
        epoch: the namespace's random name.
        seq: the number of operations other than reads so far (O1).
        last_us: the last microsecond given out (T2, T4).
    """

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.seq = 0
        self.last_us = 0
        self._live: dict[str, _Entry] = {}
        self._queue: list[tuple[int, str]] = []
        self._ring = Ring()
        self._letters = DeadLetters()
        self._servers = Branches()
        self._at_us = 0
        self._skew_us = 0
        self._server = ""
        self._claimer: str | None = None

    @property
    def num_live(self) -> int:
        """How many events are live."""
        return len(self._live)

    @property
    def head_us(self) -> int | None:
        """When the first event of the queue can be claimed; None if there is none."""
        return self._queue[0][0] if self._queue else None

    def apply(
        self, operation: Operation[ReplyT_co], *, at_us: int, reach: Reach, skew_us: int = 0, server: str = ""
    ) -> Applied[ReplyT_co]:
        """Apply one operation at the store's time `at_us`.

        Args:
            at_us: not before the time of the operation before (T2).
            reach: whether an announcement to a node reached anybody; asked once for each, in order (N3).
            skew_us: by how much that is ahead of the host's clock (T2).
            server: the name of the server that it comes to (O2).
        """
        assert at_us >= self.last_us, "store time never goes back"
        self._at_us, self._skew_us, self._server = at_us, skew_us, server
        branch = self._servers.shown(server)
        if isinstance(operation, op.Read):
            return Applied(self.epoch, self.seq, at_us, self._perform(operation), (), skew_us, branch)
        self._servers.begin(server, self.seq)
        self.seq += 1
        value: object = self._perform(operation)
        self.last_us = max(self.last_us, at_us)
        claimer, self._claimer = self._claimer, None
        announced = self._ring.settle(self.head_us, at_us, reach, claimer=claimer)
        arm = self._ring.arm
        if isinstance(value, Claimed) and arm is not None and arm.node == claimer:
            value = evolve(value, come_at_us=arm.due_us)
        return Applied(self.epoch, self.seq, at_us, cast("ReplyT_co", value), announced, skew_us, branch)

    def check(self) -> None:
        """Assert what holds after every operation, whatever the history."""
        assert self._queue == sorted((entry.next_us, id) for id, entry in self._live.items()), (
            "one place for each event"
        )
        for entry in self._live.values():
            if isinstance(entry.record, EventData):
                assert entry.counted <= 1 + entry.record.max_retries, "no more attempts than were asked for"
                assert entry.record.requires_confirm or entry.number == 0, (
                    "what requires no confirm is gone when it is delivered"
                )
            refusals = 0 if entry.refusals is None else entry.refusals.number
            assert entry.counted + refusals <= entry.number, "what was refused counts as no attempt"
        self._ring.check(self.head_us)

    def copy(self) -> Machine:
        """Another machine that stands where this one does; from then on each goes its own way."""
        twin = Machine(self.epoch)
        twin.seq, twin.last_us = self.seq, self.last_us
        twin._live = {id: entry.copy() for id, entry in self._live.items()}
        twin._queue = self._queue.copy()
        twin._ring = self._ring.copy()
        twin._letters = self._letters.copy()
        twin._servers = self._servers.copy()
        return twin

    def joined(self, at_us: int) -> tuple[str, ...]:
        """The members that have not been silent for too long (N3)."""
        return tuple(member.node for member in self._ring.members() if member.expires_us > at_us)

    def reset_clock(self, epoch: str, *, at_us: int, skew_us: int) -> ClockReset:
        """Take the skew out of all times: from now on the store's time is its host's (T2).

        Args:
            epoch: the one from now on, since times of both would have no order.
            at_us: the store's time; the next operation's is not before that less the skew.
        """
        assert not self.joined(at_us), "a node would be told times of another clock"
        for id, entry in tuple(self._live.items()):
            by_us = skew_us if entry.wall_skew_us is None else entry.wall_skew_us
            entry.due_us = max(entry.due_us - by_us, 0)
            if entry.refusals is not None:
                entry.refusals = evolve(entry.refusals, since_us=max(entry.refusals.since_us - skew_us, 0))
            if entry.error is not None:
                entry.error = evolve(entry.error, at_us=max(entry.error.at_us - skew_us, 0))
            if entry.wall_skew_us is not None:
                entry.wall_skew_us = 0
            # A delivery that is out, or was given back, has a place that is counted from then.
            self._move(id, entry, max(entry.next_us - (skew_us if entry.number else by_us), 0))
        letters = self._letters.moved(skew_us, at_us)
        self._ring.clear()
        self.epoch, self.seq, self.last_us = epoch, self.seq + 1, max(self.last_us - skew_us, 0)
        return ClockReset(skew_us=skew_us, events=len(self._live), dead_letters=letters)

    def plant(self, id: str, raw: bytes, due_us: int) -> None:
        """Put an unreadable record into the queue, as something else that writes to the store would (F4)."""
        self._remove(id)
        self._insert(id, _Entry(raw, due_us, due_us))

    # --- the operations, one method each ---------------------------------------------------------

    def _perform(self, operation: Operation[ReplyT_co]) -> ReplyT_co:
        perform = cast("Callable[[Operation[ReplyT_co]], ReplyT_co]", getattr(self, f"_{operation.method}"))
        return perform(operation)

    def _open(self, _: op.Open) -> None:
        return None

    def _post(self, operation: op.Post) -> tuple[PostOutcome, ...]:
        """P5."""
        return tuple(self._schedule(new.event, new.due, new.if_exists) for new in operation.events)

    def _schedule(self, event: EventData, due: Due, if_exists: IfExists) -> PostOutcome:
        """P3."""
        old = self._live.get(event.id)
        if old is not None:
            if if_exists is not IfExists.REPLACE:
                return PostOutcome.KEPT if if_exists is IfExists.KEEP else PostOutcome.CONFLICT
            self._remove(event.id)
        due_us = self._due(due)
        wall_skew_us = self._skew_us if isinstance(due, At) else None
        self._insert(event.id, _Entry(event, due_us, due_us, wall_skew_us=wall_skew_us))
        return PostOutcome.CREATED if old is None else PostOutcome.REPLACED

    def _cancel(self, operation: op.Cancel) -> tuple[CancelOutcome, ...]:
        return tuple(self._cancel_one(id) for id in operation.ids)

    def _cancel_one(self, id: str) -> CancelOutcome:
        """E2."""
        entry = self._remove(id)
        if entry is None:
            return CancelOutcome.NOT_FOUND
        return CancelOutcome.STOPPED if entry.nonce else CancelOutcome.CANCELLED

    def _change_delay(self, operation: op.ChangeDelay) -> ChangeOutcome:
        """E3."""
        entry = self._live.get(operation.id)
        if entry is None:
            return ChangeOutcome.NOT_FOUND
        if entry.nonce:
            return ChangeOutcome.UNCONFIRMED
        due_us = self._due(After(operation.delay_us))
        entry.due_us, entry.wall_skew_us = due_us, None
        self._move(operation.id, entry, due_us)
        return ChangeOutcome.MOVED

    def _confirm(self, operation: op.Confirm) -> tuple[ConfirmOutcome, ...]:
        return tuple(self._confirm_one(receipt) for receipt in operation.receipts)

    def _confirm_one(self, receipt: Receipt) -> ConfirmOutcome:
        """E1."""
        entry = self._live.get(receipt.id)
        if entry is None:
            return ConfirmOutcome.NOT_FOUND
        if not entry.holds(receipt):
            return ConfirmOutcome.STALE
        self._remove(receipt.id)
        return ConfirmOutcome.CONFIRMED

    def _confirm_newest(self, operation: op.ConfirmNewest) -> ConfirmOutcome:
        """E1, the operator's form."""
        entry = self._live.get(operation.id)
        if entry is None or not entry.nonce:
            return ConfirmOutcome.NOT_FOUND
        self._remove(operation.id)
        return ConfirmOutcome.CONFIRMED

    def _release(self, operation: op.GiveBack) -> ReleaseOutcome:
        """E4, E5, F4."""
        id = operation.receipt.id
        entry = self._live.get(id)
        if entry is None:
            return ReleaseOutcome.NOT_FOUND
        if not entry.holds(operation.receipt):
            return ReleaseOutcome.STALE
        if operation.failure is not None:
            entry.failed(self._at_us, operation.failure)
        if operation.how is Release.FAILED:
            return ReleaseOutcome.RELEASED
        delay_us = operation.delay_us
        if operation.how is Release.COUNTED:
            if entry.counted > entry.event.max_retries:
                self._end(id, EndReason.EXHAUSTED)
                return ReleaseOutcome.EXHAUSTED
            entry.refusals = None
        else:
            entry.counted -= 1
        if operation.how is Release.REFUSED:
            entry.refusals = one_more(entry.refusals, self._at_us, self._ring.joins)
            if self._at_us - entry.refusals.since_us >= operation.refused_for_us:
                self._bury_entry(id, EndReason.REFUSED)
                return ReleaseOutcome.BURIED
            delay_us = wait_after(entry.refusals.number, self._ring.num_members)
        entry.nonce = ""
        self._move(id, entry, self._due(After(delay_us)))
        return ReleaseOutcome.RELEASED

    def _extend(self, operation: op.Extend) -> tuple[ExtendOutcome, ...]:
        return tuple(self._extend_one(extension) for extension in operation.extensions)

    def _extend_one(self, extension: Extension) -> ExtendOutcome:
        """E4."""
        id = extension.receipt.id
        entry = self._live.get(id)
        if entry is None:
            return ExtendOutcome.NOT_FOUND
        if not entry.holds(extension.receipt):
            return ExtendOutcome.STALE
        self._move(id, entry, self._tick() + extension.timeout_us)
        return ExtendOutcome.EXTENDED

    def _bury(self, operation: op.Bury) -> BuryOutcome:
        """F4."""
        entry = self._live.get(operation.receipt.id)
        if entry is None:
            return BuryOutcome.NOT_FOUND
        if not entry.holds(operation.receipt):
            return BuryOutcome.STALE
        self._bury_entry(operation.receipt.id, EndReason.BURIED, operation.detail)
        return BuryOutcome.BURIED

    def _claim(self, operation: op.Claim) -> Claimed:
        """D1 to D6, E1, E4, E5, P7, N1, T3; who is told to come next is the ring's business."""
        confirmed = tuple(self._confirm_one(receipt) for receipt in operation.confirming)
        extended = tuple(self._extend_one(extension) for extension in operation.extending)
        name = operation.member.node
        status = self._ring.status(operation.member)
        if status is not ClaimStatus.JOINED:
            return Claimed(status=status, confirmed=confirmed, extended=extended)
        self._claimer = name
        self._ring.arrive(operation.member, self._at_us)
        armed = self._ring.is_armed(name)
        entitled = armed or self._ring.arm is None
        horizon_us = self._at_us if entitled else self._at_us - UNARMED_OVERDUE_US
        claimed = evolve(self._take(operation, horizon_us), confirmed=confirmed, extended=extended)
        if claimed.deliveries:
            self._ring.move_to_end(name)
            if armed:
                self._ring.disarm()
        if len(claimed.deliveries) >= operation.room:
            self._ring.park(name, Parked.FULL)
        return claimed

    def _take(self, operation: op.Claim, horizon_us: int) -> Claimed:
        """Go through what is claimable by `horizon_us`, in claim order, up to the limits of D5."""
        deliveries: list[Delivery] = []
        ended: list[EndedEvent] = []
        unreadable: list[Unreadable] = []
        num_bytes = 0
        more = False
        claimable = self._queue[: bisect_right(self._queue, (horizon_us, _LAST_ID))]
        for due_us, id in claimable[: operation.room + CLAIM_EXTRA_ENTRIES + 1]:
            entry = self._live[id]
            cleared = len(ended) + len(unreadable)
            if isinstance(entry.record, bytes):
                if cleared == CLAIM_EXTRA_ENTRIES:
                    more = True
                    break
                unreadable.append(Unreadable(id, entry.record[:UNREADABLE_SHOWN_BYTES]))
                self._bury_entry(id, EndReason.UNREADABLE)
                continue
            event = entry.record
            reason = self._end_reason(entry)
            full = len(deliveries) == operation.room if reason is None else cleared == CLAIM_EXTRA_ENTRIES
            size = event.num_bytes
            if full or ((deliveries or ended) and num_bytes + size > BATCH_MAX_BYTES):
                more = True
                break
            num_bytes += size
            entry.missed()
            if reason is None:
                deliveries.append(self._deliver(entry, due_us, operation))
            else:
                ended.append(self._end(id, reason))
        return Claimed(
            status=self._ring.status(operation.member),
            deliveries=tuple(deliveries),
            ended=tuple(ended),
            unreadable=tuple(unreadable),
            more=more,
        )

    def _end_reason(self, entry: _Entry) -> EndReason | None:
        """Why a claimable entry is not to be delivered (E5, P7); None if it is."""
        if entry.counted > entry.event.max_retries:
            return EndReason.EXHAUSTED
        expires_after_us = entry.event.expires_after_us
        if expires_after_us is not None and self._at_us > entry.due_us + expires_after_us:
            return EndReason.EXPIRED
        return None

    def _deliver(self, entry: _Entry, due_us: int, operation: op.Claim) -> Delivery:
        """D2 to D4."""
        event = entry.event
        at_us = self._tick()
        num_retries = entry.counted
        entry.number += 1
        entry.counted += 1
        deadline_us = None
        if event.requires_confirm:
            entry.nonce = operation.nonce
            entry.node = operation.member.node
            timeout_us = event.confirm_timeout_us
            deadline_us = at_us + (operation.confirm_timeout_us if timeout_us is None else timeout_us)
            self._move(event.id, entry, deadline_us)
        else:
            self._remove(event.id)
        return Delivery(
            event=event,
            receipt=Receipt(event.id, entry.number, operation.nonce),
            due_us=due_us,
            at_us=at_us,
            num_retries=num_retries,
            deadline_us=deadline_us,
        )

    def _peek(self, operation: op.Peek) -> Pending | None:
        """R1."""
        entry = self._live.get(operation.id)
        return None if entry is None else _pending(entry)

    def _upcoming(self, operation: op.Upcoming) -> Page:
        """R2."""
        start = operation.start
        if isinstance(start, Cursor):
            until_us = start.until_us
            first = bisect_right(self._queue, (start.after_us, start.after_id))
        else:
            from_us = None if start.offset_us is None else self._at_us + start.offset_us
            until_us = None
            if start.duration_us is not None:
                until_us = (self._at_us if from_us is None else from_us) + start.duration_us
            first = 0 if from_us is None else bisect_left(self._queue, (from_us, ""))
        end = len(self._queue) if until_us is None else bisect_right(self._queue, (until_us, _LAST_ID))
        items: list[Pending] = []
        num_bytes = 0
        place, last = first, (0, "")
        for next_us, id in self._queue[first : min(end, first + operation.limit)]:
            shown = _pending(self._live[id])
            if shown is not None:
                if items and num_bytes + shown.event.num_bytes > BATCH_MAX_BYTES:
                    break
                num_bytes += shown.event.num_bytes
                items.append(shown)
            place += 1
            last = (next_us, id)
        return Page(tuple(items), Cursor(*last, until_us) if first < place < end else None)

    def _join(self, operation: op.Join) -> JoinOutcome:
        """N1."""
        outcome = self._ring.join(operation.member, self._at_us)
        self._ring.expire(self._at_us)
        return outcome

    def _leave(self, operation: op.Leave) -> bool:
        """N1."""
        return self._ring.leave(operation.member)

    def _dead_letters(self, operation: op.ListDeadLetters) -> DeadLetterPage:
        return self._letters.page(operation.cursor, operation.limit, self._at_us)

    def _resend(self, operation: op.Resend) -> ResendOutcome:
        """E5."""
        letter = self._letters.find(operation.letter, self._at_us)
        if letter is None:
            return ResendOutcome.NOT_FOUND
        if letter.event is None:
            return ResendOutcome.UNREADABLE
        outcome = self._schedule(letter.event, operation.due, operation.if_exists)
        if outcome:
            self._letters.remove(letter)
        return ResendOutcome(outcome.value)

    def _discard(self, operation: op.Discard) -> tuple[DiscardOutcome, ...]:
        return tuple(self._discard_one(name) for name in operation.letters)

    def _discard_one(self, name: LetterName) -> DiscardOutcome:
        letter = self._letters.find(name, self._at_us)
        if letter is None:
            return DiscardOutcome.NOT_FOUND
        self._letters.remove(letter)
        return DiscardOutcome.DISCARDED

    def _inspect(self, _: op.Inspect) -> Inspection:
        return Inspection(
            live=len(self._live),
            delivered=sum(entry.number > 0 for entry in self._live.values()),
            dead_letters=self._letters.count(self._at_us),
            dead_letters_dropped=self._letters.dropped,
            head_us=self.head_us,
            arm=self._ring.arm,
            ring=self._ring.members(),
        )

    def _branches(self, _: op.ListBranches) -> tuple[Branch, ...]:
        """O2."""
        return self._servers.of(self._server, self.seq)

    # --- what they share ---------------------------------------------------------------------------

    def _tick(self) -> int:
        """A microsecond that nobody else was given (T4)."""
        self.last_us = max(self.last_us + 1, self._at_us)
        return self.last_us

    def _due(self, due: Due) -> int:
        """T5, T6: what lies in the past is due at once, and what is later than the store's time can be at its end."""
        now_us = self._tick()
        due_us = now_us + due.delay_us if isinstance(due, After) else due.due_us + self._skew_us
        return max(now_us, min(due_us, STORE_TIME_MAX_US))

    def _end(self, id: str, reason: EndReason) -> EndedEvent:
        """E5, P7: gone, or a dead letter."""
        entry = self._live[id]
        if entry.event.dead_letter:
            self._bury_entry(id, reason)
        else:
            self._remove(id)
        return EndedEvent(
            event=entry.event,
            reason=reason,
            delivery_number=entry.number,
            num_counted=entry.counted,
            dead_letter=entry.event.dead_letter,
        )

    def _bury_entry(self, id: str, reason: EndReason, detail: str = "") -> None:
        entry = self._live[id]
        self._remove(id)
        readable = isinstance(entry.record, EventData)
        self._letters.bury(
            DeadLetter(
                id=id,
                event=entry.event if readable else None,
                raw=entry.record if isinstance(entry.record, bytes) else b"",
                reason=reason,
                detail=detail,
                buried_us=self._tick(),
                due_us=entry.due_us,
                delivery_number=entry.number,
                num_counted=entry.counted,
                last_error=entry.error,
            ),
            self._at_us,
        )

    def _insert(self, id: str, entry: _Entry) -> None:
        self._live[id] = entry
        insort(self._queue, (entry.next_us, id))

    def _remove(self, id: str) -> _Entry | None:
        entry = self._live.pop(id, None)
        if entry is not None:
            del self._queue[bisect_left(self._queue, (entry.next_us, id))]
        return entry

    def _move(self, id: str, entry: _Entry, next_us: int) -> None:
        self._remove(id)
        entry.next_us = next_us
        self._insert(id, entry)


_LAST_ID = "\U0010ffff" * 2
"""Sorts after every id. Ids are compared as the bytes of their UTF-8, which is the order of their code points."""


def _pending(entry: _Entry) -> Pending | None:
    """A live event for people; a record that cannot be read has nothing to show."""
    if isinstance(entry.record, bytes):
        return None
    return Pending(
        event=entry.record,
        state=EventState.UNCONFIRMED if entry.nonce else EventState.SCHEDULED,
        next_us=entry.next_us,
        num_retries=entry.counted - 1 if entry.nonce else entry.counted,
        delivery_number=entry.number,
    )
