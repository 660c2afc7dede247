"""Where a task waits: the chain of its awaits."""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (What a coroutine yields and returns is of no interest here, and the type checker cannot know it.)

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

CHAIN_MAX: Final = 256
"""Longer chains are cut: nobody reads them, and a task could wait for itself."""


async def _generator() -> AsyncGenerator[None]:
    yield


def _type_of(step: Any) -> type:
    # Otherwise it would complain that it was never awaited.
    step.close()
    return type(step)


GENERATOR_STEPS: Final = (_type_of(_generator().asend(None)), _type_of(_generator().aclose()))
"""What is awaited to let an asynchronous generator go on, or end."""

_SUSPENDED: Final[tuple[type, ...]] = (CoroutineType, AsyncGeneratorType, GeneratorType, *GENERATOR_STEPS)


def place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def await_chain(task: asyncio.Task[Any]) -> list[FrameType]:
    """The frames of a suspended task, outermost first; goes on in the task that it waits for."""
    return [frame for link in links(task, through_tasks=True) if (frame := _frame(link)) is not None]


def links(start: object, *, through_tasks: bool = False) -> list[object]:
    """What a task or coroutine waits for, what this waits for, and so on, as long as somebody can tell."""
    followed = (asyncio.Task, *_SUSPENDED) if through_tasks else _SUSPENDED
    found: list[object] = []
    link: object = start
    while link is not None and len(found) < CHAIN_MAX:
        found.append(link)
        if isinstance(link, asyncio.Task):
            link = link.get_coro()
        elif isinstance(link, CoroutineType):
            link = link.cr_await
        elif isinstance(link, AsyncGeneratorType):
            link = link.ag_await
        elif isinstance(link, GeneratorType):
            link = link.gi_yieldfrom
        else:
            # The awaitable of a future, or of a step of an asynchronous generator, tells nothing about itself. Only
            # the garbage collector knows. The way ends at a future.
            link = next((referent for referent in gc.get_referents(link) if isinstance(referent, followed)), None)
    return found


def _frame(link: object) -> FrameType | None:
    if isinstance(link, CoroutineType):
        return link.cr_frame
    if isinstance(link, AsyncGeneratorType):
        return link.ag_frame
    return link.gi_frame if isinstance(link, GeneratorType) else None
