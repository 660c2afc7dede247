"""Values as the scripts have them: what is kept of an event, and what they reply.

A record is the text around a payload: ``1 field field ...\\n`` headers payload. A field is a letter and its value, and
only what was asked for has one: those of :data:`dtimer.protocol.EVENT_FIELDS` (a retry policy is ``delay,factor,max``),
``h`` length of the headers, ``w`` posted for a time of day (rule T6). ``lua/lib/records.lua`` reads them, too.
The 1 is the schema's major version; unknown fields are kept and ignored (rule F7).

Each reader of a reply takes what the header of its script says it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

from redis.exceptions import InvalidResponse

from dtimer.backends.redis.wire.resp import Reply, as_bytes, as_int, as_list, shown
from dtimer.errors import OutcomeUnknown
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
    EVENT_FIELDS,
    Announcement,
    Applied,
    Arm,
    Branch,
    Claimed,
    Cursor,
    DeadLetter,
    DeadLetterCursor,
    DeadLetterPage,
    Delivery,
    EndedEvent,
    EndReason,
    EventData,
    EventState,
    Failure,
    FieldKind,
    Inspection,
    LastError,
    Page,
    Parked,
    Pending,
    Receipt,
    RetryPolicy,
    RingMember,
    Unreadable,
)

T = TypeVar("T")

WHOLE_LETTERS: Final = "".join(field.letter for field in EVENT_FIELDS if field.kind is FieldKind.WHOLE) + "h"
"""Those of the fields of a record that are whole numbers."""


def _write_retry(policy: RetryPolicy) -> str:
    return f"{policy.delay_us},{policy.factor!r},{policy.delay_max_us}"


def _read_retry(text: str) -> RetryPolicy:
    delay_us, factor, delay_max_us = text.split(",")
    return RetryPolicy(int(delay_us), float(factor), int(delay_max_us))


_WRITE: Final[dict[FieldKind, Callable[[Any], str]]] = {
    FieldKind.WHOLE: str,
    FieldKind.FLAG: lambda _: "",
    FieldKind.RETRY: _write_retry,
}
_READ: Final[dict[FieldKind, Callable[[str], object]]] = {
    FieldKind.WHOLE: int,
    FieldKind.FLAG: lambda _: True,
    FieldKind.RETRY: _read_retry,
}


def write_record(event: EventData, *, wall: bool) -> bytes:
    """The bytes kept for an event; its id is their key.

    Args:
        wall: it is due at a time of day. The script that posts adds the skew, which it alone knows.
    """
    return _header_of(event, wall) + event.headers + event.payload


@lru_cache(maxsize=256)
def _header(num_header_bytes: int, wall: bool, *values: object) -> bytes:
    """A header with the end of its line: the same for many events."""
    words = ["1"]
    for field, value in zip(EVENT_FIELDS, values, strict=True):
        if value != field.default:
            words.append(field.letter + _WRITE[field.kind](value))
    if num_header_bytes:
        words.append(f"h{num_header_bytes}")
    if wall:
        words.append("w")
    return " ".join(words).encode("ascii") + b"\n"


_VALUES: Final = ", ".join(f"event.{field.name}" for field in EVENT_FIELDS)
_header_of: Final[Callable[[EventData, bool], bytes]] = eval(  # with the names written out, in two thirds of the time
    f"lambda event, wall: _header(len(event.headers), wall, {_VALUES})", {"_header": _header}
)


def read_record(id: str, record: bytes) -> EventData:
    """The event that was kept.

    Raises:
        ValueError: dtimer did not write this record. The scripts hand out none that they cannot read themselves.
    """
    header, newline, rest = record.partition(b"\n")
    values, num_header_bytes = _read_header(header)
    if not newline:
        raise ValueError(f"not a record of schema 1: {record[:40]!r}")
    payload = rest[num_header_bytes:] if num_header_bytes else rest
    return EventData(id, payload, rest[:num_header_bytes], *values)  # by position, in half the time


@lru_cache(maxsize=256)
def _read_header(header: bytes) -> tuple[tuple[Any, ...], int]:
    """What a header says, and the length of the headers; read once for all events that have the same."""
    version, *words = header.decode("ascii").split(" ")
    if version != "1":
        raise ValueError(f"not a record of schema 1: {header[:40]!r}")
    found = {word[0]: word[1:] for word in words if word}
    values = tuple(
        _READ[field.kind](found[field.letter]) if field.letter in found else field.default for field in EVENT_FIELDS
    )
    return values, int(found.get("h", 0))


# --- replies ---------------------------------------------------------------------------------------------

# The scripts answer an outcome with its place in these, counted from 1.
POST: Final = (
    PostOutcome.CREATED,
    PostOutcome.REPLACED,
    PostOutcome.KEPT,
    PostOutcome.CONFLICT,
)
CANCEL: Final = (CancelOutcome.CANCELLED, CancelOutcome.STOPPED, CancelOutcome.NOT_FOUND)
CHANGE: Final = (ChangeOutcome.MOVED, ChangeOutcome.UNCONFIRMED, ChangeOutcome.NOT_FOUND)
CONFIRM: Final = (ConfirmOutcome.CONFIRMED, ConfirmOutcome.STALE, ConfirmOutcome.NOT_FOUND)
RELEASE: Final = (
    ReleaseOutcome.RELEASED,
    ReleaseOutcome.STALE,
    ReleaseOutcome.NOT_FOUND,
    ReleaseOutcome.EXHAUSTED,
    ReleaseOutcome.BURIED,
)
EXTEND: Final = (ExtendOutcome.EXTENDED, ExtendOutcome.STALE, ExtendOutcome.NOT_FOUND)
BURY: Final = (BuryOutcome.BURIED, BuryOutcome.STALE, BuryOutcome.NOT_FOUND)
RESEND: Final = (
    ResendOutcome.CREATED,
    ResendOutcome.REPLACED,
    ResendOutcome.KEPT,
    ResendOutcome.CONFLICT,
    ResendOutcome.NOT_FOUND,
    ResendOutcome.UNREADABLE,
)
DISCARD: Final = (DiscardOutcome.DISCARDED, DiscardOutcome.NOT_FOUND)
JOIN: Final = (JoinOutcome.JOINED, JoinOutcome.ALREADY_JOINED, JoinOutcome.FENCED, JoinOutcome.TOOK_OVER)
_STATUS: Final = (ClaimStatus.JOINED, ClaimStatus.NOT_JOINED, ClaimStatus.FENCED)


def applied(operation: str, reply: Reply, read: Callable[[Reply], T]) -> Applied[T]:
    """The place in history that every reply carries, around its value (rule O1).

    Raises:
        OutcomeUnknown: this cannot be a reply to the operation, so what the server did is not known.
    """
    try:
        place, value = as_list(reply)
        epoch, seq, at_us, skew_us, branch, *told = _text(place).split(" ")
        announced = _announced(told) if told else ()
        return Applied(epoch, int(seq), int(at_us), read(value), announced, int(skew_us), branch)
    except (InvalidResponse, ValueError, LookupError, TypeError, ArithmeticError) as error:
        problem = f"the server's reply is not dtimer's, but begins with {shown(reply)}"
        raise OutcomeUnknown(operation, problem) from error


def _announced(told: Sequence[str]) -> tuple[Announcement, ...]:
    parts = zip(told[::3], told[1::3], told[2::3], strict=True)
    return tuple(Announcement(node, int(due_us), heard == "1") for node, due_us, heard in parts)


def nothing(_: Reply) -> None:
    return None


def truth(reply: Reply) -> bool:
    return as_int(reply) == 1


def one_of(outcomes: tuple[T, ...]) -> Callable[[Reply], T]:
    by_number = dict(enumerate(outcomes, 1))
    return lambda reply: by_number[as_int(reply)]


def each_of(outcomes: tuple[T, ...]) -> Callable[[Reply], tuple[T, ...]]:
    by_digit = {ord(str(place)): outcome for place, outcome in enumerate(outcomes, 1)}
    return lambda reply: tuple([by_digit[digit] for digit in as_bytes(reply)])


_confirmed = each_of(CONFIRM)
_extended = each_of(EXTEND)


def claimed(nonce: str) -> Callable[[Reply], Claimed]:
    """The reply of a claim that gave its deliveries this nonce."""

    def read(reply: Reply) -> Claimed:
        status, confirmed, deliveries, ended, unreadable, more, come_at_us, *extended = as_list(reply)
        return Claimed(
            status=_STATUS[as_int(status) - 1],
            confirmed=_confirmed(confirmed),
            extended=_extended(extended[0]) if extended else (),
            deliveries=_deliveries(as_bytes(deliveries), nonce),
            ended=tuple(_ended(row) for row in _rows(ended, 6)),
            unreadable=tuple(Unreadable(_id(id), as_bytes(raw)) for id, raw in _rows(unreadable, 2)),
            more=more == 1,
            come_at_us=None if come_at_us is None else as_int(come_at_us),
        )

    return read


def _deliveries(text: bytes, nonce: str) -> tuple[Delivery, ...]:
    deliveries: list[Delivery] = []
    place, end = 0, len(text)
    while place < end:
        start = text.index(b"\n", place) + 1
        id_length, length, number, num_retries, due_us, at_us, deadline_us = map(int, text[place:start].split())
        record_start = start + id_length
        place = record_start + length
        id = _id(text[start:record_start])
        deliveries.append(
            Delivery(  # by position, as above
                read_record(id, text[record_start:place]),
                Receipt(id, number, nonce),
                due_us,
                at_us,
                num_retries,
                deadline_us or None,
            )
        )
    return tuple(deliveries)


def _ended(row: list[Reply]) -> EndedEvent:
    id, record, reason, number, counted, dead_letter = row
    return EndedEvent(
        event=read_record(_id(id), as_bytes(record)),
        reason=EndReason(_text(reason)),
        delivery_number=as_int(number),
        num_counted=as_int(counted),
        dead_letter=dead_letter == 1,
    )


def peeked(id: str) -> Callable[[Reply], Pending | None]:
    def read(reply: Reply) -> Pending | None:
        return None if reply is None else _pending(id, as_list(reply))

    return read


def _pending(id: str, row: list[Reply]) -> Pending:
    record, next_us, number, counted, unconfirmed = row
    return Pending(
        event=read_record(id, as_bytes(record)),
        state=EventState.UNCONFIRMED if unconfirmed else EventState.SCHEDULED,
        next_us=as_int(next_us),
        num_retries=as_int(counted) - as_int(unconfirmed),
        delivery_number=as_int(number),
    )


def page(reply: Reply) -> Page:
    rows, ended = as_list(reply)
    items = tuple(_pending(_id(id), row) for id, *row in _rows(rows, 6))
    if ended is None:
        return Page(items, None)
    after_us, after_id, until_us = as_list(ended)
    return Page(items, Cursor(as_int(after_us), _id(after_id), None if until_us is None else as_int(until_us)))


def dead_letter_page(reply: Reply) -> DeadLetterPage:
    rows, ended = as_list(reply)
    items = tuple(_dead_letter(_id(id), as_bytes(letter)) for id, letter in _rows(rows, 2))
    if ended is None:
        return DeadLetterPage(items, None)
    after_us, after_id = as_list(ended)
    return DeadLetterPage(items, DeadLetterCursor(as_int(after_us), _id(after_id)))


def _dead_letter(id: str, letter: bytes) -> DeadLetter:
    header, _, rest = letter.partition(b"\n")
    buried_us, reason, num_counted, detail_length, number, due_us, error_length = header.decode("ascii").split(" ")
    error_start = int(detail_length)
    record_start = error_start + int(error_length)
    detail, error, record = rest[:error_start], rest[error_start:record_start], rest[record_start:]
    event: EventData | None = None
    if reason != EndReason.UNREADABLE.value:
        event = read_record(id, record)
    return DeadLetter(
        id=id,
        event=event,
        raw=record if event is None else b"",
        reason=EndReason(reason),
        detail=detail.decode(errors="replace"),
        buried_us=int(buried_us),
        due_us=int(due_us),
        delivery_number=int(number),
        num_counted=int(num_counted),
        last_error=_last_error(error),
    )


def _last_error(error: bytes) -> LastError | None:
    """What is kept in a state or a letter of what went wrong; see lua/lib/records.lua."""
    if not error:
        return None
    header, _, words = error.partition(b"\n")
    at_us, delivery, node, length = header.decode("ascii").split(" ")
    failure: Failure | None = None
    if (split := int(length)) >= 0:
        failure = Failure(words[:split].decode(errors="replace"), words[split:].decode(errors="replace"))
    return LastError(delivery_number=int(delivery), node=node, at_us=int(at_us), failure=failure)


def branches(reply: Reply) -> tuple[Branch, ...]:
    words = _text(reply).split()
    return tuple(Branch(server, int(seq)) for server, seq in zip(words[::2], words[1::2], strict=True))


def inspection(reply: Reply) -> Inspection:
    live, delivered, dead_letters, dropped, head_us, arm, nodes = as_list(reply)
    members: list[tuple[int, RingMember]] = []
    for node, info, expires_us in _rows(nodes, 3):
        try:
            incarnation, position, _, parked = _text(info).split(" ")
            member = RingMember(_text(node), incarnation, None if parked == "-" else Parked(parked), as_int(expires_us))
            members.append((int(position), member))
        except ValueError:
            continue  # another program wrote it; the ring passes it over, too
    armed: Arm | None = None
    if arm is not None:
        node, due_us, at_us = as_list(arm)
        armed = Arm(_text(node), as_int(due_us), as_int(at_us))
    return Inspection(
        live=as_int(live),
        delivered=as_int(delivered),
        dead_letters=as_int(dead_letters),
        dead_letters_dropped=as_int(dropped),
        head_us=None if head_us is None else as_int(head_us),
        arm=armed,
        ring=tuple(member for _, member in sorted(members, key=lambda pair: pair[0])),
    )


# --- parts of a reply ------------------------------------------------------------------------------------


def _text(reply: Reply) -> str:
    return as_bytes(reply).decode("ascii")


def _id(reply: Reply) -> str:
    # One that another program put there need not be UTF-8; it must not harm its neighbours.
    return as_bytes(reply).decode("utf-8", "surrogateescape")


def _rows(reply: Reply, width: int) -> Iterator[list[Reply]]:
    flat = as_list(reply)
    return (flat[start : start + width] for start in range(0, len(flat), width))
