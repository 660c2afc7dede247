"""Through which files of ours a payload goes, from its post to the confirm of its delivery."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import CodeType, CoroutineType, FrameType, FunctionType
from typing import Final

import dtimer
from dtimer import DTimer, Event
from dtimer.node.batcher import Batch, Submission
from support.waiting import TIMEOUT_S

OURS: Final = str(Path(dtimer.__file__).parent)
MARK: Final = "in the middle of the payload"
"""In any form in which that travels, so long as it is not compressed."""
_GENERATED: Final = re.compile(r"<attrs generated \w+ (dtimer\.[\w.]+)\.\w+>")
_DEPTH_MAX: Final = 8


class Trip:
    """What ran on the way.

    Attributes:
        carrying: the files with a function that was given the payload, or gave it back: itself, encoded, or within
            another value.
        all: those in which anything ran.
    """

    def __init__(self) -> None:
        self.carrying: dict[str, set[str]] = {}
        self.all: set[str] = set()

    def note(self, frame: FrameType, happened: str, argument: object) -> None:
        """Note one call or return; the parameters are those of a function given to :func:`sys.setprofile`."""
        code = frame.f_code
        if happened not in {"call", "return"} or (file := _file_of(code)) is None:
            return
        self.all.add(file)
        values = [argument] if happened == "return" else list(_arguments(code, frame.f_locals))
        if any(_carries(value, _DEPTH_MAX) for value in values):
            self.carrying.setdefault(file, set()).add(code.co_qualname)


async def round_trip(timer: DTimer) -> Trip:
    """That of one payload, from its post until a handler's block has confirmed it."""
    trip = Trip()
    confirmed: asyncio.Queue[str] = asyncio.Queue()

    @timer.on("event")
    async def handle(event: Event) -> None:
        async with event:
            pass
        confirmed.put_nowait(event.id)

    async with asyncio.timeout(TIMEOUT_S), timer:
        # What is done at the first time only is done then: connecting, say.
        await timer.post("another", 0, max_retries=1)
        await confirmed.get()
        sys.setprofile(trip.note)
        try:
            id = await timer.post(MARK, 0, max_retries=1)
            assert await confirmed.get() == id
        finally:
            sys.setprofile(None)
    return trip


def _file_of(code: CodeType) -> str | None:
    """Below our package; of a generated constructor, that of its class."""
    name = code.co_filename
    if (generated := _GENERATED.match(name)) is not None:
        return f"{generated[1].removeprefix('dtimer.').replace('.', '/')}.py"
    return str(Path(name).relative_to(OURS)) if name.startswith(OURS) else None


def _arguments(code: CodeType, values: Mapping[str, object]) -> Iterator[object]:
    """What the function was given, but for what it is a method of: that may be at work on anything."""
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return (values[name] for name in code.co_varnames[:count] if name not in {"self", "cls"} and name in values)


def _carries(value: object, depth: int) -> bool:
    """Whether the payload, or its encoded form, is the value or within it."""
    if isinstance(value, str):
        return MARK in value
    if isinstance(value, bytes):
        return MARK.encode() in value
    return depth > 0 and any(_carries(part, depth - 1) for part in _parts(value))


def _parts(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, (list, tuple, deque)):
        yield from value
    elif isinstance(value, partial):
        yield from value.args
        yield from value.keywords.values()
    elif isinstance(value, FunctionType):
        yield from inspect.getclosurevars(value).nonlocals.values()
    elif isinstance(value, CoroutineType):
        if value.cr_frame is not None:
            yield from _arguments(value.cr_code, value.cr_frame.f_locals)
    elif isinstance(value, Event):
        yield from (value.payload, value.data)
    elif isinstance(value, (Submission, Batch)):
        yield value.items
    else:
        yield from (getattr(value, field.name, None) for field in getattr(type(value), "__attrs_attrs__", ()))
