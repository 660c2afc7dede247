"""One timer in several event loops, threads and processes (rule F8); with a server in backends/redis/test_loops.py."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dtimer import DTimer, DTimerError, Event, NodeStopped, SimBackend, WrongProcessOrLoop
from dtimer.event import Confirming
from node.watched import Watched
from support.waiting import TIMEOUT_S


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


@pytest.fixture
def timer(sim: SimBackend) -> DTimer:
    return DTimer(sim)


async def in_another_thread(call: Callable[[], Coroutine[Any, Any, object]]) -> object:
    """Or a TimeoutError: what waits for the first loop's help would never end."""

    async def in_time() -> object:
        async with asyncio.timeout(TIMEOUT_S):
            return await call()

    return await asyncio.to_thread(lambda: asyncio.run(in_time()))


def test_loops_may_follow_each_other(timer: DTimer) -> None:
    ids = [asyncio.run(timer.post(number, 60_000)) for number in range(3)]

    assert [event.id for event in asyncio.run(timer.upcoming())] == ids
    assert asyncio.run(timer.cancel(ids[0]))


async def test_a_simulator_serves_one_loop_at_a_time() -> None:
    """Two would move one virtual time; the error comes before anything is done, as itself, however it was asked for."""
    watched = Watched(SimBackend())
    timer = DTimer(watched)
    await timer.peek("x")

    for call in (
        lambda: timer.post(1, 1),
        lambda: timer.cancel("x"),
        lambda: timer.peek("x"),
        lambda: timer.confirm("x"),
        timer.upcoming,
        timer.join,
    ):
        with pytest.raises(WrongProcessOrLoop, match="simulator"):
            await in_another_thread(call)

    assert not timer.joined
    assert await timer.upcoming() == []


async def test_a_timer_joins_in_one_loop_at_a_time(sim: SimBackend, timer: DTimer) -> None:
    async with timer:
        for call in (timer.join, timer.leave):
            with pytest.raises(WrongProcessOrLoop, match="another event loop"):
                await in_another_thread(call)
        assert timer.joined
    # The first loop lives still, and has let go of it; the simulator has not.
    with pytest.raises(WrongProcessOrLoop, match="simulator"):
        await in_another_thread(timer.join)


def test_it_joins_anew_when_its_loop_is_closed(sim: SimBackend, timer: DTimer) -> None:
    got: list[object] = []
    timer.on("event", lambda event: got.append(event.payload))
    asyncio.run(timer.join())
    assert not timer.joined
    first = timer.node_id

    async def again() -> None:
        async with timer:
            assert timer.joined
            await timer.post("later", 1_000)
            await sim.advance(1_000)
            inspection = (await sim.inspect()).value
            assert [member.node for member in inspection.ring] == [first]

    asyncio.run(again())
    assert got == ["later"]


@pytest.mark.parametrize("use", ["none", "handler", "iterator"])
def test_it_does_not_dispute_the_id_that_it_had_in_a_closed_loop(sim: SimBackend, timer: DTimer, use: str) -> None:
    errors: list[DTimerError] = []
    timer.on("error", errors.append)
    asyncio.run(timer.join())
    if use == "handler":
        timer.on("event", lambda _: None)
    elif use == "iterator":
        timer.events()

    async def again() -> None:
        async with timer:
            await sim.advance(0)

    asyncio.run(again())
    assert [type(error) for error in errors] == [NodeStopped]  # by the end of the first loop


def test_two_threads_that_join_at_once_are_told_apart(sim: SimBackend, timer: DTimer) -> None:
    """One of them joins, whichever it is."""
    barrier = threading.Barrier(4)
    outcomes: list[str] = []
    over = threading.Event()

    async def join() -> None:
        barrier.wait()
        try:
            await timer.join()
        except WrongProcessOrLoop:
            outcomes.append("refused")
        else:
            outcomes.append("joined")
        await asyncio.to_thread(over.wait)

    threads = [threading.Thread(target=lambda: asyncio.run(join())) for _ in range(4)]
    for each in threads:
        each.start()
    while len(outcomes) < 4:
        over.wait(0.01)
    over.set()
    for each in threads:
        each.join()

    assert sorted(outcomes) == ["joined", "refused", "refused", "refused"]


async def test_an_event_belongs_to_the_loop_of_its_delivery(sim: SimBackend, timer: DTimer) -> None:
    held: list[Event] = []
    timer.on("event", held.append)
    async with timer:
        await timer.post("x", 0, max_retries=1)
        await sim.advance(0)
        (event,) = held

        async def confirm() -> None:
            await event.confirm()

        for call in (confirm, event.release, lambda: event.extend(5), lambda: event.bury("no")):
            with pytest.raises(WrongProcessOrLoop, match="another event loop"):
                await in_another_thread(call)
        with pytest.raises(WrongProcessOrLoop):
            await asyncio.to_thread(event.confirm)  # where there is no loop at all
        assert not event.settled
        assert await event.confirm()


def test_a_confirm_that_was_not_answered_cannot_be_awaited_in_another_loop(sim: SimBackend, timer: DTimer) -> None:
    """Its answer never came to the loop that is gone, so the wait would not end."""
    events: list[Event] = []
    timer.on("event", events.append)

    async def ask() -> Confirming:
        await timer.join()
        await timer.post("p", 0, max_retries=1)
        await sim.advance(0)
        return events[0].confirm()

    loop = asyncio.new_event_loop()
    confirming = loop.run_until_complete(ask())
    loop.close()  # as a program that was cut short: nothing in it is cancelled

    async def wait() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await confirming

    with pytest.raises(WrongProcessOrLoop, match="another event loop"):
        asyncio.run(wait())


async def test_handlers_may_be_added_from_another_thread(sim: SimBackend, timer: DTimer) -> None:
    """The node is told in its own loop, so that it claims at once."""
    asyncio.get_running_loop().set_debug(True)  # in which calls from a wrong thread raise
    got: list[object] = []
    async with timer:
        await timer.post("x", 0)
        await sim.advance(0)
        await asyncio.to_thread(timer.on, "event", lambda event: got.append(event.payload))
        await sim.advance(0)
        assert got == ["x"]
        await asyncio.to_thread(setattr, timer, "max_events", 3)
        assert timer.max_events == 3


def test_an_id_that_is_made_is_made_at_the_join(sim: SimBackend) -> None:
    """So that processes which are forked between the two have ids of their own."""

    async def main() -> None:
        timer = DTimer(sim)
        assert timer.node_id is None
        async with timer:
            first = timer.node_id
        async with timer:
            assert timer.node_id == first
        assert first

    asyncio.run(main())
    assert DTimer(sim, node_id="n").node_id == "n"


FORKING = """
import asyncio, faulthandler, os, signal
from dtimer import DTimer, SimBackend, WrongProcessOrLoop

# What hangs ends by itself, and says where it stands.
faulthandler.register(signal.SIGALRM, chain=True)
signal.alarm(20)
os.register_at_fork(after_in_child=lambda: signal.alarm(10))

async def use_it_all():
    assert not timer.joined
    assert timer.counters.confirmed == 0
    await timer.leave()
    for use in (timer.join, timer.upcoming, lambda: timer.post(1, 1), lambda: timer.confirm("x")):
        try:
            await use()
        except WrongProcessOrLoop as error:
            assert "process" in str(error)
        else:
            raise AssertionError(use)

async def main():
    async with timer:
        child = os.fork()
        if not child:
            asyncio.run(use_it_all())
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert timer.joined
        await timer.post(1, 0)
        await sim.advance(0)
    assert got == [1]

got = []
sim = SimBackend()
timer = DTimer(sim)
timer.on("event", lambda event: got.append(event.payload))
asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_simulator_stays_in_its_process() -> None:
    """Forked within the very loop, as some servers do. The child's posts would be seen by nobody."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    result = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=False, env=env)

    assert (result.returncode, result.stderr) == (0, "")


async def test_the_clock_of_a_simulator_is_that_of_one_loop_at_a_time(sim: SimBackend, timer: DTimer) -> None:
    """A call in another one would wake tasks of a loop that is not its own."""
    await timer.post("p", 60_000)

    async def limited() -> None:
        async with sim.timeout(10):
            pass

    async def jumping() -> None:
        async with sim.autojump():
            pass

    calls: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (
        lambda: sim.advance(10),
        sim.run_until_idle,
        lambda: sim.sleep(10),
        limited,
        jumping,
    )
    for call in calls:
        with pytest.raises(WrongProcessOrLoop):
            await in_another_thread(call)
    await sim.advance(10)


@pytest.mark.parametrize("ended", ["left", "not left", "waiting"])
def test_iterators_and_handlers_of_a_closed_loop_exclude_nothing_in_another(
    timer: DTimer, sim: SimBackend, ended: str
) -> None:
    loop = asyncio.new_event_loop()
    waiting: list[object] = []

    async def first() -> None:
        await timer.join()
        events = timer.events()
        if ended == "waiting":
            waiting.append(asyncio.ensure_future(anext(events)))
            await asyncio.sleep(0)
        elif ended == "left":
            await timer.leave()

    async def second() -> object:
        events = timer.events()  # before the join
        async with timer:
            await timer.post("p", 0)
            event = await anext(events)
            await events.aclose()
            return event.payload

    async def third() -> list[object]:
        done: list[object] = []
        timer.on("event", lambda event: done.append(event.payload))
        async with timer:
            await timer.post("q", 0)
            await sim.advance(0)
        return done

    loop.run_until_complete(first())
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is what this is about
    loop.close()
    assert asyncio.run(second()) == "p"
    assert asyncio.run(third()) == ["q"]
