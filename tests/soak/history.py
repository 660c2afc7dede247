"""What is written down during a run. All times are microseconds since 1970 by the clock of the one host.

The server's `TIME` is that clock too, so what callers saw and what the store says can be compared.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Final, TypeAlias

from attrs import asdict, field, frozen

NAMESPACE: Final = "soak"


def now_us() -> int:
    return time.time_ns() // 1_000


class Reply(Enum):
    """What a caller knows when its call is over."""

    DONE = "done"
    NOTHING = "nothing"
    """Answered, and nothing was changed: too late, say."""
    FAILED = "failed"
    """Not applied."""
    UNKNOWN = "unknown"


@frozen
class Posted:
    """A post; `max_retries` of 0 is at most once, the others are kept as dead letters when they are exhausted."""

    id: str
    call_us: int
    reply_us: int
    reply: Reply = field(converter=Reply)
    delay_us: int
    max_retries: int


@frozen
class Cancelled:
    id: str
    call_us: int
    reply_us: int
    reply: Reply = field(converter=Reply)


@frozen
class Moved:
    """A change of delay."""

    id: str
    call_us: int
    reply_us: int
    reply: Reply = field(converter=Reply)
    delay_us: int


@frozen
class Got:
    """A delivery, as its handler was given it.

    Attributes:
        due_us, at_us, deadline_us: the store's times, less what it is ahead of its host's clock.
        now_us: by the host's clock.
    """

    node: str
    id: str
    number: int
    num_retries: int
    due_us: int
    at_us: int
    deadline_us: int | None
    now_us: int
    intact: bool


class Deed(Enum):
    """What a handler did with a delivery."""

    CONFIRMED = "confirmed"
    TOO_LATE = "too_late"
    """Its confirm found that others had it, or that it was gone."""
    RELEASED = "released"
    BURIED = "buried"
    RAISED = "raised"
    EXTENDED = "extended"
    UNKNOWN = "unknown"
    """The reply was lost."""


@frozen
class Did:
    """`begin_us` and `end_us` are around the call.

    It is written before the call with an unknown end, and again after it.
    """

    id: str
    number: int
    deed: Deed = field(converter=Deed)
    begin_us: int
    end_us: int
    extended_us: int = 0


@frozen
class Told:
    """A report that an error handler was called with.

    Attributes:
        of: the report's type.
        ids: of the events that it names.
    """

    node: str
    of: str
    ids: tuple[str, ...] = field(converter=tuple[str, ...])
    at_us: int


@frozen
class Fault:
    """
    Attributes:
        outage: no node could work while it lasted; other faults must not make any event late.
        leap: the server's clock was ahead for that time, and its time stays ahead of the host's.
        lossy: the server may have lost the last calls that it had acknowledged.
        ended: the nodes whose processes it ended.
    """

    name: str
    begin_us: int
    end_us: int
    outage: bool
    leap: bool = False
    lossy: bool = False
    ended: tuple[str, ...] = field(converter=tuple[str, ...], default=())


@frozen
class LeftOver:
    """What the store holds after everything has come to rest."""

    live: tuple[str, ...] = field(converter=tuple[str, ...])
    dead: tuple[str, ...] = field(converter=tuple[str, ...])


@frozen
class Drained:
    """Faults are over and no more is posted."""

    at_us: int


Record: TypeAlias = Posted | Cancelled | Moved | Got | Did | Told | Fault | LeftOver | Drained
_KINDS: Final[dict[str, type[Record]]] = {
    kind.__name__: kind for kind in (Posted, Cancelled, Moved, Got, Did, Told, Fault, LeftOver, Drained)
}


class Pen:
    """Writes records to the end of a file, each at once: what was written before a SIGKILL is there after it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, record: Record) -> None:
        words = {"what": type(record).__name__, **asdict(record, value_serializer=_plain)}
        os.write(self._file, (json.dumps(words) + "\n").encode())


def read(path: Path) -> Iterator[Record]:
    """All records of a file; a last line that a SIGKILL cut is left out."""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            words = json.loads(line)
            yield _KINDS[words.pop("what")](**words)


def _plain(_instance: object, _field: object, value: object) -> object:
    return value.value if isinstance(value, Enum) else value
