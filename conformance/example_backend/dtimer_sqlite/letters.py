"""Dead letters (E5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dtimer.protocol import (
    BATCH_MAX_BYTES,
    CLAIM_EXTRA_ENTRIES,
    DEAD_LETTER_AGE_US,
    DEAD_LETTERS_MAX,
    DeadLetter,
    DeadLetterCursor,
    DeadLetterPage,
    DiscardOutcome,
    Due,
    EndReason,
    IfExists,
    LetterName,
    NewEvent,
    PostOutcome,
    ResendOutcome,
)

from dtimer_sqlite.posting import post_one
from dtimer_sqlite.records import ERROR_COLUMNS, EVENT_COLUMNS, end, event_of, last_error_of, raw_of
from dtimer_sqlite.turn import Row, Turn

_KEPT: Final = f"number, due_us, {ERROR_COLUMNS}, {EVENT_COLUMNS}"
_BURY: Final = (
    f"INSERT INTO letters (ns, id, buried_us, reason, detail, last, counted, raw, {_KEPT}) "
    f"SELECT ns, id, ?, ?, ?, 1, ?, ?, {_KEPT} FROM events WHERE rowid = ?"
)


def bury(turn: Turn, row: Row, reason: EndReason, *, counted: int, detail: str = "") -> None:
    """Make a dead letter of a live event."""
    _clear_aged(turn)
    turn.db.execute("UPDATE letters SET last = 0 WHERE ns = ? AND id = ?", (turn.ns, row["id"]))
    raw = raw_of(row) if reason is EndReason.UNREADABLE else b""
    turn.db.execute(_BURY, (turn.stamp(), reason.value, detail, counted, raw, row["rowid"]))
    end(turn, row)
    (letters,) = turn.db.execute("SELECT count(*) FROM letters WHERE ns = ?", (turn.ns,)).fetchone()
    if letters > DEAD_LETTERS_MAX:
        turn.letters_dropped += turn.db.execute(
            "DELETE FROM letters WHERE rowid = (SELECT rowid FROM letters WHERE ns = ? ORDER BY buried_us LIMIT 1)",
            (turn.ns,),
        ).rowcount


def _oldest_us(turn: Turn) -> int:
    """When the oldest letter that still exists can have been buried."""
    return turn.at_us - DEAD_LETTER_AGE_US + 1


def _clear_aged(turn: Turn) -> None:
    turn.db.execute(
        "DELETE FROM letters WHERE rowid IN "
        "(SELECT rowid FROM letters WHERE ns = ? AND buried_us < ? ORDER BY buried_us, id LIMIT ?)",
        (turn.ns, _oldest_us(turn), CLAIM_EXTRA_ENTRIES),
    )


def count(turn: Turn) -> int:
    (letters,) = turn.db.execute(
        "SELECT count(*) FROM letters WHERE ns = ? AND buried_us >= ?", (turn.ns, _oldest_us(turn))
    ).fetchone()
    return int(letters)


def dead_letters(turn: Turn, cursor: DeadLetterCursor | None, limit: int) -> DeadLetterPage:
    after_us, after_id = (-1, "") if cursor is None else (cursor.after_us, cursor.after_id)
    rows = turn.db.execute(
        "SELECT * FROM letters WHERE ns = ? AND (buried_us, id) > (?, ?) AND buried_us >= ? "
        "ORDER BY buried_us, id LIMIT ?",
        (turn.ns, after_us, after_id, _oldest_us(turn), limit + 1),
    )
    items: list[DeadLetter] = []
    num_bytes = 0
    for row in rows:
        letter = _letter_of(row)
        num_bytes += letter.event.num_bytes if letter.event else len(letter.raw)
        if items and (len(items) == limit or num_bytes > BATCH_MAX_BYTES):
            return DeadLetterPage(tuple(items), DeadLetterCursor(items[-1].buried_us, items[-1].id))
        items.append(letter)
    return DeadLetterPage(tuple(items), None)


def _letter_of(row: Row) -> DeadLetter:
    return DeadLetter(
        id=row["id"],
        event=event_of(row),
        raw=row["raw"],
        reason=EndReason(row["reason"]),
        detail=row["detail"],
        buried_us=row["buried_us"],
        due_us=row["due_us"],
        delivery_number=row["number"],
        num_counted=row["counted"],
        last_error=last_error_of(row),
    )


def _found(turn: Turn, name: LetterName) -> Row | None:
    which, value = ("last", 1) if name.buried_us is None else ("buried_us", name.buried_us)
    row: Row | None = turn.db.execute(
        f"SELECT * FROM letters WHERE ns = ? AND id = ? AND buried_us >= ? AND {which} = ?",
        (turn.ns, name.id, _oldest_us(turn), value),
    ).fetchone()
    return row


def resend(turn: Turn, name: LetterName, due: Due, if_exists: IfExists) -> ResendOutcome:
    row = _found(turn, name)
    if row is None:
        return ResendOutcome.NOT_FOUND
    event = event_of(row)
    if event is None:
        return ResendOutcome.UNREADABLE
    outcome = post_one(turn, NewEvent(event, due, if_exists))
    if outcome in {PostOutcome.CREATED, PostOutcome.REPLACED}:
        turn.db.execute("DELETE FROM letters WHERE rowid = ?", (row["rowid"],))
    return ResendOutcome[outcome.name]


def discard(turn: Turn, names: Sequence[LetterName]) -> tuple[DiscardOutcome, ...]:
    return tuple(_discard_one(turn, name) for name in names)


def _discard_one(turn: Turn, name: LetterName) -> DiscardOutcome:
    row = _found(turn, name)
    if row is None:
        return DiscardOutcome.NOT_FOUND
    turn.db.execute("DELETE FROM letters WHERE rowid = ?", (row["rowid"],))
    return DiscardOutcome.DISCARDED
