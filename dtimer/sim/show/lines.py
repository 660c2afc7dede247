"""A run as lines of text, aligned by virtual time and by who did what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from dtimer.sim.faulty.observer import Field
from dtimer.sim.faulty.trace import Record

CLOCK_WIDTH: Final = 16
"""Of a moment in the first day."""
_QUIET: Final = frozenset({"reply", "pulse", "call"})
"""Of every call the store's record tells enough, as long as all goes well."""
_MEMBERS: Final = frozenset({"join", "leave"})
"""They are about who calls."""
_MARKS: Final = dict.fromkeys(("fault", "fault_end", "healed", "down", "up"), "*") | {"violation": "!"}


def lines(records: Iterable[Record], *, everything: bool = False) -> Iterator[str]:
    """One line a record: seconds since the start, a mark (``*`` for faults, ``!`` for violations), who, what.

    Args:
        everything: the calls, replies and claims that found nothing, too.
    """
    shown = [record for record in records if everything or _matters(record)]
    who_width = max((len(str(record["who"])) for record in shown), default=0)
    width = max(CLOCK_WIDTH, *(len(clock(_number(record["t"]))) for record in shown[-1:]), 0)
    for record in shown:
        first = record["what"] == "up" and record.get("incarnation") == 1
        mark = " " if first else _MARKS.get(str(record["what"]), " ")
        when = clock(_number(record["t"]))
        yield f"{when:>{width}} {mark} {record['who']!s:{who_width}}  {describe(record)}".rstrip()


def clock(time_us: int) -> str:
    """A moment of virtual time, in full: ``2d 03:04:05.678901``."""
    seconds, us = divmod(time_us, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    if day:
        return f"{day}d {hour:02}:{minute:02}:{second:02}.{us:06}"
    return f"{hour:02}:{minute:02}:{second:02}.{us:06}" if hour else f"{minute:02}:{second:02}.{us:06}"


def describe(record: Record) -> str:
    """A record in words; one of a kind that nobody knows comes with its fields."""
    what = str(record["what"])
    known = _WORDS.get(what)
    if known is not None:
        return known(record)
    fields = [f"{name}={value}" for name, value in record.items() if name not in {"t", "who", "what"}]
    return " ".join([what, *fields])


def _matters(record: Record) -> bool:
    if record["what"] in _QUIET:
        return False
    if record["what"] != "applied" or record.get("method") != "claim":
        return True
    return any(record.get(name) for name in ("got", "ids", "extended", "ended", "unreadable"))


def _applied(record: Record) -> str:
    words = [f"{record['method']} of {record['from']}"]
    if record["method"] in _MEMBERS:
        return words[0]
    ids = _texts(record.get("ids"))
    outcomes = _texts(record.get("outcome"))
    if ids and record["method"] == "claim":
        words.append("confirms")
    if len(ids) == len(outcomes):
        words += [f"{id}: {outcome}" for id, outcome in zip(ids, outcomes, strict=True)]
    else:
        words += ids + outcomes
    if record["method"] == "claim":
        words += [f"extends {id}: {outcome}" for id, outcome in map(_items, _items(record.get("extended")))]
        got = [_delivery(each) for each in _items(record.get("got"))]
        words.append("takes " + (", ".join(got) if got else "nothing"))
        words += [f"{id}: {reason}" for id, reason in map(_items, _items(record.get("ended")))]
        words += [f"{id}: unreadable" for id in _texts(record.get("unreadable"))]
    return " ".join(words)


def _fault(record: Record) -> str:
    parameters = [
        f"{name}={value}" for name, value in record.items() if name not in {"t", "who", "what", "fault", "node"}
    ]
    return " ".join([str(record["fault"]), str(record.get("node") or ""), *parameters]).strip()


def _violation(record: Record) -> str:
    about = f", {record['id']}" if record["id"] else ""
    return f"VIOLATION of {record['rules']} at {record['at']}{about}: {record['text']}"


def _delivery(got: Field) -> str:
    id, number, num_retries = _items(got)
    return f"{id} (delivery {number}, retries {num_retries})"


_WORDS: Final[Mapping[str, Callable[[Record], str]]] = {
    "run": lambda record: f"seed {record['seed']}, nodes {', '.join(_texts(record['nodes']))}",
    "applied": _applied,
    "call": lambda record: " ".join([f"asks for {record['method']}", *_texts(record["ids"])]),
    "reply": lambda record: f"has the reply to {record['method']}",
    "fault": _fault,
    "healed": lambda record: "no more faults",
    "fault_end": lambda record: f"{record['fault']} {record.get('node') or ''} is over",
    "announce": lambda record: f"tells {record['to']} to come: {record['fate']}",
    "handler": lambda record: (
        f"handler of {record['id']} (delivery {record['delivery']}, retries {record['num_retries']})"
    ),
    "handled": lambda record: f"handler of {record['id']} (delivery {record['delivery']}) {record['how']}",
    "call_failed": lambda record: f"{record['method']} failed: {record['error']}: {record['problem']}",
    "reply_lost": lambda record: f"the reply to {record['method']} of {record['from']} is lost",
    "request_lost": lambda record: f"the {record['method']} of {record['from']} is lost on its way",
    "pulse": lambda record: f"tells all that {record['from']} has looked",
    "up": lambda record: f"starts its process {record['incarnation']}",
    "down": lambda record: f"its process {record['incarnation']} is gone: {record['how']}",
    "violation": _violation,
    "log": lambda record: f"{str(record['level']).lower()}: {record['message']}",
}


def _number(value: Field) -> int:
    assert isinstance(value, int)
    return value


def _items(value: Field) -> Sequence[Field]:
    return value if isinstance(value, list | tuple) else ()


def _texts(value: Field) -> list[str]:
    return [str(each) for each in _items(value)]
