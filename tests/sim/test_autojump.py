"""Virtual time that moves by itself: to where somebody waits, and no further."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from dtimer import DTimer, Event, JsonValue, Post, SimBackend
from dtimer.errors import InvalidArgument
from dtimer.sim import SimMisuse, SimStuck
from dtimer.sim.backend import START

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
GRAIN = timedelta(milliseconds=1)


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend(hang_after=0.2)


@asynccontextmanager
async def jumping(sim: SimBackend, **options: timedelta) -> AsyncIterator[DTimer[JsonValue]]:
    async with sim.autojump(**options), DTimer(sim) as timer:
        yield timer


def passed(sim: SimBackend) -> timedelta:
    return sim.now - START


async def next_of(timer: DTimer[JsonValue]) -> Event[JsonValue]:
    async with timer.events() as events:
        return await anext(events)


async def stuck_in(body: Coroutine[Any, Any, None]) -> SimStuck:
    with pytest.raises(SimStuck) as stuck:
        await body
    return stuck.value


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


# --- where it moves ------------------------------------------------------------------------------------


async def test_an_event_in_three_days_comes_without_an_advance(sim: SimBackend) -> None:
    """What the block is for."""
    async with jumping(sim) as timer:
        await timer.post("x", timedelta(days=3))

        event = await next_of(timer)

        assert event.payload == "x"
        assert timedelta(days=3) <= passed(sim) <= timedelta(days=3) + 2 * GRAIN


async def test_events_come_in_their_order_and_each_at_its_own_time(sim: SimBackend) -> None:
    """A jump is to the next moment, never past one."""
    async with jumping(sim) as timer:
        seen: list[tuple[JsonValue, int]] = []
        done = asyncio.Event()

        @timer.on("event")
        async def handle(event: Event[JsonValue]) -> None:
            seen.append((event.payload, round(passed(sim) / HOUR)))
            if event.payload == "last":
                done.set()

        await timer.post("last", 9 * HOUR)
        await timer.post("first", 2 * HOUR)
        await timer.post("second", 5 * HOUR)
        await done.wait()

    assert seen == [("first", 2), ("second", 5), ("last", 9)]


async def test_a_retry_at_the_deadline_comes_by_itself(sim: SimBackend) -> None:
    """A deadline is a moment at which something happens, too."""
    async with jumping(sim) as timer:
        await timer.post("x", HOUR, max_retries=1, confirm_timeout=600)

        first = await next_of(timer)
        second = await next_of(timer)

        assert (first.num_retries, second.num_retries) == (0, 1)
        await second.confirm()
        assert abs(passed(sim) - HOUR - timedelta(minutes=10)) <= 2 * GRAIN


async def test_a_sleep_takes_its_time_and_nothing_else_does(sim: SimBackend) -> None:
    """Calls, queues and turns of the loop cost no virtual time."""
    async with jumping(sim) as timer:
        await timer.post("x", 2 * DAY)
        for _ in range(100):
            await timer.peek("x")
            await asyncio.sleep(0)
        assert passed(sim) < GRAIN

        await sim.sleep(DAY)

        assert DAY <= passed(sim) <= DAY + 2 * GRAIN


async def test_handlers_that_sleep_let_each_other_go_on(sim: SimBackend) -> None:
    """As with an advance."""
    async with jumping(sim) as timer:
        log: list[str] = []

        @timer.on("event")
        async def bake(event: Event[JsonValue]) -> None:
            log.append(f"{event.payload} in")
            await sim.sleep(timedelta(minutes=20))
            log.append(f"{event.payload} out")

        await timer.post("sponge", timedelta(minutes=10))
        await timer.post("brownie", timedelta(minutes=15))
        await sim.sleep(HOUR)

        assert log == ["sponge in", "brownie in", "sponge out", "brownie out"]


async def test_leaving_waits_for_handlers_in_virtual_time(sim: SimBackend) -> None:
    """With the clock moved by hand nobody would be there to move it."""
    ended: list[timedelta] = []
    async with jumping(sim) as timer:

        @timer.on("event")
        async def handle(event: Event[JsonValue]) -> None:
            await sim.sleep(20_000)
            ended.append(passed(sim))

        await timer.post("x", 0)
        await sim.sleep(1_000)

    assert [round(end.total_seconds()) for end in ended] == [20]


async def test_work_under_way_holds_the_clock(sim: SimBackend) -> None:
    """A handler at work on something real takes no virtual time, however long it takes."""
    loop = asyncio.get_running_loop()
    async with jumping(sim) as timer:
        at: list[timedelta] = []

        @timer.on("event")
        async def handle(event: Event[JsonValue]) -> None:
            answered = loop.create_future()
            threading.Timer(0.05, loop.call_soon_threadsafe, [answered.set_result, None]).start()
            await answered
            at.append(passed(sim))

        await timer.post("now", 0)
        await timer.post("later", HOUR)
        await sim.sleep(2 * HOUR)

        assert [round(moment / HOUR) for moment in at] == [0, 1]


async def test_what_the_test_does_with_its_timers_comes_before_the_next_jump(sim: SimBackend) -> None:
    """An event that the test cancels as soon as another one has come must not come first."""
    async with jumping(sim) as timer:
        await timer.post("reminder", HOUR, id="a")
        await timer.post("escalation", HOUR + 5 * GRAIN, id="b")

        await next_of(timer)

        assert await timer.cancel("b")


async def test_a_node_that_comes_a_little_late_is_waited_for(sim: SimBackend) -> None:
    """Each of many events is given a microsecond of its own, and a node tells the time from the last replies only."""
    async with jumping(sim) as timer:
        done = asyncio.Event()
        timer.on("event", lambda event: done.set())
        for minutes in (50, 40, 30):
            await sim.sleep(timedelta(minutes=2))
            await timer.post_many(Post(payload=None, delay=timedelta(minutes=minutes)) for _ in range(512))
        await done.wait()


# --- where it ends ---------------------------------------------------------------------------------------


async def test_idle_nodes_do_not_make_time_pass(sim: SimBackend) -> None:
    """They look by themselves every virtual hour, for ever: a hot loop through the centuries, if that counted."""
    loop = asyncio.get_running_loop()
    async with jumping(sim) as timer:
        timer.on("event", lambda event: None)
        answered = loop.create_future()
        threading.Timer(0.05, loop.call_soon_threadsafe, [answered.set_result, None]).start()
        await answered

        assert passed(sim) == timedelta()
        assert timer.counters.claims <= 2


async def test_time_does_not_pass_the_last_event(sim: SimBackend) -> None:
    """Nor does the clock go on to the nodes' next look afterwards."""
    loop = asyncio.get_running_loop()
    async with jumping(sim) as timer:
        timer.on("event", lambda event: None)
        await timer.post("x", 90 * timedelta(minutes=1))
        answered = loop.create_future()
        threading.Timer(0.05, loop.call_soon_threadsafe, [answered.set_result, None]).start()
        await answered

        assert timer.counters.delivered == 1
        assert passed(sim) <= timedelta(minutes=90, seconds=1)


async def test_an_event_that_nobody_takes_leads_no_further_than_to_its_time(sim: SimBackend) -> None:
    """It stays overdue; the hours after the second in which the nodes look for it would change nothing."""
    loop = asyncio.get_running_loop()
    async with jumping(sim) as timer:
        await timer.post("x", timedelta(minutes=90))
        answered = loop.create_future()
        threading.Timer(0.05, loop.call_soon_threadsafe, [answered.set_result, None]).start()
        await answered

        assert passed(sim) <= timedelta(minutes=90, seconds=1)


async def test_a_wait_for_what_never_comes_is_an_error_that_says_where(sim: SimBackend) -> None:
    """The usual failure of a test must not be a test that hangs."""

    async def body() -> None:
        async with jumping(sim) as timer:
            await timer.post("x", HOUR)
            await next_of(timer)
            await next_of(timer)

    stuck = await stuck_in(body())

    assert "nothing to move to" in str(stuck)
    (piece,) = stuck.waiting
    assert piece.startswith("the autojump block, in task")
    assert "in test_a_wait_for_what_never_comes_is_an_error_that_says_where" in piece
    assert "in next_of" in piece
    assert "in Events.__anext__" in piece


@pytest.mark.parametrize("order", ["block outside", "block inside"])
async def test_a_handler_that_hangs_is_an_error_that_says_where_and_the_block_is_left(
    sim: SimBackend, order: str
) -> None:
    """Leaving waits for that very handler, in virtual time; it is given up, or the test would hang after all."""

    async def body() -> None:
        jumps, timer = sim.autojump(), DTimer(sim)
        outer, inner = (jumps, timer) if order == "block outside" else (timer, jumps)
        async with outer, inner:

            @timer.on("event")
            async def hang(event: Event[JsonValue]) -> None:
                await for_ever()

            await timer.post("x", HOUR)
            await sim.sleep(DAY)

    stuck = await stuck_in(body())

    assert "has not moved for 0.2 s" in str(stuck)
    assert "hang" in stuck.waiting[0]
    assert "in for_ever" in stuck.waiting[0]


async def test_a_world_that_goes_round_and_round_ends_at_the_limit(sim: SimBackend) -> None:
    """An event that posts its successor never ends, and the test waits for something else."""

    async def body() -> None:
        async with jumping(sim, limit=2 * DAY) as timer:

            @timer.on("event")
            async def tick(event: Event[JsonValue]) -> None:
                await timer.post("tick", HOUR)

            await timer.post("tick", HOUR)
            await for_ever()

    stuck = await stuck_in(body())

    assert "the autojump block is not over, and 2 days, 0:00:00" in str(stuck)
    assert "in for_ever" in stuck.waiting[0]
    assert passed(sim) <= 2 * DAY


async def test_an_error_of_the_test_comes_out_as_it_is(sim: SimBackend) -> None:
    """And the clock is free again, for the block that follows."""
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            async with jumping(sim):
                raise ZeroDivisionError
        with pytest.raises(TimeoutError):
            async with jumping(sim):
                raise TimeoutError

    await sim.advance(HOUR)
    assert passed(sim) == HOUR


async def test_a_cancelled_test_is_cancelled(sim: SimBackend) -> None:
    """By a timeout of its own, in real time, say; that is not the block's to explain."""

    async def body() -> None:
        async with sim.autojump():
            await for_ever()

    task = asyncio.create_task(body())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()


async def test_the_block_leaves_no_task_behind(sim: SimBackend) -> None:
    before = asyncio.all_tasks()
    async with jumping(sim):
        pass

    assert asyncio.all_tasks() == before


# --- by hand as well -----------------------------------------------------------------------------------


async def test_an_advance_in_the_block_moves_by_as_much_as_it_says(sim: SimBackend) -> None:
    """Nothing else moves the time meanwhile, though an event is to come later."""
    async with jumping(sim) as timer:
        seen: list[JsonValue] = []
        timer.on("event", lambda event: seen.append(event.payload))
        await timer.post("x", HOUR)
        await timer.post("y", 3 * HOUR)

        await sim.advance(2 * HOUR)

        assert seen == ["x"]
        assert 2 * HOUR <= passed(sim) <= 2 * HOUR + 2 * GRAIN
        await sim.advance(0)
        assert seen == ["x"]
        await sim.sleep(2 * HOUR)
        assert seen == ["x", "y"]


async def test_running_until_idle_in_the_block_takes_no_time(sim: SimBackend) -> None:
    async with jumping(sim) as timer:
        seen: list[JsonValue] = []
        timer.on("event", lambda event: seen.append(event.payload))
        await timer.post("now", 0)
        await timer.post("later", HOUR)

        await sim.run_until_idle()

        assert seen == ["now"]


@pytest.mark.parametrize("wait", [SimBackend.advance, SimBackend.sleep])
async def test_a_block_that_idles_sees_at_once_that_there_is_something_to_do(
    wait: Callable[[SimBackend, timedelta], Coroutine[Any, Any, None]],
) -> None:
    """Not only when it next looks for a hang."""
    sim = SimBackend(hang_after=1_000)
    async with sim.autojump():
        for _ in range(100):
            await asyncio.sleep(0)

        async with asyncio.timeout(10):
            await wait(sim, DAY)

        assert passed(sim) == DAY


async def test_two_blocks_at_once_are_refused(sim: SimBackend) -> None:
    async with sim.autojump():
        with pytest.raises(SimMisuse, match="jumps already"):
            async with sim.autojump():
                pass
        await sim.sleep(HOUR)

    assert passed(sim) == HOUR


async def test_a_block_in_a_handler_is_refused(sim: SimBackend) -> None:
    """It would wait for the handler that waits for it."""
    with sim.runtime.working("handler"), pytest.raises(SimMisuse, match=r"autojump\(\) would wait for its own caller"):
        async with sim.autojump():
            pass


@pytest.mark.parametrize("limit", [-1, float("nan")])
async def test_a_senseless_limit_is_refused(sim: SimBackend, limit: float) -> None:
    with pytest.raises(InvalidArgument, match=r"^limit "):
        sim.autojump(limit=limit)


# --- timeouts --------------------------------------------------------------------------------------------


async def test_a_timeout_ends_a_wait_in_virtual_time(sim: SimBackend) -> None:
    """That an event does not come within a week is a matter of milliseconds."""
    async with jumping(sim) as timer:
        await timer.post("too late", timedelta(days=8))

        with pytest.raises(TimeoutError):
            async with sim.timeout(timedelta(days=7)):
                await next_of(timer)

        assert abs(passed(sim) - timedelta(days=7)) <= 2 * GRAIN
        assert (await next_of(timer)).payload == "too late"


async def test_a_timeout_that_is_not_reached_changes_nothing(sim: SimBackend) -> None:
    """And leads nowhere afterwards."""

    async def body() -> None:
        async with jumping(sim) as timer:
            async with sim.timeout(timedelta(days=7)):
                await timer.post("x", HOUR)
                await next_of(timer)
            await for_ever()

    stuck = await stuck_in(body())

    assert "nothing to move to" in str(stuck)
    assert passed(sim) <= HOUR + 2 * GRAIN


async def test_a_timeout_ends_when_the_clock_is_moved_by_hand_too(sim: SimBackend) -> None:
    """It needs no autojump."""

    async def impatient() -> None:
        async with sim.timeout(HOUR):
            await for_ever()

    task = asyncio.create_task(impatient())
    await sim.advance(HOUR - GRAIN)
    assert not task.done()
    await sim.advance(GRAIN)

    assert isinstance(task.exception(), TimeoutError)


async def test_real_work_of_the_tests_own_can_be_announced(sim: SimBackend) -> None:
    """The simulator cannot see it otherwise, and time would run off meanwhile."""
    loop = asyncio.get_running_loop()
    async with jumping(sim) as timer:
        await timer.post("x", HOUR)
        with sim.working("a question to a real server"):
            answered = loop.create_future()
            threading.Timer(0.05, loop.call_soon_threadsafe, [answered.set_result, None]).start()
            await answered
            assert passed(sim) < GRAIN
        await next_of(timer)
