"""Several timers on one namespace."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from dtimer import DTimer, DTimerError, Event, NodeFenced, NodeStopped, Post, SimBackend, StoreDenied
from dtimer.limits import SECOND_US
from dtimer.protocol.values import Member
from node.watched import Watched


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


def note(log: list[Any], what: object, event: Event) -> None:
    """A handler, once the first two are given."""
    log.append((what, event.id, event.payload, event.delivered_at))


async def test_events_go_round_the_nodes_in_ring_order(sim: SimBackend) -> None:
    """Rule D6."""
    taken: list[tuple[str, str, int, datetime]] = []
    async with AsyncExitStack() as stack:
        for name in "012":
            timer = DTimer(sim, node_id=name)
            timer.on("event", partial(note, taken, name))
            await stack.enter_async_context(timer)
        poster = DTimer(sim)
        for n in range(30):
            await poster.post(n, 150 * (n + 1))
        await sim.advance(150 * 31)

    assert [name for name, *_ in taken] == list("012" * 10)
    assert [payload for _, _, payload, _ in taken] == list(range(30))


async def test_events_due_at_once_go_to_all_who_have_room(sim: SimBackend) -> None:
    """Rule D8."""
    taken: list[Any] = []
    async with AsyncExitStack() as stack:
        for number in range(8):
            timer = DTimer(sim, node_id=str(number), max_events=1)

            @timer.on("event")
            async def hold(event: Event, number: int = number) -> None:
                taken.append((number, event.payload))
                await sim.sleep(5_000)

            await stack.enter_async_context(timer)
        start = sim.now
        await DTimer(sim).post_many(Post(payload=n, delay=100) for n in range(8))
        await sim.advance(110)

        assert sorted(number for number, _ in taken) == list(range(8))
        assert sorted(payload for _, payload in taken) == list(range(8))
        assert (sim.now - start).total_seconds() < 0.12
        await sim.advance(6_000)


async def test_with_announcements_lost_an_event_is_less_than_a_second_late(sim: SimBackend) -> None:
    """Rules D7 and W1."""
    late: list[float] = []
    async with AsyncExitStack() as stack:
        for number in range(3):
            watched = Watched(sim)
            timer = DTimer(watched, node_id=str(number))
            timer.on("event", lambda event: late.append(event.lateness.total_seconds()))
            await stack.enter_async_context(timer)
            # Nothing that is said to this node is heard, though the store believes so.
            listener: Any = watched.listeners[0]
            listener.hear = lambda message: None
        poster = DTimer(sim)
        for n in range(20):
            await sim.advance(370)
            await poster.post(n, 200)
        await sim.advance(3_000)

    assert len(late) == 20
    assert max(late) < 1.0


async def test_a_node_that_does_not_hear_its_own_pulse_subscribes_anew(sim: SimBackend) -> None:
    """Rule W1."""
    watched = Watched(sim)
    timer = DTimer(watched)
    timer.on("event", lambda event: None)
    async with timer:
        listener: Any = watched.listeners[0]
        listener.hear = lambda message: None
        await sim.advance(2_000)
        assert len(watched.listeners) == 2
        await sim.advance(10_000)
        assert len(watched.listeners) == 2
        assert timer.counters.pulses_heard > 5
        assert timer.counters.failed_subscriptions == timer.counters.reconnects == 1


async def test_a_later_join_under_the_same_id_fences_the_earlier(sim: SimBackend) -> None:
    """Rule N1."""
    first, second = DTimer(Watched(sim), node_id="n"), DTimer(Watched(sim), node_id="n")
    errors: list[DTimerError] = []
    got: dict[str, list[Any]] = {"first": [], "second": []}
    first.on("error", errors.append)
    first.on("event", got["first"].append)
    second.on("event", got["second"].append)
    async with first, second:
        await sim.advance(2_000)
        assert [type(error) for error in errors] == [NodeFenced]
        assert (first.joined, second.joined) == (False, True)
        await second.post("p", 0)
        await sim.advance(2_000)
        assert (len(got["first"]), len(got["second"])) == (0, 1)

        await first.join()
        await second.post("q", 0)
        await sim.advance(2_000)
        assert (len(got["first"]), len(got["second"])) == (1, 1)


@pytest.mark.parametrize("seed", range(12))
async def test_of_two_joins_at_one_instant_the_later_one_wins(seed: int) -> None:
    """Rule N1. Virtual time stands still between them, and chance must not decide."""
    sim = SimBackend(seed=seed)
    earlier, later = DTimer(sim, node_id="n"), DTimer(sim, node_id="n")
    for timer in (earlier, later):
        timer.on("event", lambda event: None)
    await earlier.join()
    await later.join()
    # The simulator has all nodes look, as one was fenced.
    await sim.advance(1_000)

    assert (earlier.joined, later.joined) == (False, True)
    await later.leave()


async def test_who_hears_that_it_is_fenced_sees_that_it_is_out(sim: SimBackend) -> None:
    """Rule N1: a handler that asks may want to join again under another name."""
    watched = Watched(sim)
    first, second = DTimer(watched, node_id="n"), DTimer(sim, node_id="n")
    seen: list[bool] = []
    first.on("event", lambda event: None)
    first.on("error", lambda error: seen.append(first.joined))
    async with first, second:
        await sim.advance(2_000)

    assert seen == [False]


async def test_a_fenced_timers_iterators_end(sim: SimBackend) -> None:
    first, second = DTimer(sim, node_id="n"), DTimer(sim, node_id="n")
    first.on("error", lambda error: None)
    events = first.events()
    async with first, second:
        await sim.advance(2_000)

        assert [event async for event in events] == []


async def test_equal_seeds_give_equal_runs() -> None:
    async def run() -> list[Any]:
        sim = SimBackend(seed=5)
        log: list[Any] = []
        timer = DTimer(sim)
        async with AsyncExitStack() as stack:
            for number in range(3):
                timer = DTimer(sim, max_events=2)
                timer.on("event", partial(note, log, number))
                await stack.enter_async_context(timer)
            await timer.post_many(Post(payload=None, delay=n * 7 % 50) for n in range(50))
            await sim.advance(1_000)
        return log

    assert await run() == await run()


async def test_processes_that_fight_for_an_id_are_both_told(sim: SimBackend) -> None:
    """Rule N1. The fenced one stays out, so that it does not go back and forth; each join that fences says so."""
    errors: dict[str, list[str]] = {"a": [], "b": []}
    timers = {name: DTimer(sim, node_id="n", node_name=name) for name in errors}

    def note_for(name: str) -> Callable[[DTimerError], None]:
        return lambda error: errors[name].append(type(error).__name__)

    for name, timer in timers.items():
        timer.on("error", note_for(name))
    await timers["a"].join()
    await timers["b"].join()
    assert errors == {"a": [], "b": ["NodeIdDisputed"]}
    await sim.advance(7_200_000)
    assert errors == {"a": ["NodeFenced"], "b": ["NodeIdDisputed"]}
    assert not timers["a"].joined

    await timers["a"].join()
    await sim.advance(7_200_000)

    assert errors == {"a": ["NodeFenced", "NodeIdDisputed"], "b": ["NodeIdDisputed", "NodeFenced"]}
    assert "node_name='a'" in repr(timers["a"])
    assert DTimer(sim).node_name.endswith(f"-{os.getpid()}")
    for timer in timers.values():
        await timer.leave()


@pytest.mark.parametrize("before", ["left", "fenced by one that left", "silent for long", "its own, not told to leave"])
async def test_an_id_that_is_free_is_not_disputed(sim: SimBackend, before: str) -> None:
    """Rule N1. Under a stable id each process follows another one."""
    watched = Watched(sim)
    timer, other = DTimer(watched, node_id="n"), DTimer(sim, node_id="n")
    errors: list[DTimerError] = []
    timer.on("error", errors.append)
    other.on("error", lambda error: None)
    if before == "left":
        async with other:
            pass
    elif before == "fenced by one that left":
        await timer.join()
        async with other:
            await sim.advance(20_000)
    elif before == "silent for long":
        await sim.join(Member("n", "0", SECOND_US))
        await sim.advance(11_000)
    else:
        await timer.join()
        watched.fail("leave", StoreDenied)
        await timer.leave()
    errors.clear()

    async with timer:
        await sim.advance(20_000)
        assert timer.joined

    assert errors == []


async def test_a_node_whose_loop_was_closed_does_not_dispute_its_own_id(sim: SimBackend) -> None:
    """Rule N1."""
    timer = DTimer(sim, node_id="n")
    errors: list[DTimerError] = []
    timer.on("error", errors.append)
    await asyncio.to_thread(lambda: asyncio.run(timer.join()))

    async with timer:
        await sim.advance(2_000)

    assert [type(error) for error in errors] == [NodeStopped]


async def test_an_id_that_may_be_disputed_is_a_warning_in_the_log(
    sim: SimBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """A process that follows a crashed one has not failed, so the text has both possibilities."""
    await sim.join(Member("n", "0"))

    async with DTimer(sim, node_id="n"):
        pass

    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert "crashed a moment ago, ignore" in record.message
    assert "two processes have the same node_id" in record.message
