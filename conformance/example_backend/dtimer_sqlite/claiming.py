"""The claim, in the order of ``docs/reference/protocol.md`` (D1 to D6)."""

from __future__ import annotations

from attrs import define, field
from dtimer.protocol import (
    BATCH_MAX_BYTES,
    CLAIM_EXTRA_ENTRIES,
    UNARMED_OVERDUE_US,
    Claimed,
    ClaimStatus,
    Delivery,
    EndedEvent,
    EndReason,
    EventData,
    Parked,
    Receipt,
    Unreadable,
)
from dtimer.protocol import operations as op

from dtimer_sqlite import letters, ring
from dtimer_sqlite.receipts import confirm, extend
from dtimer_sqlite.records import end, event_of, missed, raw_of
from dtimer_sqlite.turn import Row, Turn


def claim(turn: Turn, asked: op.Claim) -> Claimed:
    """All steps but the settling of the ring when the member may not claim, which is as after any operation."""
    member = asked.member
    confirmed = confirm(turn, asked.confirming)
    extended = extend(turn, asked.extending)
    status = ring.status(turn, member)
    if status is not ClaimStatus.JOINED:
        ring.settle(turn)
        return Claimed(status=status, confirmed=confirmed, extended=extended)
    ring.greet(turn, member)
    armed = turn.arm is None or turn.arm.node == member.node
    horizon_us = turn.at_us if armed else turn.at_us - UNARMED_OVERDUE_US
    taking = _Taking(turn, member.node, asked.confirm_timeout_us, asked.nonce)
    taking.take(horizon_us, asked.room)
    if taking.deliveries:
        ring.move_to_end(turn, member.node)
    if len(taking.deliveries) >= asked.room:
        ring.park(turn, member.node, Parked.FULL)
    ring.settle(turn, claimer=member.node)
    if asked.pulse:
        turn.pulse(member.node)
    return Claimed(
        status=status,
        confirmed=confirmed,
        extended=extended,
        deliveries=tuple(taking.deliveries),
        ended=tuple(taking.ended),
        unreadable=tuple(taking.unreadable),
        more=taking.more,
        come_at_us=turn.arm.due_us if turn.arm is not None and turn.arm.node == member.node else None,
    )


@define
class _Taking:
    """What a claim brings."""

    _turn: Turn
    _node: str
    _confirm_timeout_us: int
    _nonce: str
    deliveries: list[Delivery] = field(factory=list)
    ended: list[EndedEvent] = field(factory=list)
    unreadable: list[Unreadable] = field(factory=list)
    more: bool = False
    _num_bytes: int = 0

    def take(self, horizon_us: int, room: int) -> None:
        """Go through the queue up to the horizon, until what comes next has no room or a limit is met (D5)."""
        entries = self._turn.db.execute(
            "SELECT rowid, length(headers) + length(payload) FROM events WHERE ns = ? AND next_us <= ? "
            "ORDER BY next_us, id LIMIT ?",
            (self._turn.ns, horizon_us, room + CLAIM_EXTRA_ENTRIES + 1),
        ).fetchall()
        for rowid, num_bytes in entries:
            row = self._turn.db.execute("SELECT * FROM events WHERE rowid = ?", (rowid,)).fetchone()
            event = event_of(row)
            why = self._why_not(row, event)
            cleared = len(self.ended) + len(self.unreadable)
            full = len(self.deliveries) >= room if why is None else cleared >= CLAIM_EXTRA_ENTRIES
            too_large = event is not None and bool(self._num_bytes) and self._num_bytes + num_bytes > BATCH_MAX_BYTES
            if full or too_large:
                self.more = True
                return
            if event is None:
                self.unreadable.append(Unreadable(row["id"], raw_of(row)))
                letters.bury(self._turn, row, EndReason.UNREADABLE, counted=row["counted"])
                continue
            self._num_bytes += num_bytes
            row = missed(self._turn, row)
            if why is None:
                self._deliver(row, event)
            else:
                self._end(row, event, why)

    def _why_not(self, row: Row, event: EventData | None) -> EndReason | None:
        """Why the entry cannot be delivered; None if it can."""
        if event is None:
            return EndReason.UNREADABLE
        if row["unconfirmed"] and row["counted"] > event.max_retries:
            return EndReason.EXHAUSTED
        if event.expires_after_us is not None and self._turn.at_us > row["due_us"] + event.expires_after_us:
            return EndReason.EXPIRED
        return None

    def _end(self, row: Row, event: EventData, why: EndReason) -> None:
        self.ended.append(
            EndedEvent(
                event=event,
                reason=why,
                delivery_number=row["number"],
                num_counted=row["counted"],
                dead_letter=event.dead_letter,
            )
        )
        if event.dead_letter:
            letters.bury(self._turn, row, why, counted=row["counted"])
        else:
            end(self._turn, row)

    def _deliver(self, row: Row, event: EventData) -> None:
        at_us = self._turn.stamp()
        number = row["number"] + 1
        deadline_us = None
        if event.requires_confirm:
            timeout_us = event.confirm_timeout_us
            deadline_us = at_us + (self._confirm_timeout_us if timeout_us is None else timeout_us)
            self._turn.db.execute(
                "UPDATE events SET unconfirmed = 1, number = ?, counted = ?, claim = ?, node = ?, next_us = ? "
                "WHERE rowid = ?",
                (number, row["counted"] + 1, self._nonce, self._node, deadline_us, row["rowid"]),
            )
        else:
            end(self._turn, row)
        self.deliveries.append(
            Delivery(
                event=event,
                receipt=Receipt(event.id, number, self._nonce),
                due_us=row["next_us"],
                at_us=at_us,
                num_retries=row["counted"],
                deadline_us=deadline_us,
            )
        )
