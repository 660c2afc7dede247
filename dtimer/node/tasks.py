"""Starting tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start_task(work: Callable[[], Coroutine[Any, Any, T]], name: str) -> asyncio.Task[T]:
    """A task that begins in the loop's next turn, whatever the loop's task factory.

    A task of :func:`asyncio.eager_task_factory` begins within `create_task`: before the caller has set up what belongs
    to the task, and before other callers have submitted what is to go with it.
    """
    loop = asyncio.get_running_loop()
    if loop.get_task_factory() is None:
        return loop.create_task(work(), name=name)
    starting = True

    async def run() -> T:
        if starting:
            await asyncio.sleep(0)
        return await work()

    task = loop.create_task(run(), name=name)
    starting = False
    return task


def cancel(future: asyncio.Future[Any]) -> None:
    """Cancel a future, unless its loop is closed: the callbacks of the future could not run there."""
    if not future.get_loop().is_closed():
        future.cancel()
