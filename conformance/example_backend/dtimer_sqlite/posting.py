"""Posting, cancelling and moving (P3, P5, E2, E3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dtimer.protocol import CancelOutcome, ChangeOutcome, IfExists, NewEvent, PostOutcome

from dtimer_sqlite.records import EVENT_COLUMNS, EVENT_VALUES, columns_of, end, live
from dtimer_sqlite.turn import Turn

_INSERT: Final = (
    "INSERT INTO events (ns, id, next_us, unconfirmed, number, counted, claim, node, due_us, "
    f"{EVENT_COLUMNS}) VALUES (?, ?, ?, 0, 0, 0, '', '', ?, {EVENT_VALUES})"
)


def post(turn: Turn, events: Sequence[NewEvent]) -> tuple[PostOutcome, ...]:
    return tuple(post_one(turn, new) for new in events)


def post_one(turn: Turn, new: NewEvent) -> PostOutcome:
    event = new.event
    old = live(turn, event.id)
    if old is not None:
        if new.if_exists is not IfExists.REPLACE:
            return PostOutcome.KEPT if new.if_exists is IfExists.KEEP else PostOutcome.CONFLICT
        end(turn, old)
    due_us = turn.due(turn.stamp(), new.due)
    turn.db.execute(_INSERT, (turn.ns, event.id, due_us, due_us, *columns_of(event)))
    return PostOutcome.CREATED if old is None else PostOutcome.REPLACED


def cancel(turn: Turn, ids: Sequence[str]) -> tuple[CancelOutcome, ...]:
    return tuple(_cancel_one(turn, id) for id in ids)


def _cancel_one(turn: Turn, id: str) -> CancelOutcome:
    row = live(turn, id)
    if row is None:
        return CancelOutcome.NOT_FOUND
    end(turn, row)
    return CancelOutcome.STOPPED if row["unconfirmed"] else CancelOutcome.CANCELLED


def change_delay(turn: Turn, id: str, delay_us: int) -> ChangeOutcome:
    row = live(turn, id)
    if row is None:
        return ChangeOutcome.NOT_FOUND
    if row["unconfirmed"]:
        return ChangeOutcome.UNCONFIRMED
    due_us = turn.stamp() + max(delay_us, 0)
    turn.db.execute(
        "UPDATE events SET next_us = ?, due_us = ? WHERE rowid = ?",
        (due_us, due_us, row["rowid"]),
    )
    return ChangeOutcome.MOVED
