"""Between a signal's ringing and the answer to it no time passes."""

from __future__ import annotations

import asyncio

import pytest

from dtimer.sim.errors import SimMisuse, SimStuck
from dtimer.sim.signal import SimSignal
from dtimer.sim.world import World

START_US = 1_000_000
MS = 1_000


@pytest.fixture
def world() -> World:
    return World(start_us=START_US, hang_after_s=0.05)


class Waiter:
    """A loop as a node's: waits, works, waits again."""

    def __init__(self, world: World, num_turns: int = 0) -> None:
        self.signal = SimSignal(world.work, "the waiter")
        self.heard_at_us: list[int] = []
        self._world = world
        self._num_turns = num_turns
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while True:
                await self.signal.wait()
                for _ in range(self._num_turns):
                    await asyncio.sleep(0)
                self.heard_at_us.append(self._world.clock.now_us)
        finally:
            self.signal.close()


async def test_a_signal_holds_the_clock_until_its_first_wait(world: World) -> None:
    """Whoever was started has not begun yet: no time must pass before it does."""
    signal = SimSignal(world.work, "late starter")
    seen: list[int] = []

    async def late() -> None:
        for _ in range(500):
            await asyncio.sleep(0)
        seen.append(world.clock.now_us)
        await signal.wait()

    task = asyncio.create_task(late())
    await world.advance(1 * MS)

    assert seen == [START_US]
    task.cancel()


async def test_a_rung_signal_holds_the_clock_until_its_waiter_is_back(world: World) -> None:
    """The waiter's work counts, without a word from it."""
    waiter = Waiter(world, num_turns=500)
    await world.run_until_idle()
    world.clock.call_at(START_US + 1 * MS, waiter.signal.set)

    await world.advance(60_000 * MS)

    assert waiter.heard_at_us == [START_US + 1 * MS]
    waiter.task.cancel()


async def test_a_signal_holds_the_clock_from_the_moment_it_is_rung(world: World) -> None:
    """Not only from when its waiter comes to run."""
    waiter = Waiter(world)
    await world.run_until_idle()

    waiter.signal.set()

    assert world.work.held
    waiter.task.cancel()


async def test_a_signal_rung_while_nobody_waits_is_heard_at_the_next_wait(world: World) -> None:
    """And it is heard once, however often it was rung."""
    waiter = Waiter(world)
    waiter.signal.set()
    waiter.signal.set()

    await world.run_until_idle()

    assert waiter.heard_at_us == [START_US]
    assert not world.work.held
    waiter.task.cancel()


async def test_a_signal_rung_during_the_work_is_heard_afterwards(world: World) -> None:
    """Else a wake-up that comes during a claim would be lost."""
    waiter = Waiter(world, num_turns=5)
    await world.run_until_idle()
    waiter.signal.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiter.signal.set()

    await world.run_until_idle()

    assert len(waiter.heard_at_us) == 2
    waiter.task.cancel()


async def test_a_waiter_that_sleeps_between_two_attempts_lets_time_pass(world: World) -> None:
    """A node that waits before it tries again has not come back to its signal; time must pass all the same."""
    signal = SimSignal(world.work, "node")
    seen: list[int] = []

    async def node() -> None:
        await signal.wait()
        await world.sleep(50 * MS)
        seen.append(world.clock.now_us)
        await signal.wait()

    task = asyncio.create_task(node())
    signal.set()
    await world.advance(60_000 * MS)

    assert seen == [START_US + 50 * MS]
    task.cancel()


async def test_whoever_makes_a_signal_for_another_may_sleep_before_that_one_waits(world: World) -> None:
    """As a join that has to try again before the node's tasks run."""
    started: list[asyncio.Task[None]] = []

    async def join() -> None:
        signal = SimSignal(world.work, "node")
        await world.sleep(50 * MS)
        started.append(asyncio.create_task(signal.wait()))

    task = asyncio.create_task(join())
    await world.advance(60_000 * MS)

    assert task.done()
    started[0].cancel()


async def test_a_sleeping_task_of_the_waiter_does_not_let_time_pass_for_it(world: World) -> None:
    """A node's loop starts handlers; that one of them sleeps says nothing about the loop."""
    signal = SimSignal(world.work, "loop")
    seen: list[int] = []

    async def loop() -> None:
        await signal.wait()
        started.append(asyncio.create_task(world.sleep(10 * MS)))
        for _ in range(500):
            await asyncio.sleep(0)
        seen.append(world.clock.now_us)
        await signal.wait()

    started: list[asyncio.Task[None]] = []
    task = asyncio.create_task(loop())
    signal.set()
    await world.advance(60_000 * MS)

    assert seen == [START_US]
    task.cancel()


async def test_a_cancelled_wait_holds_nothing(world: World) -> None:
    """Also when the signal was rung at the same moment."""
    signal = SimSignal(world.work, "cancelled")
    task = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)

    signal.set()
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert not world.work.held


async def test_what_was_rung_at_a_cancelled_wait_is_heard_by_the_next(world: World) -> None:
    """Nothing that was said is lost."""
    signal = SimSignal(world.work, "cancelled")
    task = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    signal.set()
    task.cancel()
    await asyncio.wait({task})

    await signal.wait()

    assert world.work.held
    signal.close()


async def test_a_closed_signal_holds_nothing_any_more(world: World) -> None:
    """Its waiter is gone, so ringing it is not heard by anybody."""
    signal = SimSignal(world.work, "closed")
    signal.close()
    signal.set()

    assert not world.work.held


async def test_a_forgotten_signal_is_named(world: World) -> None:
    """A waiter that never comes is a mistake to be found by name."""
    SimSignal(world.work, "the forgotten one")

    with pytest.raises(SimStuck, match="the forgotten one"):
        await world.advance(1 * MS)


async def test_a_signal_whose_waiter_has_ended_is_named(world: World) -> None:
    """Closing it was forgotten; the error says whose it was."""
    signal = SimSignal(world.work, "the orphan")

    async def wait_once() -> None:
        await signal.wait()

    signal.set()
    await asyncio.create_task(wait_once(), name="gone")
    with pytest.raises(SimStuck, match="the orphan: its task 'gone' has ended"):
        await world.advance(1 * MS)


async def test_an_advance_by_the_waiter_itself_is_refused(world: World) -> None:
    """It is not back in its wait, so the advance would wait for its own caller."""
    signal = SimSignal(world.work, "the waiter")
    signal.set()
    await signal.wait()

    with pytest.raises(SimMisuse, match="part of the waiter"):
        await world.advance(1 * MS)


async def test_whoever_makes_a_signal_for_another_may_advance(world: World) -> None:
    """A test that joins a timer makes the signals of its tasks, which have not run when it advances."""
    signal = SimSignal(world.work, "for another")
    task = asyncio.create_task(signal.wait())

    await world.advance(1 * MS)

    assert world.clock.now_us == START_US + 1 * MS
    task.cancel()
