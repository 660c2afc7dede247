"""The text around a payload: how an event is kept in Redis.

``1 field field ...\\n`` headers payload. A field is a letter and its value, and only what was asked for has one:
``r`` max_retries, ``c`` confirm timeout in us, ``x`` expires after in us, ``k`` kept, ``p`` retry policy
(``delay,factor,max``), ``n`` nonce, ``h`` length of the headers. ``lua/lib/records.lua`` reads the same.
The 1 is the schema's major version; unknown fields are kept and ignored (rule F7).
"""

from __future__ import annotations

from dtimer.values import EventData, RetryPolicy


def write_record(event: EventData) -> bytes:
    """The bytes kept for an event; its id is their key."""
    fields = ["1"]
    if event.max_retries:
        fields.append(f"r{event.max_retries}")
    if event.confirm_timeout_us is not None:
        fields.append(f"c{event.confirm_timeout_us}")
    if event.expires_after_us is not None:
        fields.append(f"x{event.expires_after_us}")
    if event.keep:
        fields.append("k")
    if event.retry is not None:
        fields.append(f"p{event.retry.delay_us},{event.retry.factor!r},{event.retry.delay_max_us}")
    if event.nonce:
        fields.append(f"n{event.nonce}")
    if event.headers:
        fields.append(f"h{len(event.headers)}")
    return b"%s\n%s%s" % (" ".join(fields).encode("ascii"), event.headers, event.payload)


def read_record(id: str, record: bytes) -> EventData:
    """The event that was kept.

    Raises:
        ValueError: dtimer did not write this record. The scripts hand out none that they cannot read themselves.
    """
    header, newline, rest = record.partition(b"\n")
    version, *fields = header.decode("ascii").split(" ")
    if not newline or version != "1":
        raise ValueError(f"not a record of schema 1: {record[:40]!r}")
    found = {field[0]: field[1:] for field in fields if field}
    num_header_bytes = int(found.get("h", 0))
    return EventData(
        id=id,
        payload=rest[num_header_bytes:],
        headers=rest[:num_header_bytes],
        max_retries=int(found.get("r", 0)),
        confirm_timeout_us=_optional(found.get("c")),
        expires_after_us=_optional(found.get("x")),
        keep="k" in found,
        retry=_policy(found.get("p")),
        nonce=found.get("n", ""),
    )


def _optional(value: str | None) -> int | None:
    return None if value is None else int(value)


def _policy(value: str | None) -> RetryPolicy | None:
    if value is None:
        return None
    delay_us, factor, delay_max_us = value.split(",")
    return RetryPolicy(int(delay_us), float(factor), int(delay_max_us))
