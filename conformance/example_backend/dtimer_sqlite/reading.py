"""What only looks (R1, R2)."""

from __future__ import annotations

from dtimer.protocol import BATCH_MAX_BYTES, Cursor, Inspection, Page, Pending, Window

from dtimer_sqlite import letters, ring
from dtimer_sqlite.records import event_of, live, pending_of
from dtimer_sqlite.turn import Row, Turn


def peek(turn: Turn, id: str) -> Pending | None:
    row = live(turn, id)
    event = None if row is None else event_of(row)
    return None if row is None or event is None else pending_of(row, event)


def upcoming(turn: Turn, start: Window | Cursor, limit: int) -> Page:
    cursor = start if isinstance(start, Cursor) else _begin(turn, start)
    rows = turn.db.execute(
        "SELECT * FROM events WHERE ns = ? AND (next_us, id) > (?, ?) AND (? IS NULL OR next_us <= ?) "
        "ORDER BY next_us, id LIMIT ?",
        (turn.ns, cursor.after_us, cursor.after_id, cursor.until_us, cursor.until_us, limit + 1),
    )
    items: list[Pending] = []
    last: Row | None = None
    num_bytes = 0
    for seen, row in enumerate(rows):
        event = event_of(row)
        num_bytes += 0 if event is None else event.num_bytes
        if last is not None and (seen == limit or (items and num_bytes > BATCH_MAX_BYTES)):
            return Page(tuple(items), Cursor(last["next_us"], last["id"], cursor.until_us))
        last = row
        if event is not None:
            items.append(pending_of(row, event))
    return Page(tuple(items), None)


def _begin(turn: Turn, window: Window) -> Cursor:
    """The place before the window's first entry. No id is empty, so the empty one stands before all of its time."""
    start_us = turn.at_us + (window.offset_us or 0)
    until_us = None if window.duration_us is None else start_us + window.duration_us
    return Cursor(-1 if window.offset_us is None else start_us, "", until_us)


def inspect(turn: Turn) -> Inspection:
    live_, delivered = turn.db.execute(
        "SELECT count(*), count(*) FILTER (WHERE number > 0) FROM events WHERE ns = ?", (turn.ns,)
    ).fetchone()
    return Inspection(
        live=live_,
        delivered=delivered,
        dead_letters=letters.count(turn),
        dead_letters_dropped=turn.letters_dropped,
        head_us=ring.head(turn),
        arm=turn.arm,
        ring=ring.members(turn),
    )
