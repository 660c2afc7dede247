"""How virtual time moves: from timer to timer, and not while anything is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from dtimer.sim.errors import SimMisuse, SimStuck
from dtimer.sim.work import Hold
from dtimer.sim.world import RESTLESS_TURNS, World

START_US = 1_000_000
MS = 1_000


@pytest.fixture
def world() -> World:
    return World(start_us=START_US, hang_after_s=5.0)


async def turns(number: int) -> None:
    """Give everybody else so many turns of the loop."""
    for _ in range(number):
        await asyncio.sleep(0)


async def refusal(call: Coroutine[Any, Any, None]) -> str:
    """The words with which a call is refused."""
    with pytest.raises(SimMisuse) as refused:
        await call
    return str(refused.value)


async def test_an_advance_moves_the_clock_by_its_duration(world: World) -> None:
    """Also when nothing happens meanwhile."""
    await world.advance(5_000_000)

    assert world.clock.now_us == START_US + 5_000_000


async def test_what_happens_at_the_very_end_of_a_tick_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not take another change to notice that the world has come to rest."""
    hold = Hold(world.work, "work")
    hold.take()

    class EndedTick:
        def __init__(self, seconds: float) -> None:
            """As the real one."""

        def end(self) -> None:
            """Too late: it has ended by itself."""

        async def wait(self) -> bool:
            hold.release()
            return False

    monkeypatch.setattr("dtimer.sim.world.Tick", EndedTick)

    assert await world.until(lambda: not world.work.held)


async def test_an_advance_lets_everything_happen_at_its_own_time(world: World) -> None:
    """And what happens may set further timers within the same advance."""
    log: list[tuple[str, int]] = []

    async def ticker(name: str, every_us: int) -> None:
        while True:
            await world.sleep(every_us)
            log.append((name, (world.clock.now_us - START_US) // MS))

    tasks = [asyncio.create_task(ticker("a", 20 * MS)), asyncio.create_task(ticker("b", 30 * MS))]
    await world.advance(60 * MS)

    assert log == [("a", 20), ("b", 30), ("a", 40), ("b", 60), ("a", 60)]
    for task in tasks:
        task.cancel()


async def test_an_advance_that_ends_on_a_rounded_timer_leaves_the_clock_there(world: World) -> None:
    """The timer has seen that time, and time does not go back."""
    world.clock.call_at(START_US + 1_500, lambda: None)

    await world.advance(1_500)

    assert world.clock.now_us == START_US + 2_000


async def test_the_world_comes_to_rest_between_two_times(world: World) -> None:
    """Else what an event causes would happen after the next event, at a wrong time."""
    log: list[tuple[str, int]] = []
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def consumer() -> None:
        while True:
            log.append(("consumed", await queue.get()))

    async def producer() -> None:
        for number in range(3):
            await world.sleep(1 * MS)
            log.append(("produced", number))
            queue.put_nowait(number)

    tasks = [asyncio.create_task(consumer()), asyncio.create_task(producer())]
    await world.advance(10 * MS)

    assert log == [(what, number) for number in range(3) for what in ("produced", "consumed")]
    for task in tasks:
        task.cancel()


async def test_the_duration_counts_from_when_what_is_under_way_has_come_to_rest(world: World) -> None:
    """A task that the test has started but that has not run yet sleeps within the advance, not past it."""
    woken: list[int] = []

    async def sleeper() -> None:
        world.clock.catch_up(START_US + 3)
        await world.sleep(1 * MS)
        woken.append(world.clock.now_us)

    task = asyncio.create_task(sleeper())
    await world.advance(1 * MS)

    assert woken == [START_US + 2 * MS]
    assert task.done()


async def test_running_until_idle_fires_what_is_due_and_takes_no_time(world: World) -> None:
    """For tests of things that need no delay."""
    fired: list[str] = []
    world.clock.call_at(START_US - 5, lambda: fired.append("past"))
    world.clock.call_at(START_US, lambda: fired.append("now"))
    world.clock.call_at(START_US + 1, lambda: fired.append("later"))

    await world.run_until_idle()

    assert fired == ["past", "now"]
    assert world.clock.now_us == START_US


async def test_an_error_in_a_callback_goes_to_the_loop_and_stops_nothing(world: World) -> None:
    """As with a real loop's timers."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    boom = ValueError("boom")
    fired: list[str] = []

    def fail() -> None:
        raise boom

    world.clock.call_at(START_US + 1 * MS, fail)
    world.clock.call_at(START_US + 1 * MS, lambda: fired.append("second"))
    await world.advance(2 * MS)

    assert reported == [boom]
    assert fired == ["second"]


async def test_callbacks_run_in_the_context_of_whoever_set_them(world: World) -> None:
    """Not in that of the test that moves the clock."""
    whose: ContextVar[str] = ContextVar("whose", default="nobody")
    seen: list[str] = []

    async def setter() -> None:
        whose.set("setter")
        world.clock.call_at(START_US + 1 * MS, lambda: seen.append(whose.get()))

    await asyncio.create_task(setter())
    await world.advance(1 * MS)

    assert seen == ["setter"]


async def test_a_cancelled_sleep_leaves_nothing_behind(world: World) -> None:
    """Neither a timer nor a suspension of the work around it."""

    async def handler() -> None:
        with world.work.working("handler"):
            try:
                await world.sleep(60_000 * MS)
            except asyncio.CancelledError:
                assert world.work.held
                raise

    task = asyncio.create_task(handler())
    await world.run_until_idle()
    task.cancel()
    await world.run_until_idle()

    assert task.cancelled()
    assert not world.work.held
    assert not world.clock.take_due(START_US + 60_000 * MS)


@pytest.mark.parametrize("duration_us", [0, -1])
async def test_a_sleep_of_no_time_yields_once(world: World, duration_us: int) -> None:
    """As `asyncio.sleep(0)`; nobody need move the clock for it."""
    other = asyncio.create_task(asyncio.sleep(0))

    await world.sleep(duration_us)
    await turns(1)

    assert other.done()


async def test_a_second_advance_is_refused_while_one_is_under_way(world: World) -> None:
    """Two hands on one clock would make the order of things depend on luck."""
    first = asyncio.create_task(world.advance(10 * MS))
    await turns(1)

    words = await refusal(world.run_until_idle())

    assert words.startswith("run_until_idle() was called while advance() is under way")
    await first
    await world.advance(1 * MS)
    assert world.clock.now_us == START_US + 11 * MS


async def test_a_cancelled_advance_lets_the_next_one_begin(world: World) -> None:
    """A test that wraps `advance` in a timeout goes on with a working simulator."""
    waiting = asyncio.create_task(world.advance(1 * MS))
    with world.work.working("something long"):
        await turns(200)
        waiting.cancel()
        await asyncio.wait({waiting})
    assert waiting.cancelled()

    await world.advance(1 * MS)

    assert world.clock.now_us == START_US + 1 * MS


async def test_an_advance_inside_of_work_is_refused(world: World) -> None:
    """It would wait for the handler that waits for it; the error says what to use instead."""
    with world.work.working("the handler of event 'a'"):
        words = await refusal(world.advance(1 * MS))

    assert "part of the handler of event 'a'" in words
    assert "sim.sleep()" in words


async def test_an_advance_in_a_task_of_a_handler_is_refused(world: World) -> None:
    """The same wait in a circle, one task further."""
    with world.work.working("handler"):
        words = await asyncio.create_task(refusal(world.run_until_idle()))

    assert "part of handler" in words


async def test_a_task_that_outlives_its_handler_may_advance(world: World) -> None:
    """Then nothing waits for it any more."""
    go = asyncio.Event()

    async def later() -> None:
        await go.wait()
        await world.advance(1 * MS)

    with world.work.working("handler"):
        task = asyncio.create_task(later())
    go.set()
    await task

    assert world.clock.now_us == START_US + 1 * MS


async def test_work_without_end_at_one_instant_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that posts another one for now, for ever, must not hang the test run."""
    assert RESTLESS_TURNS > 100_000, "much work at one instant is not an error"
    monkeypatch.setattr("dtimer.sim.world.RESTLESS_TURNS", 1_000)

    async def restless() -> None:
        while True:
            with world.work.working("round and round"):
                await asyncio.sleep(0)

    task = asyncio.create_task(restless())
    with pytest.raises(SimStuck, match="on and on at one instant, for 1000 turns"):
        await world.advance(1 * MS)

    task.cancel()


async def test_a_busy_task_of_the_user_does_not_keep_the_world_from_resting(world: World) -> None:
    """Polling with `asyncio.sleep(0)` is not known to the simulator, so it gets its turns and no more."""

    async def poll() -> None:
        while True:  # noqa: ASYNC110  # a task that polls is the subject
            await asyncio.sleep(0)

    task = asyncio.create_task(poll())
    await world.advance(1 * MS)

    assert world.clock.now_us == START_US + 1 * MS
    task.cancel()


async def test_the_users_tasks_get_their_turns_on_a_loop_that_cannot_be_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether anything is ready is known of asyncio's own loops only."""
    monkeypatch.setattr("dtimer.sim.world._nothing_ready", lambda _: False)
    log: list[str] = []

    async def reaction() -> None:
        await world.sleep(1 * MS)
        await turns(10)
        log.append("reacted")

    world.clock.call_at(START_US + 2 * MS, lambda: log.append("next timer"))
    task = asyncio.create_task(reaction())
    await world.advance(2 * MS)

    assert log == ["reacted", "next timer"]
    assert task.done()
