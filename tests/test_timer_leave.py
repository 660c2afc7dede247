"""Leaving: what is handed over, waited for, given back and cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dtimer import (
    DTimer,
    DTimerError,
    Event,
    HandlerFailed,
    InvalidArgument,
    NodeDisturbed,
    Post,
    SimBackend,
    StoreUnreachable,
)
from dtimer.node.background import current_work
from node.watched import Watched


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


@pytest.fixture
def timer(sim: SimBackend) -> DTimer:
    return DTimer(sim, node_id="n")


def live_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def live_timers(sim: SimBackend) -> int:
    return sum(entry[2].live for entry in sim._world.clock._heap)


async def test_nothing_runs_and_no_timer_is_armed_afterwards(sim: SimBackend, timer: DTimer) -> None:
    """The original's timer went on polling after it had left."""
    timer.on("event", lambda event: event.confirm())
    await timer.join()
    await timer.post_many(Post(payload=n, delay=n, max_retries=1) for n in range(100))
    await sim.advance(50)

    await timer.leave()

    assert (live_tasks(), live_timers(sim)) == ([], 0)
    assert not (await sim.inspect()).value.ring


async def test_a_node_that_left_gets_nothing(sim: SimBackend, timer: DTimer) -> None:
    got: list[Event] = []
    timer.on("event", got.append)
    await timer.join()
    await timer.leave()
    await timer.post("p", 0)
    await sim.advance(60_000)

    assert not got


async def test_its_wakeup_is_handed_over(sim: SimBackend, timer: DTimer) -> None:
    """The original forgot it, and the event was late."""
    got: list[Event] = []
    other = DTimer(sim, node_id="other")
    other.on("event", got.append)
    timer.on("event", got.append)
    await timer.join()
    await timer.post("p", 300)
    async with other:
        await timer.leave()
        await sim.advance(300)

    assert len(got) == 1


async def test_running_handlers_are_waited_for(sim: SimBackend, timer: DTimer) -> None:
    done: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        await sim.sleep(5_000)
        await event.confirm()
        done.append(event.payload)

    await timer.join()
    await timer.post("p", 0, max_retries=1)
    await sim.advance(10)
    leaving = asyncio.create_task(timer.leave())
    await sim.advance(4_000)
    assert not leaving.done()
    await sim.advance(2_000)
    await leaving

    assert done == ["p"]
    assert timer.counters.confirmed == 1


async def test_handlers_that_take_too_long_are_cancelled_and_reported(sim: SimBackend, timer: DTimer) -> None:
    errors: list[DTimerError] = []
    timer.on("error", errors.append)
    cleaned: list[str] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        try:
            await sim.sleep(60_000)
        finally:
            cleaned.append(event.id)

    await timer.join()
    await timer.post("p", 0, id="x", max_retries=1)
    await sim.advance(10)
    leaving = asyncio.create_task(timer.leave(timeout=2))
    await sim.advance(1_990)
    assert not cleaned
    await sim.advance(20)
    await leaving

    assert cleaned == ["x"]
    assert [type(error) for error in errors] == [HandlerFailed]
    assert (live_tasks(), live_timers(sim)) == ([], 0)


async def test_a_handler_that_resists_is_not_waited_for_for_ever(sim: SimBackend, timer: DTimer) -> None:
    errors: list[DTimerError] = []
    timer.on("error", errors.append)

    @timer.on("event")
    async def handle(event: Event) -> None:
        try:
            await sim.sleep(60_000)
        except asyncio.CancelledError:
            await sim.sleep(60_000)

    await timer.join()
    await timer.post("p", 0, id="x")
    await sim.advance(10)
    leaving = asyncio.create_task(timer.leave(timeout=1))
    await sim.advance(3_000)
    await leaving

    assert "runs on" in str(errors[-1])
    await sim.advance(60_000)


async def test_without_draining_handlers_run_on(sim: SimBackend, timer: DTimer) -> None:
    done: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        await sim.sleep(5_000)
        done.append(await event.confirm())

    await timer.join()
    await timer.post("p", 0, max_retries=1)
    await sim.advance(10)
    start = sim.now
    await timer.leave(drain=False)
    assert (sim.now, done) == (start, [])

    await sim.advance(6_000)

    assert [bool(outcome) for outcome in done] == [True]


@pytest.mark.parametrize("name", ["event", "error", "ended", "ready"])
async def test_a_plain_handler_that_returns_the_task_in_which_it_leaves_is_not_waited_for(
    sim: SimBackend, timer: DTimer, name: Any
) -> None:
    """It has returned before the node knows of anything to await, and so of anything to wait for."""
    left: list[float] = []

    async def leave() -> None:
        await timer.leave(timeout=20)
        left.append((sim.now - start).total_seconds())

    timer.on(name, lambda *_: asyncio.ensure_future(leave()))
    if name != "event":
        timer.on("event", lambda event: 1 / 0)
    start = sim.now
    await timer.join()
    await timer.post("p", 0, dead_letter=True, max_retries=0, confirm_timeout=1)
    await sim.advance(10_000)

    assert len(left) == 1
    assert left[0] < 5
    assert not timer.joined


@pytest.mark.parametrize("kind", ["itself", "a task of its own", "twice"])
async def test_a_handler_may_make_its_timer_leave(sim: SimBackend, timer: DTimer, kind: str) -> None:
    """It must not wait for itself; and the rest of its batch is finished."""
    done: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        if event.payload == 0:
            if kind == "a task of its own":
                await asyncio.create_task(timer.leave())
            elif kind == "twice":
                await asyncio.gather(timer.leave(), timer.leave())
            else:
                await timer.leave()
        done.append(event.payload)

    await timer.join()
    await timer.post_many(Post(payload=n, delay=100) for n in range(3))
    start = sim.now
    await sim.advance(200)

    assert sorted(done) == [0, 1, 2]
    assert not timer.joined
    assert (sim.now - start).total_seconds() < 1


async def test_two_handlers_may_leave_at_once(sim: SimBackend, timer: DTimer) -> None:
    done: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        await timer.leave()
        done.append(event.payload)

    await timer.join()
    await timer.post_many(Post(payload=n, delay=0) for n in range(2))
    await sim.advance(10)

    assert sorted(done) == [0, 1]


async def test_a_handler_that_left_and_joined_is_waited_for_by_the_next_to_leave(
    sim: SimBackend, timer: DTimer
) -> None:
    """Only the caller's own delivery is excused, not that of whoever called `join`."""
    done: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        if event.payload == "first":
            await timer.leave()
            await timer.join()
            await sim.sleep(5_000)
        else:
            await timer.leave()
        done.append(event.payload)

    await timer.join()
    await timer.post("first", 0)
    await timer.post("second", 1_000)
    await sim.advance(2_000)
    assert done == []
    await sim.advance(4_000)

    assert done == ["first", "second"]


async def test_what_a_joining_handler_starts_is_no_part_of_it(sim: SimBackend, timer: DTimer) -> None:
    seen: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        await timer.leave()
        timer.on("ready", lambda: seen.append(current_work.get()))
        await timer.join()
        seen.append(current_work.get())

    await timer.join()
    await timer.post("p", 0)
    await sim.advance(10)
    await timer.leave()

    assert [getattr(event, "payload", None) for event in seen] == [None, "p"]


async def test_who_is_told_of_a_failure_and_leaves_waits_for_the_other_handlers(sim: SimBackend, timer: DTimer) -> None:
    """One handler of the event failed, another runs on; the error handler is at work on neither."""
    log: list[str] = []

    @timer.on("event")
    async def fails(event: Event) -> None:
        raise ZeroDivisionError

    @timer.on("event")
    async def runs_on(event: Event) -> None:
        await sim.sleep(1_000)
        log.append("ran")

    @timer.on("error")
    async def leaves(error: DTimerError) -> None:
        await timer.leave()
        log.append("left")

    await timer.join()
    await timer.post("p", 0)
    await sim.advance(5_000)

    assert log == ["ran", "left"]


async def test_what_arrives_while_leaving_goes_back_unless_it_would_be_lost(sim: SimBackend) -> None:
    """Rule N1."""
    watched = Watched(sim)
    timer = DTimer(watched)
    got: list[Event] = []
    timer.on("event", got.append)
    await timer.join()
    await sim.advance(10)
    await timer.post_many(
        [Post(payload="tracked", delay=0, id="t", max_retries=1), Post(payload="untracked", delay=0, id="u")]
    )
    claims = len(watched.count("claim"))
    while len(watched.count("claim")) == claims:  # noqa: ASYNC110  # one turn of the loop at a time is the point
        await asyncio.sleep(0)

    await timer.leave()

    assert [event.id for event in got] == ["u"]
    peeked = await timer.peek("t")
    assert peeked is not None
    assert (peeked.num_retries, peeked.state.value) == (0, "scheduled")


async def test_it_can_join_again(sim: SimBackend, timer: DTimer) -> None:
    got: list[Event] = []
    timer.on("event", got.append)
    for n in range(3):
        async with timer:
            await timer.post(n, 10)
            await sim.advance(20)

    assert [event.payload for event in got] == [0, 1, 2]


async def test_leaving_works_without_a_store(sim: SimBackend) -> None:
    watched = Watched(sim)
    timer = DTimer(watched)
    errors: list[DTimerError] = []
    timer.on("error", errors.append)
    await timer.join()
    watched.fail("leave", StoreUnreachable, times=1000)
    leaving = asyncio.create_task(timer.leave())
    await sim.advance(10_000)
    await leaving

    assert not timer.joined
    assert [type(error) for error in errors] == [NodeDisturbed]


async def test_leaving_without_having_joined_is_harmless(timer: DTimer) -> None:
    await timer.leave()
    await timer.leave(drain=False)
    with pytest.raises(InvalidArgument):
        await timer.leave(timeout=0)
