"""Events as rows."""

from __future__ import annotations

import json
from typing import Final

from dtimer.protocol import EventData, EventState, Failure, LastError, Pending, RetryPolicy

from dtimer_sqlite.schema import SCHEMA
from dtimer_sqlite.turn import Row, Turn

EVENT_COLUMNS: Final = (
    "schema, max_retries, confirm_timeout_us, expires_after_us, dead_letter, "
    "retry_delay_us, retry_factor, retry_delay_max_us, max_run_us, headers, payload"
)
ERROR_COLUMNS: Final = "error_delivery, error_node, error_us, error_type, error_text"
ERROR_ASSIGNED: Final = ERROR_COLUMNS.replace(",", " = ?,") + " = ?"
EVENT_VALUES: Final = "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?"


def columns_of(event: EventData) -> tuple[object, ...]:
    """The values for `EVENT_COLUMNS`."""
    retry = event.retry
    return (
        SCHEMA,
        event.max_retries,
        event.confirm_timeout_us,
        event.expires_after_us,
        event.dead_letter,
        retry and retry.delay_us,
        retry and retry.factor,
        retry and retry.delay_max_us,
        event.max_run_us,
        event.headers,
        event.payload,
    )


def event_of(row: Row) -> EventData | None:
    """None if a later version wrote the record."""
    if row["schema"] != SCHEMA:
        return None
    retry = None
    if row["retry_delay_us"] is not None:
        retry = RetryPolicy(row["retry_delay_us"], row["retry_factor"], row["retry_delay_max_us"])
    return EventData(
        id=row["id"],
        payload=row["payload"],
        headers=row["headers"],
        max_retries=row["max_retries"],
        confirm_timeout_us=row["confirm_timeout_us"],
        expires_after_us=row["expires_after_us"],
        dead_letter=bool(row["dead_letter"]),
        retry=retry,
        max_run_us=row["max_run_us"],
    )


def raw_of(row: Row) -> bytes:
    """An unreadable row, for people."""
    words = {key: row[key].hex() if isinstance(row[key], bytes) else row[key] for key in row.keys()}  # noqa: SIM118
    return json.dumps(words).encode()


def pending_of(row: Row, event: EventData) -> Pending:
    unconfirmed = bool(row["unconfirmed"])
    return Pending(
        event=event,
        state=EventState.UNCONFIRMED if unconfirmed else EventState.SCHEDULED,
        next_us=row["next_us"],
        num_retries=row["counted"] - unconfirmed,
        delivery_number=row["number"],
    )


def live(turn: Turn, id: str) -> Row | None:
    """The live event with this id."""
    row: Row | None = turn.db.execute("SELECT * FROM events WHERE ns = ? AND id = ?", (turn.ns, id)).fetchone()
    return row


def end(turn: Turn, row: Row) -> None:
    """The event is live no more."""
    turn.db.execute("DELETE FROM events WHERE rowid = ?", (row["rowid"],))


def failed(turn: Turn, row: Row, at_us: int, failure: Failure | None) -> Row:
    """Keep what is known of the newest delivery (E5); the row as it is now."""
    error = (row["number"], row["node"], at_us, failure and failure.type, failure and failure.text)
    turn.db.execute(f"UPDATE events SET {ERROR_ASSIGNED} WHERE rowid = ?", (*error, row["rowid"]))
    changed: Row = turn.db.execute("SELECT * FROM events WHERE rowid = ?", (row["rowid"],)).fetchone()
    return changed


def missed(turn: Turn, row: Row) -> Row:
    """Its deadline has passed, and it is claimed: if nothing was told of the delivery, that is its error."""
    if row["unconfirmed"] and (row["error_delivery"] or 0) < row["number"]:
        return failed(turn, row, row["next_us"], None)
    return row


def last_error_of(row: Row) -> LastError | None:
    if row["error_delivery"] is None:
        return None
    failure = None if row["error_type"] is None else Failure(row["error_type"], row["error_text"])
    return LastError(
        delivery_number=row["error_delivery"], node=row["error_node"], at_us=row["error_us"], failure=failure
    )
