"""The text around a payload: how an event is kept in Redis.

``1 field field ...\\n`` headers payload. A field is a letter and its value, and only what was asked for has one:
those of :data:`dtimer.protocol.EVENT_FIELDS` (a retry policy is ``delay,factor,max``), ``h`` length of the headers,
``w`` posted for a time of day (rule T6).
``lua/lib/records.lua`` reads them, too.
The 1 is the schema's major version; unknown fields are kept and ignored (rule F7).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from dtimer.protocol.values import EVENT_FIELDS, EventData, FieldKind, RetryPolicy

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
