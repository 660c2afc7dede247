"""A difference between a backend and the rules, in words: where in the reply it is, and which rule says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, Final, cast

import attrs

from dtimer.protocol import operations as op
from dtimer.protocol.values import Applied, EndReason
from dtimer_conformance.history import Record
from dtimer_conformance.replay import Difference

SHOWN_MAX: Final = 12
"""Operations before the difference; whoever needs more than that has not shrunk the history."""
PLACES_MAX: Final = 6
LINE_MAX_CHARS: Final = 320
TEXT_MAX_CHARS: Final = 40

_BY_METHOD: Final = {
    "open": "O1",
    "post": "P3",
    "cancel": "E2",
    "change_delay": "E3",
    "claim": "D1",
    "confirm": "E1",
    "confirm_newest": "E1",
    "release": "E4",
    "extend": "E4",
    "bury": "F4",
    "peek": "R1",
    "upcoming": "R2",
    "join": "N1",
    "leave": "N1",
    "dead_letters": "E5",
    "resend": "E5",
    "discard": "E5",
    "inspect": "W2",
}
_BY_PLACE: Final = (
    ("announced", "W2"),
    ("epoch", "O1"),
    ("seq", "O1"),
    ("at_us", "T1"),
    ("skew_us", "T2"),
    ("value.status", "N1"),
    ("value.confirmed", "E1"),
    ("value.extended", "E4"),
    ("value.more", "D5"),
    ("value.come_at_us", "W4"),
    ("value.ended", "E5"),
    ("value.unreadable", "F4"),
)
_BY_FIELD: Final = {
    "payload": "P4",
    "headers": "P4",
    "num_retries": "D2",
    "num_counted": "D2",
    "number": "D2",
    "deadline_us": "D4",
    "due_us": "T4",
    "next_us": "T4",
    "at_us": "T4",
}


def differences(expected: object, got: object, place: str = "") -> Iterator[tuple[str, object, object]]:
    """The smallest parts in which two values differ: place, expected, got."""
    if expected == got:
        return
    kind: type[Any] = type(expected)
    if kind is type(got) and attrs.has(kind):
        for name in (field.name for field in attrs.fields(kind)):
            yield from differences(getattr(expected, name), getattr(got, name), f"{place}.{name}".lstrip("."))
    elif is_tuple(expected) and is_tuple(got) and len(items(expected)) == len(items(got)):
        for index, (should, does) in enumerate(zip(items(expected), items(got), strict=True)):
            yield from differences(should, does, f"{place}[{index}]")
    else:
        yield place, expected, got


def is_tuple(value: object) -> bool:
    return isinstance(value, tuple)


def items(value: object) -> tuple[object, ...]:
    """Of a tuple; whatever else there is in its place has none."""
    return cast("tuple[object, ...]", value) if isinstance(value, tuple) else ()


def explained(difference: Difference) -> tuple[str, str]:
    """The rule that a difference breaks, and what to say about it."""
    record, expected = difference.record, difference.expected
    parts = list(differences(attrs.evolve(expected, skew_us=record.reply.skew_us), record.reply))
    lines = [f"{record.operation.method} answered what the rules do not say", f"  asked for {brief(record.operation)}"]
    for place, should, does in parts[:PLACES_MAX]:
        lines += [f"  {place}", f"    expected {cut(should)}", f"         got {cut(does)}"]
    if len(parts) > PLACES_MAX:
        lines.append(f"  and {len(parts) - PLACES_MAX} more places")
    return _rule(record.operation, *parts[0]), "\n".join(lines)


def _rule(operation: op.Operation[Any], place: str, expected: object, got: object) -> str:
    """The likeliest one: a reply shows what was done wrong, and not always by whom."""
    for prefix, rule in _BY_PLACE:
        if place.startswith(prefix):
            expired = any(
                getattr(ended, "reason", None) is EndReason.EXPIRED for ended in (*items(expected), *items(got))
            )
            return "P7" if expired else rule
    field = place.rpartition(".")[2]
    if field in _BY_FIELD:
        return _BY_FIELD[field]
    if isinstance(operation, op.Claim) and is_tuple(expected):
        return _rule_of_claim(items(expected), items(got))
    return _BY_METHOD[operation.method]


def _rule_of_claim(expected: tuple[Any, ...], got: tuple[Any, ...]) -> str:
    names = [[getattr(getattr(item, "event", None), "id", "") for item in items] for items in (expected, got)]
    if sorted(names[0]) == sorted(names[1]):
        return "T4"
    return "D1" if set(names[1]) - set(names[0]) else "D7"


def lines_of(records: Sequence[Record], *, shown_max: int = SHOWN_MAX) -> tuple[str, ...]:
    """The newest of a history, one a line."""
    left_out = len(records) - shown_max
    lines = [line(record) for record in records[-shown_max:]]
    return (f"  ({left_out} before these)", *lines) if left_out > 0 else tuple(lines)


def line(record: Record) -> str:
    reply: Applied[Any] = record.reply
    said = "".join(
        f" [{told.node} told of {told.due_us}{'' if told.reached else ', unheard'}]" for told in reply.announced
    )
    return f"  {reply.seq:4} {reply.at_us:16} {cut(record.operation)} -> {cut(reply.value)}{said}"


def brief(value: object) -> str:
    """A value as short as it can be read: of its fields only those that say more than their defaults."""
    if isinstance(value, Enum):
        return value.name
    if is_tuple(value):
        return f"({', '.join(brief(item) for item in items(value))})"
    if isinstance(value, bytes | str) and len(value) > TEXT_MAX_CHARS:
        return f"{value[:TEXT_MAX_CHARS]!r}... ({len(value)} in all)"
    kind: type[Any] = type(value)
    if not attrs.has(kind):
        return repr(value)
    parts = [
        f"{field.name}={brief(found)}"
        for field in attrs.fields(kind)
        if (found := getattr(value, field.name)) != field.default and found is not None and found != ()
    ]
    return f"{kind.__name__}({', '.join(parts)})"


def cut(value: object) -> str:
    text = brief(value)
    return text if len(text) <= LINE_MAX_CHARS else f"{text[:LINE_MAX_CHARS]}..."
