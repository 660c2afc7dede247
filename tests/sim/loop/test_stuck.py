"""When nothing can happen any more, the simulation says who waits for what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from dtimer.sim import SimStuck
from dtimer.sim.loop import SimLoop


async def wait_for_something(event: asyncio.Event) -> None:
    await event.wait()


def test_who_waits_for_what_is_told_by_process() -> None:
    async def main() -> None:
        event = asyncio.Event()
        loop.process("n1").create_task(wait_for_something(event), name="the waiter")
        paused = loop.process("n2")
        paused.create_task(asyncio.sleep(1), name="the sleeper")
        paused.pause()
        await asyncio.sleep(2)
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_something(event), name="the child")

    loop = SimLoop()
    with pytest.raises(SimStuck) as caught:
        loop.run(main())

    assert caught.value.now_us == 2_000_000
    assert str(caught.value).startswith("at 2.000000 s: all tasks wait")
    main_task, child, waiter, sleeper = caught.value.waiting
    assert main_task.startswith("world: task 'main'")
    assert child.startswith("world: task 'the child'")
    assert waiter.startswith("n1: task 'the waiter'")
    assert sleeper.startswith("n2 (paused): task 'the sleeper'")
    assert "in wait_for_something" in waiter
    assert "Event.wait" in waiter.splitlines()[-1]


def test_the_program_ends_as_if_it_was_cancelled() -> None:
    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)
            said.append(f"ended at {loop.time():g}")

    said: list[str] = []
    loop = SimLoop()
    with pytest.raises(SimStuck):
        loop.run(main())

    assert said == ["ended at 1"]


async def by_sleeping_for_no_time() -> None:
    while True:  # noqa: ASYNC110 - that is the point
        await asyncio.sleep(0)


async def by_sleeping_for_too_short_a_time() -> None:
    while True:  # noqa: ASYNC110 - that is the point
        await asyncio.sleep(1e-9)


async def by_starting_tasks() -> None:
    await asyncio.gather(asyncio.create_task(by_starting_tasks(), name="the busy one"))


@pytest.mark.parametrize("be_busy", [by_sleeping_for_no_time, by_sleeping_for_too_short_a_time, by_starting_tasks])
def test_a_loop_that_never_ends_is_told_by_the_name_of_its_task(
    be_busy: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    async def main() -> None:
        loop.process("n1").create_task(be_busy(), name="the busy one")
        await asyncio.sleep(1)

    loop = SimLoop(steps_max=2_000)
    with pytest.raises(SimStuck, match="process 'n1' goes on and on at this instant, for 2000 steps") as caught:
        loop.run(main())

    assert caught.value.waiting[0].startswith("n1: task 'the busy one'")


def test_a_callback_that_calls_itself_is_told_by_name() -> None:
    def again() -> None:
        loop.call_soon(again)

    async def main() -> None:
        again()
        await asyncio.sleep(1)

    loop = SimLoop(steps_max=1_000)
    with pytest.raises(SimStuck) as caught:
        loop.run(main())

    assert caught.value.waiting == (f"world: callback {again.__qualname__}",)


def test_much_work_is_no_loop_if_time_goes_on() -> None:
    async def main() -> None:
        for _ in range(10):
            for _ in range(300):
                await asyncio.sleep(0)
            await asyncio.sleep(0.000001)

    SimLoop(steps_max=1_000).run(main())


@pytest.mark.parametrize("pause_s", [0, 1])
def test_a_task_that_cannot_be_cancelled_does_not_hang_the_end(pause_s: float) -> None:
    async def stubborn() -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(pause_s)

    async def main() -> None:
        task = asyncio.create_task(stubborn(), name="the stubborn one")
        await asyncio.sleep(0)
        assert not task.done()

    loop = SimLoop(steps_max=1_000)
    with pytest.raises(ExceptionGroup) as caught:
        loop.run(main())

    (stuck,) = caught.value.exceptions
    assert "the stubborn one" in str(stuck)
