"""Where a task waits: the chain of its awaits."""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (What a coroutine yields and returns is of no interest here, and the type checker cannot know it.)

from __future__ import annotations

import asyncio
import gc
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

CHAIN_MAX: Final = 64
"""Longer chains are cut: nobody reads them, and a task could wait for itself."""

_FOLLOWED: Final[tuple[type, ...]] = (asyncio.Task, CoroutineType, AsyncGeneratorType, GeneratorType)


def place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def await_chain(task: asyncio.Task[Any]) -> list[FrameType]:
    """The frames of a suspended task, outermost first; goes on in the task that it waits for."""
    frames: list[FrameType] = []
    link: object = task
    for _ in range(CHAIN_MAX):
        frame: FrameType | None = None
        if isinstance(link, asyncio.Task):
            link = link.get_coro()
        elif isinstance(link, CoroutineType):
            frame, link = link.cr_frame, link.cr_await
        elif isinstance(link, AsyncGeneratorType):
            frame, link = link.ag_frame, link.ag_await
        elif isinstance(link, GeneratorType):
            frame, link = link.gi_frame, link.gi_yieldfrom
        else:
            link = _wrapped(link)
        if frame is not None:
            frames.append(frame)
        if link is None:
            break
    return frames


def _wrapped(link: object) -> object:
    """What stands behind an awaitable that tells nothing about itself, such as that of a future or of `anext`.

    The garbage collector is the only one who can tell. The way ends (None) at a future that is not a task.
    """
    return next((referent for referent in gc.get_referents(link) if isinstance(referent, _FOLLOWED)), None)
