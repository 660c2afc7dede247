"""Clocks that are set: the server's, forward and back, under joined nodes; and nodes' own (T1, T2, T3, N3)."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from attrs import frozen

from dtimer import DTimer, Post, StoreClockLeapt, StoreClockStepped
from dtimer.limits import SECOND_US, YEAR_US
from support.bounds import LATE_MS
from support.figures import Figure
from support.host_clock import HostClock, build, clock_can_be_set, host_clock
from support.load import under_load
from support.members import answered, beside, logged
from support.processes import START_TIMEOUT_S, node_process
from support.servers import Binary, Server, running
from support.waiting import until
from support.worlds import NAMESPACE, Node, RedisWorld, lateness_ms

HOUR_S: Final = 3_600

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not clock_can_be_set(), reason="no C compiler (cc, gcc, clang), so no clock can be set"),
]


@frozen
class Clocked:
    """A server, and its host's clock."""

    server: Server
    clock: HostClock

    def set(self, offset_s: float) -> None:
        self.clock.set(offset_s)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture
def clocked(first_program: Binary, library: Path, tmp_path: Path) -> Iterator[Clocked]:
    """Of the first kind of server. Its clock is right until it is set."""
    with host_clock(tmp_path, library) as clock, running(first_program, clock.environment) as server:
        yield Clocked(server, clock)


@pytest.fixture
def wrong(library: Path, tmp_path: Path) -> Callable[[float], dict[str, str]]:
    """Makes the environment of a process whose clock is wrong by so many seconds."""

    def environment(offset_s: float) -> dict[str, str]:
        folder = tmp_path / f"wrong by {offset_s}"
        folder.mkdir()
        with host_clock(folder, library) as clock:
            clock.set(offset_s)
        return dict(clock.environment)

    return environment


def seconds_ahead(server: Server) -> float:
    with server.client() as client:
        seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1e6 - time.time()


def test_the_servers_clock_can_be_set(clocked: Clocked) -> None:
    """The tests below would show nothing if it could not."""
    for offset_s in (0, HOUR_S, -HOUR_S, -0.25):
        clocked.set(offset_s)
        until_s = time.monotonic() + 5
        # It looks at the clock once a turn of its loop, and on a busy host the turn it is in may last.
        while abs(seconds_ahead(clocked.server) - offset_s) >= 0.2:
            assert time.monotonic() < until_s


async def test_a_clock_set_back_makes_nothing_late_and_is_reported_once_by_each_node(
    clocked: Clocked, caplog: pytest.LogCaptureFixture, figure: Figure
) -> None:
    """Rule T2: the namespace's time goes on at its pace; real time tells, since the server's own cannot."""
    async with RedisWorld(clocked.server) as world, under_load(world) as load:
        await load.lasts(0.5)
        for offset_s in (-10, -HOUR_S):
            clocked.set(offset_s)
            await load.lasts(0.5)
        started = time.monotonic()
        await load.drained()
        drained_ms = (time.monotonic() - started) * 1_000
        figure(worst_lateness_ms=load.worst_ms(), drained_ms=drained_ms)

        load.judge()
        assert drained_ms < LATE_MS
        # A node that had no reply between two steps sees one step of both.
        await until(lambda: all(round(stepped_s(node)) == HOUR_S for node in load.nodes))
        assert all(set(node.error_types()) == {StoreClockStepped} for node in load.nodes)
        assert all(node.timer.counters.clock_steps == len(node.errors) for node in load.nodes)
        # The posting timer has no error handler, so it logs its own.
        assert 1 <= len(logged(caplog)) <= 2


def stepped_s(node: Node) -> float:
    """By how much a node was told that the clock was set back, in all."""
    return sum(error.step_us for error in node.errors if isinstance(error, StoreClockStepped)) / 1e6


async def test_a_clock_set_forward_makes_what_was_posted_early_by_that_and_loses_nothing(clocked: Clocked) -> None:
    """Rules T1 and T3: by the store's clock nothing is early; an hour's events are due at once."""
    async with RedisWorld(clocked.server) as world, under_load(world, 2) as load:
        await load.lasts(0.3)
        await load.drained()
        await load.timer.post("p", HOUR_S * 1_000, id="in an hour")
        load.acked.append("in an hour")
        clocked.set(HOUR_S + 60)
        await until(lambda: any(event.id == "in an hour" for event in load.events))
        await load.lasts(0.5)
        await load.drained()

        first = next(event for event in load.events if event.id == "in an hour")
        assert lateness_ms(first) < 60_000 + LATE_MS
        load.judge(late_ms=60_000 + LATE_MS)
        await until(lambda: all(node.errors for node in load.nodes))
        assert [node.error_types() for node in load.nodes] == [[StoreClockLeapt]] * 2
        assert all(round(node.errors[0].leap_us / 1e6) == HOUR_S + 60 for node in load.nodes)  # type: ignore[attr-defined]
        assert all(node.timer.counters.clock_leaps == 1 for node in load.nodes)


async def test_a_node_that_was_forgotten_while_it_was_away_joins_again(clocked: Clocked) -> None:
    """Rule N3: members that have not claimed for a hundred seconds are removed; here the clock makes them pass."""
    async with RedisWorld(clocked.server) as world:
        nodes = [await world.node(name) for name in "ab"]
        clocked.set(150)
        await until(lambda: sum(node.timer.counters.rejoins for node in nodes) >= 1)
        await until(lambda: all(node.timer.counters.claims > 1 for node in nodes))
        await world.timer().post("p", 0)
        await until(lambda: any(node.events for node in nodes))

        assert all(node.error_types() == [StoreClockLeapt] for node in nodes)


@pytest.mark.parametrize("years", [130, 200, 300, 10_000])
async def test_a_clock_a_century_ahead_for_a_moment_bricks_nothing(clocked: Clocked, years: int) -> None:
    """Rule T2: with a date that dtimer takes, time goes on from there; with one that it does not, each call is refused
    until the clock is right again, and has changed nothing."""
    async with RedisWorld(clocked.server) as world:
        node = await world.node("n")
        await node.timer.post("p", 0, id="before")
        await until(lambda: node.events)
        claims = node.timer.counters.claims
        clocked.set(years * YEAR_US / SECOND_US)
        await until(lambda: node.timer.counters.claims > claims + 2)
        clocked.set(0)
        await until(lambda: abs(seconds_ahead(clocked.server)) < 1)
        claims = answered(node)
        await until(lambda: answered(node) > claims + 2)

        fresh = world.timer()
        await fresh.post("p", 200, id="after")
        await until(lambda: "after" in node.ids)
        await fresh.post("p", 60_000, id="later")
        assert [event.id for event in await fresh.upcoming()] == ["later"]
        assert await fresh.cancel("later")


async def test_times_of_day_are_right_at_once_after_a_leap_that_was_taken_back(
    clocked: Clocked, figure: Figure
) -> None:
    """Rules T2 and T6: a day ahead for one claim, and right again. What is given as a time of day afterwards comes at
    that time, a delay is as long as ever, and each event says the time that it was posted for."""
    async with RedisWorld(clocked.server) as world:
        node = await world.node()
        await leap(clocked, node, 24 * HOUR_S)
        started_us = time.time_ns() // 1_000
        due = datetime.now(UTC) + timedelta(milliseconds=700)
        await node.timer.post("p", at=due, id="at")
        await node.timer.post("p", 700, id="after")
        await node.timer.post("p", at=due + timedelta(days=1), id="tomorrow")
        shown = await node.timer.peek("at")
        await until(lambda: len(node.events) == 2)
        taken_ms = (time.time_ns() // 1_000 - started_us) / 1_000
        figure(taken_ms=taken_ms)

        assert shown is not None
        assert shown.due == due
        assert shown.time_left < timedelta(seconds=1)
        assert 700 <= taken_ms < 700 + LATE_MS
        assert {event.id: event.due for event in node.events}["at"] == due
        assert abs(node.events[1].delivered_at - due) < timedelta(milliseconds=LATE_MS)
        assert [event.id for event in await node.timer.upcoming()] == ["tomorrow"]


async def leap(clocked: Clocked, node: Node, by_s: float) -> None:
    """Ahead until the node has claimed once, and right again until it has claimed once more."""
    for offset_s in (by_s, 0.0):
        await set_and_claim(clocked, node, offset_s)


async def set_and_claim(clocked: Clocked, node: Node, offset_s: float) -> None:
    clocked.set(offset_s)
    await until(lambda: abs(seconds_ahead(clocked.server) - offset_s) < 1)
    claims = answered(node)
    await until(lambda: answered(node) > claims)


async def test_a_reset_puts_right_what_was_posted_before_a_leap(clocked: Clocked, figure: Figure) -> None:
    """Rules T2 and T6: what was posted for a time of day before the clock was a day ahead is due at that time again;
    a delay that the leap made overdue comes at once; other delays keep what the leap left of them."""
    async with RedisWorld(clocked.server) as world:
        backend = world.backend()
        timer: DTimer = DTimer(backend)
        due = datetime.now(UTC) + timedelta(seconds=3)
        await timer.post("p", at=due, id="at")
        await timer.post("p", HOUR_S * 1_000, id="overdue")
        await timer.post("p", timedelta(days=2), id="after")
        for offset_s in (24 * HOUR_S, 0.0):
            clocked.set(offset_s)
            await until(lambda wanted_s=offset_s: abs(seconds_ahead(clocked.server) - wanted_s) < 1)  # type: ignore[misc]
            await timer.cancel("none")

        done = await backend.reset_clock()
        node = await world.node()
        await until(lambda: len(node.events) == 2)
        late_ms = (datetime.now(UTC) - due) / timedelta(milliseconds=1)
        figure(late_ms=late_ms)
        left = await timer.peek("after")

        assert round(done.skew_us / 1e6) == 24 * HOUR_S
        assert node.ids == ["overdue", "at"]
        assert node.events[1].due == due
        assert 0 <= late_ms < LATE_MS
        assert left is not None
        assert timedelta(hours=23) < left.time_left < timedelta(hours=24)
        assert (await backend.open()).skew_us == 0
        assert not node.errors


async def test_a_clock_that_jumps_about_loses_nothing(clocked: Clocked, figure: Figure) -> None:
    """Rules T2 and D2: forward and back by seconds, ten times a second. Forward steps bring deadlines early, so events
    may come twice, as counted attempts; none is lost, and none comes before its time by the store's clock."""
    async with RedisWorld(clocked.server) as world, under_load(world) as load:
        jumping = asyncio.create_task(jump_about(clocked, 20))
        await load.lasts(2)
        await jumping
        await load.drained()
        figure(deliveries=len(load.events), events=len(load.acked))

        # Each step forward makes everything later by that clock, so lateness says nothing here.
        load.judge(late_ms=math.inf)
        assert any(node.timer.counters.clock_steps for node in load.nodes)


async def jump_about(clocked: Clocked, times: int) -> None:
    for number in range(times):
        clocked.set((number % 2) * 3 - 1.5)
        await asyncio.sleep(0.1)


async def test_a_step_back_while_the_server_is_down_changes_nothing(
    first_program: Binary, library: Path, tmp_path: Path
) -> None:
    """Rule T2: the last time given is on disk with the rest."""
    with (
        host_clock(tmp_path, library) as clock,
        running(first_program, clock.environment, appendonly="yes", appendfsync="always") as server,
    ):
        async with RedisWorld(server) as world:
            timer: DTimer = DTimer(world.backend())
            await timer.post("p", 1_000, id="e")
            server.kill()
            clock.set(-HOUR_S)
            server.start()
            started = time.monotonic()
            node = await world.node()
            await until(lambda: node.events)

            assert seconds_ahead(server) < -HOUR_S + 1
            assert (time.monotonic() - started) * 1_000 < 1_000 + LATE_MS
            assert lateness_ms(node.events[0]) >= 0


async def test_processes_whose_clocks_are_wrong_come_on_time(
    one_server: Server, wrong: Callable[[float], dict[str, str]], figure: Figure
) -> None:
    """Rules T1 and D7: one process lives five hours ago, one in five hours; neither is early, late or left out."""
    async with (
        node_process(one_server.url, NAMESPACE, "past", environment=wrong(-5 * HOUR_S)) as past,
        node_process(one_server.url, NAMESPACE, "future", environment=wrong(5 * HOUR_S)) as future,
        beside(one_server) as other,
    ):
        await until(lambda: past.ready and future.ready, timeout_s=START_TIMEOUT_S)
        await DTimer(other).post_many(Post(payload={}, delay=100 + 40 * n, id=str(n), max_retries=1) for n in range(20))
        await until(lambda: len(past.said_of("confirmed")) + len(future.said_of("confirmed")) == 20)
        late = [said["lateness_ms"] for said in (*past.got, *future.got)]
        figure(worst_lateness_ms=max(late))

        assert past.said_of("ready")[0]["clock"] < time.time() - 4 * HOUR_S
        assert future.said_of("ready")[0]["clock"] > time.time() + 4 * HOUR_S
        assert len(late) == 20
        assert min(late) >= 0
        assert max(late) < LATE_MS
        assert min(len(past.got), len(future.got)) >= 5
        assert not past.errors + future.errors
