"""Time stands still while work is under way, unless the work itself waits for time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from dtimer.sim.work import _surrounding
from dtimer.sim.world import World

START_US = 1_000_000
MS = 1_000


@pytest.fixture
def world() -> World:
    return World(start_us=START_US, hang_after_s=5.0)


async def test_time_stands_still_while_a_handler_waits_for_something_real(world: World) -> None:
    """So that a handler that talks to a database takes no virtual time, however slow that is."""
    seen: list[int] = []
    answered = asyncio.Event()

    async def handler() -> None:
        with world.work.working("handler"):
            threading.Timer(0.02, loop.call_soon_threadsafe, [answered.set]).start()
            await answered.wait()
            seen.append(world.clock.now_us)

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(handler())
    await world.advance(60_000 * MS)

    assert seen == [START_US]
    assert task.done()


async def test_time_stands_still_until_the_last_of_several_pieces_ends(world: World) -> None:
    """Each has its own hold."""
    seen: list[tuple[str, int]] = []

    async def handler(name: str, num_turns: int) -> None:
        with world.work.working(name):
            for _ in range(num_turns):
                await asyncio.sleep(0)
            seen.append((name, world.clock.now_us))

    tasks = [asyncio.create_task(handler("long", 500)), asyncio.create_task(handler("short", 5))]
    await world.advance(1 * MS)

    assert seen == [("short", START_US), ("long", START_US)]
    assert all(task.done() for task in tasks)


async def test_a_sleeping_handler_lets_time_pass(world: World) -> None:
    """Otherwise the clock and the handler would wait for each other."""
    seen: list[int] = []

    async def handler() -> None:
        with world.work.working("handler"):
            await world.sleep(10 * MS)
            seen.append(world.clock.now_us)

    task = asyncio.create_task(handler())
    await world.advance(60_000 * MS)

    assert seen == [START_US + 10 * MS]
    assert task.done()


async def test_work_goes_on_at_the_instant_at_which_the_sleep_ends(world: World) -> None:
    """What the handler does after its sleep holds the clock again, however many turns it takes."""
    seen: list[int] = []

    async def handler() -> None:
        with world.work.working("handler"):
            await world.sleep(10 * MS)
            for _ in range(500):
                await asyncio.sleep(0)
            seen.append(world.clock.now_us)

    world.clock.call_at(START_US + 11 * MS, lambda: seen.append(-1))
    task = asyncio.create_task(handler())
    await world.advance(60_000 * MS)

    assert seen == [START_US + 10 * MS, -1]
    assert task.done()


async def test_a_sleeping_child_task_lets_time_pass_for_its_handler(world: World) -> None:
    """A handler that waits for its own tasks waits for time if they do."""
    seen: list[int] = []

    async def child(duration_us: int) -> None:
        await world.sleep(duration_us)
        seen.append(world.clock.now_us)

    async def handler() -> None:
        with world.work.working("handler"):
            await asyncio.gather(child(10 * MS), child(20 * MS), child(30 * MS))

    task = asyncio.create_task(handler())
    await world.advance(60_000 * MS)

    assert seen == [START_US + 10 * MS, START_US + 20 * MS, START_US + 30 * MS]
    assert task.done()


async def test_a_child_that_sleeps_past_the_end_of_its_handler_disturbs_nothing(world: World) -> None:
    """The hold it suspended is gone; another handler's is not touched."""
    seen: list[int] = []

    async def handler() -> None:
        with world.work.working("first"):
            children.append(asyncio.create_task(world.sleep(10 * MS)))
            await asyncio.sleep(0)
        with world.work.working("second"):
            for _ in range(500):
                await asyncio.sleep(0)
            seen.append(world.clock.now_us)

    children: list[asyncio.Task[None]] = []
    task = asyncio.create_task(handler())
    await world.advance(60_000 * MS)

    assert seen == [START_US]
    assert task.done()
    assert children[0].done()
    assert not world.work.held


async def test_a_sleep_suspends_all_the_work_around_it(world: World) -> None:
    """Work may be nested, a handler within a batch, and the sleeper a task of its own."""

    async def handler() -> None:
        with world.work.working("outer"), world.work.working("inner"):
            await asyncio.create_task(world.sleep(10 * MS))

    task = asyncio.create_task(handler())
    await world.advance(10 * MS)

    assert task.done()


async def test_the_work_holds_the_clock_from_the_moment_its_sleep_ends(world: World) -> None:
    """Not only from when the loop comes to run it again."""
    held: list[bool] = []

    async def handler() -> None:
        with world.work.working("handler"):
            await world.sleep(10 * MS)

    task = asyncio.create_task(handler())
    await world.run_until_idle()
    world.clock.call_at(START_US + 10 * MS, lambda: held.append(world.work.held))
    await world.advance(10 * MS)

    assert held == [True]
    assert task.done()


async def test_a_sleep_suspends_no_work_but_its_own(world: World) -> None:
    """One handler's sleep must not let time pass under another one."""
    seen: list[int] = []

    async def sleeper() -> None:
        with world.work.working("sleeper"):
            await world.sleep(10 * MS)

    async def worker() -> None:
        with world.work.working("worker"):
            for _ in range(500):
                await asyncio.sleep(0)
            seen.append(world.clock.now_us)

    tasks = [asyncio.create_task(sleeper()), asyncio.create_task(worker())]
    await world.advance(60_000 * MS)

    assert seen == [START_US]
    assert all(task.done() for task in tasks)


async def test_a_sleep_in_one_world_holds_the_clock_of_another(world: World) -> None:
    """Two simulators in one test are independent: the other's clock is as foreign as a network."""
    other = World(start_us=START_US, hang_after_s=0.05)
    seen: list[int] = []

    async def handler() -> None:
        with world.work.working("handler"):
            await other.sleep(10 * MS)
            seen.append(world.clock.now_us)

    task = asyncio.create_task(handler())
    waiting = asyncio.create_task(world.advance(60_000 * MS))
    await other.advance(10 * MS)
    await waiting

    assert seen == [START_US]
    assert task.done()


async def test_a_handler_that_raises_releases_its_hold(world: World) -> None:
    """An error in a handler must not stop the clock for ever."""
    with pytest.raises(ValueError, match="boom"), world.work.working("handler"):
        raise ValueError("boom")

    assert not world.work.held


async def test_work_in_an_asynchronous_generator_may_end_in_another_context(world: World) -> None:
    """As when an abandoned iterator is closed by the loop."""

    async def events() -> AsyncIterator[int]:
        with world.work.working("iterator"):
            yield 1

    iterator = events()
    assert await anext(iterator) == 1
    assert world.work.held

    await asyncio.create_task(iterator.aclose())  # type: ignore[attr-defined]  # an async generator has it

    assert not world.work.held


def test_work_that_has_ended_is_forgotten(world: World) -> None:
    """A task that does one piece after another for ever must not collect them."""
    for _ in range(3):
        with world.work.working("piece"):
            assert len(_surrounding.get()) == 1

    assert _surrounding.get() == ()


def test_work_may_be_under_way_outside_of_a_loop(world: World) -> None:
    """A timer may be made before the loop runs."""
    with world.work.working("setup"):
        assert world.work.held

    assert not world.work.held
