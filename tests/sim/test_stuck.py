"""What hangs is named, with its place; real time is measured even while Python's clocks are frozen."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from freezegun import freeze_time

from dtimer.sim.errors import SimStuck
from dtimer.sim.world import World

MS = 1_000


@pytest.fixture
def world() -> World:
    return World(start_us=1_000_000, hang_after_s=0.05)


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def stuck_on(world: World, task: asyncio.Task[None]) -> SimStuck:
    """The error of an advance while `task` hangs."""
    with pytest.raises(SimStuck) as stuck:
        await world.advance(1 * MS)
    task.cancel()
    await asyncio.wait({task})
    return stuck.value


async def test_the_error_names_the_handler_and_where_it_hangs(world: World) -> None:
    """From the handler's own line down to the innermost wait, as a traceback would."""

    async def on_event() -> None:
        await never()

    async def node() -> None:
        with world.work.working("the handler of event 'a'"):
            await on_event()

    stuck = await stuck_on(world, asyncio.create_task(node(), name="node 1"))

    (piece,) = stuck.waiting
    lines = piece.splitlines()
    assert lines[0] == "the handler of event 'a', in task 'node 1':"
    assert [line.rpartition(" in ")[2].rpartition(".")[2] for line in lines[1:]] == ["node", "on_event", "never"]
    assert all(f"{__file__}:" in line for line in lines[1:])
    assert "has not moved for 0.05 s of real time" in str(stuck)
    assert piece in str(stuck)


async def test_the_way_is_followed_through_iterators_and_tasks(world: World) -> None:
    """Handlers wait in `async for` and for tasks of their own, where the culprit sits."""

    async def rows() -> AsyncIterator[int]:
        await never()
        yield 1

    async def child() -> None:
        async for _ in rows():
            pass

    async def handler() -> None:
        with world.work.working("handler"):
            await asyncio.create_task(child())

    stuck = await stuck_on(world, asyncio.create_task(handler()))

    lines = stuck.waiting[0].splitlines()[1:]
    assert [line.rpartition(" in ")[2].rpartition(".")[2] for line in lines] == ["handler", "child", "rows", "never"]


async def test_all_that_hangs_is_named_and_nothing_else(world: World) -> None:
    """Work that waits for virtual time does not hold it up."""

    async def hang(name: str) -> None:
        with world.work.working(name):
            await never()

    async def sleep() -> None:
        with world.work.working("sleeper"):
            await world.sleep(60_000 * MS)

    async def both() -> None:
        await asyncio.gather(hang("first"), hang("second"), sleep())

    stuck = await stuck_on(world, asyncio.create_task(both()))

    assert [piece.partition(",")[0] for piece in stuck.waiting] == ["first", "second"]


async def test_time_can_move_again_once_the_culprit_is_gone(world: World) -> None:
    """The error is about the advance, not the end of the simulator."""

    async def handler() -> None:
        with world.work.working("handler"):
            await never()

    await stuck_on(world, asyncio.create_task(handler()))
    before_us = world.clock.now_us
    await world.advance(1 * MS)

    assert world.clock.now_us == before_us + 1 * MS


async def test_slow_work_that_makes_progress_does_not_hang() -> None:
    """Many steps, each well within the limit and all of them together beyond it: each is a sign of life."""
    # A step takes a hundredth of the limit, so that a busy host does not make one of them a hang.
    world = World(start_us=1_000_000, hang_after_s=2.0)
    loop = asyncio.get_running_loop()

    async def handler() -> None:
        with world.work.working("handler"):
            for _ in range(110):
                with world.work.working("a step"):
                    answered = loop.create_future()
                    threading.Timer(0.02, loop.call_soon_threadsafe, [answered.set_result, None]).start()
                    await answered

    task = asyncio.create_task(handler())
    await world.advance(1 * MS)

    assert task.done()


async def test_a_handler_that_blocks_the_loop_does_not_hang() -> None:
    """Real time runs, but the loop had no chance to see any progress: that is no evidence."""
    world = World(start_us=1_000_000, hang_after_s=0.2)

    async def answer() -> None:
        answered = asyncio.Event()
        threading.Timer(0.005, asyncio.get_running_loop().call_soon_threadsafe, [answered.set]).start()
        await answered.wait()

    async def handler() -> None:
        with world.work.working("handler"):
            await answer()
            time.sleep(0.5)  # noqa: ASYNC251  # a blocking handler is the subject
            await answer()

    task = asyncio.create_task(handler())
    await world.advance(1 * MS)

    assert task.done()


@pytest.mark.parametrize("real_asyncio", [True, False])
async def test_a_hang_is_found_under_freezegun(world: World, real_asyncio: bool) -> None:
    """Users freeze time in the same tests, and then neither `time.monotonic` nor the loop's clock moves."""

    async def handler() -> None:
        with world.work.working("handler"):
            await never()

    with freeze_time("2030-01-01", real_asyncio=real_asyncio):
        stuck = await stuck_on(world, asyncio.create_task(handler()))

    assert "handler" in str(stuck)


async def test_a_frozen_clock_that_jumps_is_no_hang() -> None:
    """What freezegun's clock says has nothing to do with how long work takes."""
    world = World(start_us=1_000_000, hang_after_s=5.0)

    async def handler() -> None:
        with world.work.working("handler"):
            answered = asyncio.get_running_loop().create_future()
            threading.Timer(0.01, loop.call_soon_threadsafe, [answered.set_result, None]).start()
            frozen.tick(timedelta(hours=1))
            await answered

    loop = asyncio.get_running_loop()
    with freeze_time("2030-01-01") as frozen:
        task = asyncio.create_task(handler())
        await world.advance(1 * MS)

    assert task.done()
