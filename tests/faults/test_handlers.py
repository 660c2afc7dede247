"""Handlers that raise, hang, block the loop or outlive their timeout; bursts, and a backlog (F3, D1, D2, D8, N2)."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Final

import pytest

from dtimer import ConfirmOutcome, DTimer, Event, HandlerFailed, Post, Retry
from dtimer.protocol.values import Parked
from support.bounds import LATE_MS
from support.figures import Figure
from support.members import beside
from support.processes import node_processes
from support.servers import Server
from support.waiting import TIMEOUT_S, until
from support.worlds import NAMESPACE, RedisWorld, lateness_ms

BACKLOG: Final = 5_000


async def test_handlers_that_raise_fail_alone(one_world: RedisWorld) -> None:
    """Rules F3 and F5: each of many that raise is reported and comes again by its policy; the others of the same claim
    are confirmed."""

    async def handle(event: Event) -> None:
        async with event:
            if event.payload == "bad" and event.num_retries < 2:
                raise ValueError(event.id)

    node = await one_world.node("n", handle)
    await node.timer.post_many(
        Post(payload=kind, delay=50, id=f"{kind}{n}", max_retries=5, retry=Retry(50))
        for n in range(8)
        for kind in ("good", "bad")
    )
    await one_world.until_quiet()
    attempts = Counter(id for id, _ in node.attempts)

    assert attempts == {f"good{n}": 1 for n in range(8)} | {f"bad{n}": 3 for n in range(8)}
    assert node.error_types() == [HandlerFailed] * 16
    assert node.timer.counters.handler_errors == 16


async def test_a_handler_that_hangs_keeps_its_own_room_only(one_world: RedisWorld, figure: Figure) -> None:
    """Rules D1, D4, D8 and N2: it is cancelled after `max_run`, its event comes again, and all else goes on."""
    never = asyncio.Event()

    async def hang(event: Event) -> None:
        if event.payload == "hang" and event.num_retries == 0:
            await never.wait()
        await event.confirm()

    nodes = [await one_world.node(name, hang, max_events=2, confirm_timeout=0.5, max_run=1) for name in "ab"]
    timer = one_world.timer()
    await timer.post("hang", 0, id="hang", max_retries=2)
    await timer.post_many(Post(payload=n, delay=50 * n, id=str(n), max_retries=2) for n in range(20))
    await one_world.until_quiet()
    events = [event for node in nodes for event in node.events]
    never.set()
    figure(worst_lateness_ms=max(map(lateness_ms, events)))

    assert sorted(event.num_retries for event in events if event.id == "hang") == [0, 1]
    assert len(events) == 22
    assert max(map(lateness_ms, events)) < LATE_MS


async def test_a_handler_that_outlives_its_timeout_cannot_end_what_came_after_it(one_world: RedisWorld) -> None:
    """Rules D1, D4 and E1: what a handler leaves to a task of its own is claimed again at its deadline, here by
    the same node; of the two confirms only the newer delivery's counts. While a handler runs, its is left alone."""
    outcomes: dict[tuple[str, int], ConfirmOutcome] = {}
    first_is_over = asyncio.Event()
    later: list[asyncio.Task[None]] = []

    async def slow(event: Event) -> None:
        if event.num_retries:
            await first_is_over.wait()
        elif event.id == "extended":
            await asyncio.sleep(1)
        else:
            later.append(asyncio.create_task(after_the_second(event)))
            return
        outcomes[event.id, event.num_retries] = await event.confirm()

    async def after_the_second(event: Event) -> None:
        await one_world.until(lambda: ("slow", 1) in node.attempts)
        outcomes[event.id, event.num_retries] = await event.confirm()
        first_is_over.set()

    node = await one_world.node("n", slow, confirm_timeout=0.4)
    await node.timer.post("p", 0, id="slow", max_retries=2)
    await node.timer.post("p", 0, id="extended", max_retries=2)
    await one_world.until(lambda: len(outcomes) == 3)

    assert outcomes == {
        ("extended", 0): ConfirmOutcome.CONFIRMED,
        ("slow", 0): ConfirmOutcome.STALE,
        ("slow", 1): ConfirmOutcome.CONFIRMED,
    }


@pytest.mark.once
async def test_a_process_whose_loop_is_blocked_delays_what_it_was_to_take_and_no_more(
    one_server: Server, figure: Figure
) -> None:
    """Rules W5 and D7: a handler that does not let go of the event loop makes its node deaf and dumb; the others see
    that it does not come, and pass it over until it does."""
    async with (
        node_processes(one_server.url, NAMESPACE, ["a", "b"], 8, 10) as nodes,
        beside(one_server) as other,
    ):

        async def is_suspect() -> bool:
            ring = (await other.inspect()).value.ring
            return any(member.node == blocked.id and member.parked is Parked.SUSPECT for member in ring)

        async def suspected(wanted: bool) -> None:
            async with asyncio.timeout(TIMEOUT_S):
                while await is_suspect() is not wanted:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)

        timer = DTimer(other)
        await timer.post({"block": 4}, 0, id="block", max_retries=1)
        await until(lambda: any(node.got for node in nodes))
        blocked, free = sorted(nodes, key=lambda node: not node.got)
        await timer.post_many(Post(payload={}, delay=200 * n, id=str(n), max_retries=1) for n in range(12))
        await until(lambda: free.got)
        await suspected(True)
        await until(lambda: len(free.said_of("confirmed")) >= 11)
        late = [said["lateness_ms"] for said in free.got]
        figure(worst_lateness_ms=max(late), events=len(late))
        await until(lambda: blocked.said_of("confirmed"))

        assert max(late) < LATE_MS
        assert not free.errors
        await suspected(False)


async def test_a_burst_goes_to_all_who_have_room_at_once(one_world: RedisWorld, figure: Figure) -> None:
    """Rules D6, D8 and N2: a thousand events that fall due together, four nodes, never more than their room each."""
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def work(event: Event) -> None:
        node = next(node for node in nodes if event in node.events[-64:])
        running[node.id] += 1
        most[node.id] = max(most[node.id], running[node.id])
        await asyncio.sleep(0.002)
        running[node.id] -= 1
        await event.confirm()

    nodes = [await one_world.node(name, work, max_events=8) for name in "abcd"]
    timer = one_world.timer()
    await timer.post_many(Post(payload=n, delay=300, id=str(n), max_retries=1) for n in range(1_000))
    started = time.monotonic()
    await one_world.until_quiet()
    events = [event for node in nodes for event in node.events]
    figure(seconds=time.monotonic() - started, shares=min(len(node.events) for node in nodes))

    assert Counter(event.id for event in events) == Counter(map(str, range(1_000)))
    assert max(most.values()) <= 8
    assert min(len(node.events) for node in nodes) > 0


async def test_a_backlog_is_delivered_in_due_order_when_somebody_comes(one_world: RedisWorld, figure: Figure) -> None:
    """Rules T4, D5 and N2: nobody was there for thousands of events; who joins takes them oldest first, no more at once
    than it has room for."""
    timer = one_world.timer()
    await timer.post_many(Post(payload=n, delay=0, id=str(n)) for n in range(BACKLOG))
    started = time.monotonic()
    node = await one_world.node("n", max_events=100)
    await one_world.until(lambda: len(node.events) == BACKLOG)
    figure(events_per_s=BACKLOG / (time.monotonic() - started))

    assert [event.payload for event in node.events] == list(range(BACKLOG))
    assert await one_world.nothing_is_kept()
