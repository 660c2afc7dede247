"""A task that is woken at once."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from dtimer.backends.redis.immediate_future import ImmediateFuture

VARIABLE = contextvars.ContextVar("VARIABLE", default="outside")


class Waiting:
    """A task that waits, and what it has seen."""

    def __init__(self) -> None:
        self.future = ImmediateFuture()
        self.seen: list[str] = []
        self.task = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        VARIABLE.set("the task's")
        try:
            await self.future
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        assert asyncio.current_task() is self.task
        self.seen.append(VARIABLE.get())


async def waiting() -> Waiting:
    waiting = Waiting()
    await asyncio.sleep(0)
    return waiting


async def from_the_loop(waiting: Waiting) -> list[str]:
    """What the task had seen when `wake` returned."""
    seen: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    def callback() -> None:
        waiting.future.wake()
        seen.set_result(list(waiting.seen))

    asyncio.get_running_loop().call_soon(callback)
    return await seen


async def test_the_task_runs_before_wake_returns() -> None:
    """In its own context."""
    task = await waiting()

    assert await from_the_loop(task) == ["the task's"]
    await task.task
    assert VARIABLE.get() == "outside"


async def test_it_is_woken_only_once() -> None:
    task = await waiting()

    await from_the_loop(task)

    assert await from_the_loop(task) == ["the task's"]


async def test_a_task_may_wake_another_in_the_next_turn() -> None:
    task = await waiting()

    task.future.wake_soon()
    assert task.seen == []
    await task.task

    assert task.seen == ["the task's"]


@pytest.mark.parametrize("woken_too", [False, True])
async def test_a_cancelled_task_hears_of_it(woken_too: bool) -> None:
    """Once, also when it is to be woken in the same turn."""
    task = await waiting()

    task.task.cancel()
    if woken_too:
        task.future.wake_soon()
    with pytest.raises(asyncio.CancelledError):
        await task.task

    assert task.seen == ["cancelled"]


async def test_a_time_limit_strikes() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await ImmediateFuture()


async def test_what_was_woken_before_is_not_waited_for() -> None:
    future = ImmediateFuture()
    future.wake()

    await future
