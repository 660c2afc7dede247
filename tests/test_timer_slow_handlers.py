"""Handlers that take longer than the confirm timeout (rule D4)."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any, cast

import pytest

from dtimer import (
    ConfirmedTooLate,
    ConfirmOutcome,
    DTimer,
    DTimerError,
    Event,
    Exhausted,
    HandlerFailed,
    Post,
    RedisBackend,
    Retry,
    SimBackend,
    StoreUnreachable,
)
from dtimer.arguments import Timeout
from node.watched import Watched
from support.servers import Server
from support.waiting import until


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


def noting(timer: DTimer) -> tuple[list[DTimerError], list[Exhausted]]:
    errors: list[DTimerError] = []
    exhausted: list[Exhausted] = []
    timer.on("error", errors.append)
    timer.on("exhausted", exhausted.append)
    return errors, exhausted


@pytest.mark.parametrize("growing", [True, False], ids=["simulator's pace", "servers' pace"])
async def test_a_handler_of_25_s_with_the_default_timeout_runs_once(sim: SimBackend, growing: bool) -> None:
    """It ran at 0, 10, 20 and 30 s, up to three times at once, and ended as a dead letter."""
    backend = sim if growing else Watched(sim)
    first, second = DTimer(backend), DTimer(backend)
    runs: list[Any] = []

    async def handle(event: Event) -> None:
        async with event:
            runs.append(event.num_retries)
            await sim.sleep(25_000)
            assert not event.lost.is_set()

    notes = [noting(timer) for timer in (first, second)]
    for timer in (first, second):
        timer.on("event", handle)
    async with first, second:
        await first.post("p", 0, id="x", max_retries=3, keep=True)
        await sim.advance(60_000)
        assert await first.peek("x") is None
        assert not (await sim.dead_letters(None, limit=1)).value.items

    assert runs == [0]
    assert first.counters.confirmed + second.counters.confirmed == 1
    assert notes == [([], [])] * 2


async def test_extensions_ride_on_claims_and_go_alone_when_there_are_none(sim: SimBackend) -> None:
    """A full node claims only every ten seconds."""
    for max_events, alone in ((1, True), (8, False)):
        watched = Watched(sim)
        timer = DTimer(watched, max_events=max_events, confirm_timeout=3)

        @timer.on("event")
        async def handle(event: Event) -> None:
            async with event:
                await sim.sleep(9_000)

        async with timer:
            await timer.post("p", 0, id="x", max_retries=3)
            await sim.advance(12_000)

        assert (timer.counters.delivered, timer.counters.confirmed) == (1, 1)
        assert bool(watched.count("extend")) == alone


async def test_a_node_that_drains_goes_on_extending(sim: SimBackend) -> None:
    watched = Watched(sim)
    timer, other = DTimer(watched, confirm_timeout=1), DTimer(watched)

    async def handle(event: Event) -> None:
        async with event:
            await sim.sleep(9_000)

    timer.on("event", handle)
    await timer.join()
    await timer.post("p", 0, id="x", max_retries=3)
    await sim.advance(100)
    other.on("event", handle)
    await other.join()
    leaving = asyncio.create_task(timer.leave())
    await sim.advance(15_000)
    await leaving
    await other.leave()

    assert (timer.counters.confirmed, other.counters.delivered) == (1, 0)


async def test_a_failed_extension_is_tried_again(sim: SimBackend) -> None:
    watched = Watched(sim)
    timer = DTimer(watched, max_events=1, confirm_timeout=30)

    @timer.on("event")
    async def handle(event: Event) -> None:
        async with event:
            await sim.sleep(100_000)

    async with timer:
        await timer.post("p", 0, id="x", max_retries=3)
        await sim.advance(100)
        watched.fail("extend", StoreUnreachable, times=3)
        await sim.advance(120_000)

    assert (timer.counters.delivered, timer.counters.confirmed) == (1, 1)


async def test_a_handler_that_sleeps_for_a_day_costs_a_few_looks(sim: SimBackend) -> None:
    timer = DTimer(sim, max_run=timedelta(days=2))
    looks = 0

    def counted() -> None:
        nonlocal looks
        looks += 1
        look()

    @timer.on("event")
    async def handle(event: Event) -> None:
        async with event:
            await sim.sleep(timedelta(days=1))

    async with timer:
        look = timer._deliveries.upkeep._look
        timer._deliveries.upkeep._look = counted  # type: ignore[method-assign]
        await timer.post("p", 0, max_retries=1)
        await sim.advance(timedelta(days=1, seconds=1))
        assert timer.counters.confirmed == 1

    assert looks < 200  # twelve for each doubling of what it has lasted


@pytest.mark.parametrize("policy", [None, Retry(1_000)])
async def test_a_handler_that_runs_for_too_long_is_cancelled_and_has_failed(
    sim: SimBackend, policy: Retry | None
) -> None:
    timer = DTimer(sim, max_run=60)
    errors, _ = noting(timer)
    began: list[float] = []
    start = sim.now

    @timer.on("event")
    async def handle(event: Event) -> None:
        began.append(round((sim.now - start).total_seconds()))
        async with event:
            await sim.sleep(1e9 if len(began) == 1 else 1)

    async with timer:
        await timer.post("p", 0, max_retries=1, retry=policy)
        await sim.advance(59_000)
        assert not errors
        await sim.advance(200_000)

    assert [type(error) for error in errors] == [HandlerFailed]
    assert "max_run" in str(errors[0])
    assert began[0] == 0
    assert 61 <= began[1] <= (62 if policy else 125)
    assert (timer.counters.handler_errors, timer.counters.confirmed) == (1, 1)


@pytest.mark.parametrize("timers", [1, 1_000])
@pytest.mark.parametrize("own", [5, timedelta(hours=9)])
async def test_an_events_own_max_run_goes_before_the_timers(sim: SimBackend, timers: float, own: Timeout) -> None:
    """Also when its dead letter is sent again; and an event without one beside it has the timer's."""
    timer = DTimer(sim, max_run=timers)
    errors, exhausted = noting(timer)
    lasted: list[tuple[str, int]] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        start = sim.now
        try:
            async with event:
                await sim.sleep(1e12)
        finally:
            lasted.append((event.id, round((sim.now - start).total_seconds())))

    own_s = own.total_seconds() if isinstance(own, timedelta) else own
    async with timer:
        await timer.post_many(
            [
                Post(payload="p", delay=0, id="own", keep=True, max_run=own, retry=Retry(0)),
                Post(payload="p", delay=0, id="timer's", keep=True, retry=Retry(0)),
            ]
        )
        await sim.advance(timedelta(hours=10))
        await timer.resend("own")
        await sim.advance(timedelta(hours=10))

    assert sorted(lasted) == sorted([("own", own_s), ("timer's", timers), ("own", own_s)])
    assert len(errors) == len(exhausted) == 3


async def test_a_short_max_run_counts_from_the_delivery(sim: SimBackend) -> None:
    """Also beside an event whose long timeout asks for few looks, and with a timeout that is much longer itself."""
    watched = Watched(sim)
    timer = DTimer(watched, confirm_timeout=timedelta(hours=1))
    errors, _ = noting(timer)
    lasted: list[tuple[str, float]] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        start = sim.now
        try:
            async with event:
                await sim.sleep(1_000_000 if event.id == "long" else 60_000)
        finally:
            lasted.append((event.id, (sim.now - start).total_seconds()))

    async with timer:
        await timer.post("p", 0, id="long", max_retries=1)
        await timer.post("p", 595_000, id="short", keep=True, max_run=12)
        await timer.post("p", 596_000, id="done", keep=True, max_run=80)
        await sim.advance(timedelta(hours=1))

    assert [(name, round(seconds)) for name, seconds in lasted] == [("short", 12), ("done", 60), ("long", 1_000)]
    assert [type(error) for error in errors] == [HandlerFailed]
    assert timer.counters.confirmed == 2


async def test_a_thread_that_runs_for_too_long_is_reported_and_no_longer_extended(server: Server) -> None:
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend, plain_handlers="thread", max_run=0.3, confirm_timeout=0.2)
        errors, _ = noting(timer)
        go_on = threading.Event()
        runs: list[int] = []

        def handle(event: Event) -> None:
            runs.append(event.num_retries)
            if not event.num_retries:
                go_on.wait(20)
            event.confirm()

        timer.on("event", handle)
        async with timer:
            await timer.post("p", 0, max_retries=3)
            await until(lambda: errors)
            assert "cannot be cancelled" in str(errors[0])
            await until(lambda: len(runs) == 2)
            go_on.set()
            await until(lambda: timer._deliveries.room() == 8)

        assert timer.counters.confirmed == 1


async def test_a_handler_is_told_at_once_that_its_delivery_is_lost(sim: SimBackend) -> None:
    """And no error is told when it was cancelled or replaced: that was somebody's wish."""
    timer = DTimer(Watched(sim), confirm_timeout=3)
    errors, _ = noting(timer)
    told: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        async with event:
            for _ in range(20):
                await sim.sleep(250)
                if event.lost.is_set():
                    break
            told.append((event.payload, event.lost.is_set()))
        told.append((event.outcome, event.settled))

    async with timer:
        await timer.post("p", 0, id="x", max_retries=3)
        await sim.advance(500)
        await timer.cancel("x")
        await sim.advance(10_000)

    assert told == [("p", True), (ConfirmOutcome.NOT_FOUND, False)]
    assert errors == []
    assert timer.counters.confirmed_too_late == 0


async def test_a_post_under_its_own_id_within_its_block_is_no_error(sim: SimBackend) -> None:
    timer = DTimer(sim)
    errors, _ = noting(timer)
    outcomes: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        async with event:
            number = cast("int", event.payload)
            if number < 3:
                await timer.post(number + 1, 20_000, id=event.id, max_retries=1)
        outcomes.append((event.outcome, event.settled))

    async with timer:
        await timer.post(1, 0, id="x", max_retries=1)
        await sim.advance(100_000)

    assert outcomes[-1] == (ConfirmOutcome.CONFIRMED, True)
    assert [settled for _, settled in outcomes] == [False, False, True]
    assert errors == []


async def test_a_confirm_that_comes_too_late_is_told(sim: SimBackend) -> None:
    """The way to the store was broken for the extensions, and the event was given out again meanwhile."""
    watched = Watched(sim)
    slow, quick = DTimer(watched, confirm_timeout=2, max_events=1), DTimer(sim)
    errors, _ = noting(slow)
    settled: list[Any] = []

    @slow.on("event")
    async def handle(event: Event) -> None:
        async with event:
            await sim.sleep(20_000)
        settled.append((event.settled, bool(event.outcome)))

    await slow.join()
    await slow.post("p", 0, id="x", max_retries=3)
    await sim.advance(100)
    quick.on("event", lambda event: event.confirm())
    await quick.join()
    watched.fail("extend", StoreUnreachable, times=10_000)
    watched.fail("claim", StoreUnreachable, times=10)
    await sim.advance(15_000)
    watched.heal()
    await sim.advance(30_000)
    await slow.leave()
    await quick.leave()

    late = [error for error in errors if isinstance(error, ConfirmedTooLate)]
    assert [(error.id, error.outcome) for error in late] == [("x", ConfirmOutcome.NOT_FOUND)]
    assert settled == [(False, False)]
    assert slow.counters.confirmed_too_late == 1


@pytest.mark.parametrize("end", ["settled", "next", "closed"])
async def test_what_an_iterator_gave_out_is_extended_until_it_is_over(sim: SimBackend, end: str) -> None:
    watched = Watched(sim)
    timer = DTimer(watched, confirm_timeout=2)
    await timer.join()
    await timer.post("p", 0, id="x", max_retries=3)
    events = timer.events()
    taking = asyncio.ensure_future(anext(events))
    await sim.advance(10)
    event = await taking
    await sim.advance(60_000)
    pending = await timer.peek("x")
    assert pending is not None
    assert (pending.state.value, pending.num_retries) == ("unconfirmed", 0)
    if end == "settled":
        assert await event.confirm()
    elif end == "closed":
        await events.aclose()
        asked, deadline = len(watched.extended), event.deadline
        another = DTimer(sim)
        again: list[Event] = []
        another.on("event", again.append)
        await another.join()
        assert deadline is not None
        await sim.advance_to(deadline - timedelta(milliseconds=1))
        assert not again
        await sim.advance(120_000)
        assert len(watched.extended) == asked > 0
        assert event.deadline == deadline
        first, *_ = again
        assert (first.id, first.num_retries, first.due) == ("x", 1, deadline)
        assert first.lateness < timedelta(milliseconds=100)
        await another.leave(drain=False)
    else:
        following = asyncio.ensure_future(anext(events))
        await sim.advance(120_000)
        assert (await following).num_retries == 1
    await timer.leave(drain=False)


async def test_a_handler_that_extends_further_by_itself_is_left_alone(sim: SimBackend) -> None:
    watched = Watched(sim)
    timer = DTimer(watched, max_events=1, confirm_timeout=2)

    @timer.on("event")
    async def handle(event: Event) -> None:
        async with event:
            await event.extend(100)
            await sim.sleep(30_000)

    async with timer:
        await timer.post("p", 0, id="x", max_retries=3)
        await sim.advance(40_000)

    assert len(watched.count("extend")) == 1
    assert timer.counters.confirmed == 1
