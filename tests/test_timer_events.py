"""Taking events with `async for`."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from dtimer import ConsumerConflict, DTimer, Event, JsonValue, Post, Retry, SimBackend
from dtimer.node.registry import IteratorSlot
from node.watched import Watched
from support.inside import dispatcher_of


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


@pytest.fixture
def timer(sim: SimBackend) -> DTimer:
    return DTimer(sim, node_id="n")


async def test_an_iterator_gives_each_event_and_ends_when_the_timer_leaves(sim: SimBackend, timer: DTimer) -> None:
    got: list[Any] = []

    async def consume() -> None:
        async for event in timer.events():
            async with event:
                got.append(event.payload)

    task = asyncio.create_task(consume())
    async with timer:
        await timer.post_many(Post(payload=n, delay=10, max_retries=1) for n in range(5))
        await sim.advance(1_000)
    await task

    assert got == [0, 1, 2, 3, 4]
    assert timer.counters.confirmed == 5


async def test_each_event_goes_to_exactly_one_iterator(sim: SimBackend, timer: DTimer) -> None:
    got: dict[str, list[Any]] = {"a": [], "b": []}

    async def consume(name: str) -> None:
        async for event in timer.events():
            got[name].append(event.payload)
            await sim.sleep(10)

    tasks = [asyncio.create_task(consume(name)) for name in got]
    async with timer:
        await timer.post_many(Post(payload=n, delay=0) for n in range(10))
        await sim.advance(1_000)
    await asyncio.gather(*tasks)

    assert sorted(got["a"] + got["b"]) == list(range(10))
    assert len(got["a"]) == len(got["b"]) == 5


async def test_nothing_is_claimed_that_no_iterator_waits_for(sim: SimBackend, timer: DTimer) -> None:
    """Rules N2 and N5: a node claims only what it can start."""
    events = timer.events()
    async with timer:
        await timer.post_many(Post(payload=n, delay=0) for n in range(3))
        await sim.advance(2_000)
        assert timer.counters.delivered == 0

        first = await anext(events)
        await sim.advance(2_000)
        assert (first.payload, timer.counters.delivered) == (0, 1)
        assert (await anext(events)).payload == 1
        await events.aclose()


async def test_max_events_bounds_iterators_too(sim: SimBackend) -> None:
    timer = DTimer(sim, max_events=1)
    async with timer, timer.events() as first, timer.events() as second:
        await timer.post_many(Post(payload=n, delay=0, max_retries=1) for n in range(2))
        held = await anext(first)
        waiting = asyncio.ensure_future(anext(second))
        await sim.advance(100)
        assert not waiting.done()

        await held.confirm()
        await sim.advance(0)
        assert (await waiting).payload == 1


async def test_an_iterator_that_is_dropped_gives_its_place_back(sim: SimBackend) -> None:
    timer = DTimer(sim, max_events=1)
    async with timer:
        await timer.post_many(Post(payload=n, delay=0) for n in range(2))
        async for event in timer.events():
            assert event.payload == 0
            break
        gc.collect()

        got: list[Event] = []
        timer.on("event", got.append)
        await sim.advance(10)

    assert [event.payload for event in got] == [1]


async def test_handlers_and_iterators_exclude_each_other(timer: DTimer) -> None:
    events = timer.events()
    with pytest.raises(ConsumerConflict):
        timer.on("event", print)
    await events.aclose()
    timer.on("event", print)
    with pytest.raises(ConsumerConflict):
        timer.events()


async def test_one_iterator_cannot_be_waited_for_twice(sim: SimBackend, timer: DTimer) -> None:
    async with timer, timer.events() as events:
        waiting = asyncio.ensure_future(anext(events))
        await sim.advance(0)
        with pytest.raises(ConsumerConflict):
            await anext(events)
        waiting.cancel()


async def test_a_block_that_raises_gives_the_event_back_by_its_policy(sim: SimBackend, timer: DTimer) -> None:
    async with timer, timer.events() as events:
        await timer.post("p", 0, max_retries=1, retry=Retry(100))
        event = await anext(events)
        with pytest.raises(ZeroDivisionError):
            async with event:
                raise ZeroDivisionError
        start = sim.now
        waiting = asyncio.ensure_future(anext(events))
        await sim.advance(105)

        assert (await waiting).num_retries == 1
        assert (sim.now - start).total_seconds() < 1


async def test_an_event_for_a_cancelled_taker_goes_to_the_next(
    sim: SimBackend, timer: DTimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one that the store has forgotten is not lost."""
    events = timer.events()
    async with timer:
        waiting = asyncio.ensure_future(anext(events))
        await sim.advance(0)
        await timer.post("p", 100)
        consumers = dispatcher_of(timer).consumers
        hand = consumers._hand

        def hand_and_cancel(seat: IteratorSlot[JsonValue], event: Event) -> None:
            hand(seat, event)
            waiting.cancel()

        # In the very turn in which it is handed the event.
        monkeypatch.setattr(consumers, "_hand", hand_and_cancel)
        await sim.advance(101)
        monkeypatch.undo()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        assert (await anext(events)).payload == "p"
        await events.aclose()


async def test_an_event_to_confirm_that_nobody_takes_goes_back(sim: SimBackend) -> None:
    watched = Watched(sim)
    timer = DTimer(watched)
    events = timer.events()
    async with timer:
        waiting = asyncio.ensure_future(anext(events))
        await sim.advance(0)
        await timer.post("p", 0, id="x", max_retries=1)
        while timer.counters.delivered == 0:  # noqa: ASYNC110  # one turn of the loop at a time is the point
            await asyncio.sleep(0)
        waiting.cancel()
        await sim.advance(0)

        again = await anext(events)
        assert (again.payload, again.num_retries) == ("p", 0)
        assert again.delivery_number == 1 + len(watched.count("release"))
        await events.aclose()


async def test_leaving_ends_iterators_that_wait(sim: SimBackend, timer: DTimer) -> None:
    events = timer.events()
    await timer.join()
    waiting = asyncio.ensure_future(anext(events))
    await sim.advance(0)
    await timer.leave()

    with pytest.raises(StopAsyncIteration):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_leaving_inside_the_loop_ends_it(sim: SimBackend, timer: DTimer) -> None:
    """It must not wait for its own caller."""
    await timer.join()
    await timer.post("p", 0)
    start = sim.now
    async for _ in timer.events():
        await timer.leave()

    assert (sim.now - start).total_seconds() < 0.001
    assert not timer.joined
