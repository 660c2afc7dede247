"""The text around a payload: how an event is kept in Redis.

``1 field field ...\\n`` headers payload. A field is a letter and its value, and only what was asked for has one:
``r`` max_retries, ``c`` confirm timeout in us, ``x`` expires after in us, ``k`` kept, ``p`` retry policy
(``delay,factor,max``), ``m`` max_run in us, ``h`` length of the headers, ``w`` posted for a time of day (rule T6).
``lua/lib/records.lua`` reads the same.
The 1 is the schema's major version; unknown fields are kept and ignored (rule F7).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from dtimer.protocol.values import EventData, RetryPolicy

Fields: TypeAlias = tuple[int, int | None, int | None, bool, RetryPolicy | None, int | None, int]
"""max_retries, confirm_timeout_us, expires_after_us, dead_letter, retry, max_run_us, and the length of the headers."""


def write_record(event: EventData, *, wall: bool) -> bytes:
    """The bytes kept for an event; its id is their key.

    Args:
        wall: it is due at a time of day. The script that posts adds the skew, which it alone knows.
    """
    header = _write_fields(
        event.max_retries,
        event.confirm_timeout_us,
        event.expires_after_us,
        event.dead_letter,
        event.retry,
        event.max_run_us,
        len(event.headers),
        wall,
    )
    return header + event.headers + event.payload


@lru_cache(maxsize=256)
def _write_fields(  # noqa: PLR0917  # one for each field
    max_retries: int,
    confirm_timeout_us: int | None,
    expires_after_us: int | None,
    dead_letter: bool,
    retry: RetryPolicy | None,
    max_run_us: int | None,
    num_header_bytes: int,
    wall: bool,
) -> bytes:
    """A header with the end of its line: the same for many events."""
    fields = ["1"]
    if max_retries:
        fields.append(f"r{max_retries}")
    if confirm_timeout_us is not None:
        fields.append(f"c{confirm_timeout_us}")
    if expires_after_us is not None:
        fields.append(f"x{expires_after_us}")
    if dead_letter:
        fields.append("k")
    if retry is not None:
        fields.append(f"p{retry.delay_us},{retry.factor!r},{retry.delay_max_us}")
    if max_run_us is not None:
        fields.append(f"m{max_run_us}")
    if num_header_bytes:
        fields.append(f"h{num_header_bytes}")
    if wall:
        fields.append("w")
    return " ".join(fields).encode("ascii") + b"\n"


def read_record(id: str, record: bytes) -> EventData:
    """The event that was kept.

    Raises:
        ValueError: dtimer did not write this record. The scripts hand out none that they cannot read themselves.
    """
    header, newline, rest = record.partition(b"\n")
    max_retries, confirm_timeout_us, expires_after_us, dead_letter, retry, max_run_us, num_header_bytes = _read_fields(
        header
    )
    if not newline:
        raise ValueError(f"not a record of schema 1: {record[:40]!r}")
    return EventData(  # by position, in half the time
        id,
        rest[num_header_bytes:] if num_header_bytes else rest,
        rest[:num_header_bytes],
        max_retries,
        confirm_timeout_us,
        expires_after_us,
        dead_letter,
        retry,
        max_run_us,
    )


@lru_cache(maxsize=256)
def _read_fields(header: bytes) -> Fields:
    """What a header says, read once for all events that have the same."""
    version, *fields = header.decode("ascii").split(" ")
    if version != "1":
        raise ValueError(f"not a record of schema 1: {header[:40]!r}")
    found = {field[0]: field[1:] for field in fields if field}
    return (
        int(found.get("r", 0)),
        _optional(found.get("c")),
        _optional(found.get("x")),
        "k" in found,
        _policy(found.get("p")),
        _optional(found.get("m")),
        int(found.get("h", 0)),
    )


def _optional(value: str | None) -> int | None:
    return None if value is None else int(value)


def _policy(value: str | None) -> RetryPolicy | None:
    if value is None:
        return None
    delay_us, factor, delay_max_us = value.split(",")
    return RetryPolicy(int(delay_us), float(factor), int(delay_max_us))
