"""Posts that lead to posts without end at one instant are told from those that merely are many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dtimer import DTimer, Event, JsonValue, Post, SimBackend
from dtimer.sim import SimStuck, Simulation, World
from dtimer.sim.descent import DEPTH_MAX
from dtimer.sim.faulty.host import Host

DAY = timedelta(days=1)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
"""What a real clock may show, years before the start of a simulation."""


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


@pytest.fixture
def timer(sim: SimBackend) -> DTimer[JsonValue]:
    return DTimer(sim)


Handler = Callable[[Event[JsonValue]], Any]


def chains(timer: DTimer[JsonValue], handled: list[str]) -> dict[str, Handler]:
    """Handlers that have no end, each in a way of its own."""

    async def tomorrow(event: Event[JsonValue]) -> None:
        handled.append(event.id)
        await timer.post("x", at=LONG_AGO + len(handled) * DAY, id=f"night-{len(handled)}")

    async def at_once(event: Event[JsonValue]) -> None:
        handled.append(event.id)
        await timer.post("x", 0, id=f"night-{len(handled)}")

    async def in_bulk(event: Event[JsonValue]) -> None:
        handled.append(event.id)
        await timer.post_many([Post(payload="x", delay=0, id=f"night-{len(handled)}")])

    async def own_id(event: Event[JsonValue]) -> None:
        async with event:
            handled.append(event.id)
            await timer.post("x", at=LONG_AGO, id=event.id, max_retries=1)

    async def give_back(event: Event[JsonValue]) -> None:
        handled.append(event.id)
        await event.release(0)

    async def try_again(event: Event[JsonValue]) -> None:
        """It takes its own errors for nothing."""
        handled.append(event.id)
        try:
            await timer.post("x", 0, id=f"night-{len(handled)}")
        except Exception:
            return

    def plain(event: Event[JsonValue]) -> None:
        handled.append(event.id)
        asyncio.get_running_loop().create_task(background(f"night-{len(handled)}"))

    async def background(id: str) -> None:
        try:
            await timer.post("x", at=LONG_AGO, id=id)
        except SimStuck:
            return

    return {each.__name__: each for each in (tomorrow, at_once, in_bulk, own_id, give_back, try_again, plain)}


@pytest.mark.parametrize("kind", ["tomorrow", "at_once", "in_bulk", "own_id", "give_back", "try_again", "plain"])
@pytest.mark.parametrize("autojump", [False, True])
async def test_a_chain_without_an_end_is_stuck_and_named(
    sim: SimBackend, timer: DTimer[JsonValue], kind: str, autojump: bool
) -> None:
    """A nightly job by `datetime.now()` ran 1,127 times in one advance, and an hourly one until it was killed."""
    handled: list[str] = []
    timer.on("event", chains(timer, handled)[kind])
    await timer.join()
    await timer.post("x", 1_000, id="first", max_retries=3)

    with pytest.raises(SimStuck, match=r"'first' → .* → … → .*real clock for at="):  # noqa: PT012
        if autojump:
            async with sim.autojump():
                await asyncio.Event().wait()
        else:
            await sim.advance(DAY)

    assert DEPTH_MAX <= len(handled) <= DEPTH_MAX + 2
    await timer.leave(drain=False)


@pytest.mark.parametrize("delay", [0, None])
async def test_a_chain_by_way_of_an_iterator_is_stuck_as_well(
    sim: SimBackend, timer: DTimer[JsonValue], delay: int | None
) -> None:
    async def consume() -> None:
        async for event in timer.events():
            async with event:
                await timer.post("x", delay, at=LONG_AGO if delay is None else None)

    await timer.join()
    consumer = asyncio.create_task(consume())
    await timer.post("x", 1_000)

    with pytest.raises(SimStuck, match="deep at one instant"):
        await sim.advance(DAY)
    with pytest.raises(SimStuck):
        await consumer
    await timer.leave()


async def test_many_are_not_deep(sim: SimBackend, timer: DTimer[JsonValue]) -> None:
    """Nor is a handler that posts many, nor those that are posted one after the other outside of handlers."""
    count = DEPTH_MAX + 100

    async def handle(event: Event[JsonValue]) -> None:
        if event.payload == "many":
            for _ in range(count):
                await timer.post("one", 0)

    timer.on("event", handle)
    async with timer:
        await timer.post("many", 0)
        await sim.run_until_idle()
        for _ in range(count):
            await timer.post("one", 0)
        await sim.run_until_idle()
    assert timer.counters.delivered == 2 * count + 1


@pytest.mark.parametrize("how", ["a delay", "a sleep", "an at to come", "an end"])
async def test_a_chain_that_takes_time_or_ends_is_none(sim: SimBackend, timer: DTimer[JsonValue], how: str) -> None:
    count = DEPTH_MAX + 100 if how != "an end" else DEPTH_MAX - 1

    async def handle(event: Event[JsonValue]) -> None:
        left = event.payload
        assert isinstance(left, int)
        if not left:
            return
        if how == "a delay":
            await timer.post(left - 1, 1)
        elif how == "an at to come":
            await timer.post(left - 1, at=sim.now + timedelta(milliseconds=1))
        elif how == "a sleep":
            await sim.sleep(1)
            await timer.post(left - 1, 0)
        else:
            await timer.post(left - 1, 0)

    timer.on("event", handle)
    async with timer:
        await timer.post(count, 0)
        await sim.advance(DAY)
    assert timer.counters.delivered == count + 1


async def test_one_id_posted_again_and_again_outside_of_handlers_is_no_chain(
    sim: SimBackend, timer: DTimer[JsonValue]
) -> None:
    timer.on("event", lambda event: None)
    async with timer:
        for _ in range(DEPTH_MAX + 100):
            await timer.post("x", 0, id="x")
            await sim.run_until_idle()
    assert timer.counters.delivered == DEPTH_MAX + 100


async def test_several_handlers_of_one_event_are_one_step(sim: SimBackend, timer: DTimer[JsonValue]) -> None:
    async def post_next(event: Event[JsonValue]) -> None:
        left = event.payload
        assert isinstance(left, int)
        if left:
            await timer.post(left - 1, 0)

    timer.on("event", post_next)
    for _ in range(3):
        timer.on("event", lambda event: None)
    async with timer:
        await timer.post(DEPTH_MAX - 1, 0)
        await sim.advance(DAY)
    assert timer.counters.delivered == DEPTH_MAX


def scenario(*, seconds: float) -> Callable[[World], Coroutine[Any, Any, None]]:
    async def run(world: World) -> None:
        await DTimer(world.backend()).post("x", 1_000, id="first")
        await asyncio.sleep(seconds)

    return run


@pytest.mark.parametrize("iterates", [False, True])
def test_a_real_clock_in_a_simulation_is_found_although_each_step_takes_time(iterates: bool) -> None:
    simulation = Simulation(nodes=2)

    @simulation.node
    async def program(host: Host) -> None:
        timer = DTimer(host.backend())

        async def handle(event: Event[JsonValue]) -> None:
            await timer.post("x", at=LONG_AGO)

        if iterates:
            async with timer:
                async for event in timer.events():
                    await handle(event)
        else:
            timer.on("event", handle)
            async with timer:
                await host.forever()

    with pytest.raises(SimStuck, match="real clock for at="):
        simulation.run(scenario(seconds=3_600))


def test_a_job_that_posts_itself_at_once_goes_on_in_a_simulation() -> None:
    """Its time moves, by what the network takes."""
    simulation = Simulation(nodes=2)
    handled: list[str] = []

    @simulation.node
    async def program(host: Host) -> None:
        timer = DTimer(host.backend())

        async def handle(event: Event[JsonValue]) -> None:
            handled.append(event.id)
            if len(handled) < DEPTH_MAX + 100:
                await timer.post("x", at=host.wall_clock())

        timer.on("event", handle)
        async with timer:
            await host.forever()

    simulation.run(scenario(seconds=3_600))
    assert len(handled) == DEPTH_MAX + 100
