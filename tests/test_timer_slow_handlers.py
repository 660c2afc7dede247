"""Handlers that take longer than the confirm timeout (rule D4)."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from typing import Any, cast

import pytest

from dtimer import (
    BackendError,
    ConfirmedTooLate,
    ConfirmOutcome,
    DTimer,
    DTimerError,
    Ended,
    Event,
    HandlerFailed,
    OutcomeUnknown,
    Post,
    RedisBackend,
    Retry,
    SimBackend,
    StoreRefused,
    StoreUnreachable,
)
from dtimer._validation import Timeout
from node.watched import Watched
from support.inside import dispatcher_of
from support.servers import Server
from support.waiting import until


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


def noting(timer: DTimer) -> tuple[list[DTimerError], list[Ended]]:
    errors: list[DTimerError] = []
    ended: list[Ended] = []
    timer.on("error", errors.append)
    timer.on("ended", ended.append)
    return errors, ended


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
        await first.post("p", 0, id="x", max_retries=3, dead_letter=True)
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


@pytest.mark.parametrize("days", [1, 10, 300])
async def test_what_a_handler_costs_that_sleeps_for_days_does_not_depend_on_how_many(
    sim: SimBackend, days: int
) -> None:
    timer = DTimer(sim, max_run=timedelta(days=2 * days))
    looks = 0

    def counted() -> None:
        nonlocal looks
        looks += 1
        look()

    @timer.on("event")
    async def handle(event: Event) -> None:
        async with event:
            await sim.sleep(timedelta(days=days))

    async with timer:
        look = dispatcher_of(timer).extender._look
        dispatcher_of(timer).extender._look = counted  # type: ignore[method-assign]
        await timer.post("p", 0, max_retries=1)
        await sim.advance(timedelta(days=days, seconds=1))
        assert timer.counters.confirmed == 1
        assert timer.counters.delivered == 1

    assert looks <= 10


@pytest.mark.parametrize("how", ["returns", "raises", "is cancelled", "leaves an iterator"])
async def test_what_was_slow_and_is_not_settled_comes_again_as_soon_as_in_production(sim: SimBackend, how: str) -> None:
    """Although the simulator moves deadlines further: one timeout after the handler's end at most."""
    timer, other = DTimer(sim, max_run=timedelta(days=2)), DTimer(sim)
    again: list[Event] = []
    tasks: list[asyncio.Task[Any] | None] = []
    noting(timer)
    other.on("event", again.append)

    async def handle(event: Event) -> None:
        tasks.append(asyncio.current_task())
        if how == "is cancelled":
            async with event:
                await sim.sleep(timedelta(hours=20))
            return
        # In a task of its own, so that until when it sleeps is not known.
        await asyncio.gather(sim.sleep(timedelta(hours=10)))
        if how == "raises":
            raise ValueError

    await timer.join()
    await timer.post("p", 0, id="x", max_retries=1)
    if how == "leaves an iterator":
        events = timer.events()
        taking = asyncio.ensure_future(anext(events))
        await sim.advance(timedelta(hours=10))
        await taking
        await events.aclose()
    else:
        timer.on("event", handle)
        await sim.advance(timedelta(hours=10))
        if how == "is cancelled":
            assert tasks[0] is not None
            tasks[0].cancel()
    await timer.leave(drain=False)
    await other.join()
    await sim.advance(11_000)

    assert [event.num_retries for event in again] == [1]
    await other.leave()


async def test_a_handler_that_hears_of_its_loss_does_so_while_it_sleeps(sim: SimBackend) -> None:
    """Another task of it waits for that, so that it does not merely sleep."""
    timer = DTimer(sim, max_run=timedelta(days=2))
    lost: list[float] = []
    start = sim.now

    @timer.on("event")
    async def handle(event: Event) -> None:
        async def listen() -> None:
            await event.lost.wait()
            lost.append((sim.now - start).total_seconds())

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        async with event:
            await sim.sleep(timedelta(days=1))
        await listening

    async with timer:
        await timer.post("p", 0, id="x", max_retries=1)
        await sim.advance(60_000)
        await timer.cancel("x")
        await sim.advance(120_000)
        assert lost
        await sim.advance(timedelta(days=1))


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
    errors, ended = noting(timer)
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
                Post(payload="p", delay=0, id="own", dead_letter=True, max_run=own, retry=Retry(0)),
                Post(payload="p", delay=0, id="timer's", dead_letter=True, retry=Retry(0)),
            ]
        )
        await sim.advance(timedelta(hours=10))
        await timer.resend("own")
        await sim.advance(timedelta(hours=10))

    assert sorted(lasted) == sorted([("own", own_s), ("timer's", timers), ("own", own_s)])
    assert len(errors) == len(ended) == 3


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
        await timer.post("p", 595_000, id="short", dead_letter=True, max_run=12)
        await timer.post("p", 596_000, id="done", dead_letter=True, max_run=80)
        await sim.advance(timedelta(hours=1))

    assert [(name, round(seconds)) for name, seconds in lasted] == [("short", 12), ("done", 60), ("long", 1_000)]
    assert [type(error) for error in errors] == [HandlerFailed]
    assert timer.counters.confirmed == 2


async def test_a_thread_that_runs_for_too_long_is_reported_and_no_longer_extended(server: Server) -> None:
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend, plain_handlers="thread", max_run=0.3, confirm_timeout=0.2)
        errors, _ = noting(timer)
        go_on = threading.Event()
        runs: list[Event] = []

        def handle(event: Event) -> None:
            runs.append(event)
            if not event.num_retries:
                go_on.wait(20)
            event.confirm()

        timer.on("event", handle)
        async with timer:
            await timer.post("p", 0, max_retries=3)
            await until(lambda: errors)
            assert "cannot be cancelled" in str(errors[0])
            assert timer.counters.handler_errors == 1
            deadline = runs[0].deadline
            await until(lambda: len(runs) == 2)
            assert runs[0].deadline == deadline
            go_on.set()
            await until(lambda: dispatcher_of(timer).room() == 8)

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


LONG_MS = 40_000


@pytest.mark.parametrize("growing", [True, False], ids=["simulator's pace", "servers' pace"])
@pytest.mark.parametrize("wish", ["cancel", "own cancel", "replace", "own replace", "taken by another"])
async def test_a_handler_may_go_on_for_long_after_its_event_was_cancelled_or_replaced(
    sim: SimBackend, growing: bool, wish: str
) -> None:
    """Its confirm comes when the deadline has passed, since nothing extends what is lost. It is not too late."""
    backend = sim if growing else Watched(sim)
    timer, another = DTimer(backend, confirm_timeout=3), DTimer(backend, confirm_timeout=3)
    errors, _ = noting(timer)
    outcomes: list[Any] = []

    async def act(by: DTimer) -> None:
        if "cancel" in wish:
            await by.cancel("x")
        else:
            await by.post("new", 0 if wish == "taken by another" else 3_600_000, id="x", max_retries=1)

    async def handle(event: Event) -> None:
        async with event:
            if event.payload == "old":
                if "own" in wish:
                    await act(timer)
                await sim.sleep(LONG_MS)
                assert event.lost.is_set()
                outcomes.append("late")
        outcomes.append((event.payload, event.settled))

    timer.on("event", handle)
    async with timer:
        await timer.post("old", 0, id="x", max_retries=3)
        await sim.advance(1_000)
        if "own" not in wish:
            if wish == "taken by another":
                another.on("event", handle)
                await another.join()
            await act(another)
        await sim.advance(2 * LONG_MS)
        await another.leave()

    assert outcomes[-2:] == ["late", ("old", False)]
    assert errors == []
    assert timer.counters.confirmed_too_late == 0


@pytest.mark.parametrize("end", ["confirm", "release", "bury", "block", "lost"])
async def test_a_handler_that_goes_on_after_its_event_is_over_is_cancelled_too(sim: SimBackend, end: str) -> None:
    """It takes up room, however little there is to extend."""
    timer = DTimer(Watched(sim), max_run=60, max_events=1)
    errors, _ = noting(timer)
    handled: list[str] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        handled.append(event.id)
        if end == "block":
            async with event:
                pass
        elif end != "lost" or event.id == "next":
            await {"release": lambda: event.release(10**8), "bury": lambda: event.bury("")}.get(end, event.confirm)()
        if event.id == "x":
            await sim.sleep(1e12)

    async with timer:
        await timer.post_many([Post(payload="p", delay=n, id=id, max_retries=1) for n, id in enumerate(("x", "next"))])
        await sim.advance(1_000)
        if end == "lost":
            await timer.cancel("x")
        await sim.advance(58_000)
        assert handled == ["x"]
        assert not errors
        await sim.advance(15_000)

    assert handled == ["x", "next"]
    assert [type(error) for error in errors] == [HandlerFailed]
    assert timer.counters.handler_errors == 1


@pytest.mark.parametrize("kind", ["beside a thread", "returned by a thread"])
async def test_a_coroutine_is_cancelled_although_plain_handlers_run_in_threads(server: Server, kind: str) -> None:
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend, plain_handlers="thread", max_run=0.3, confirm_timeout=0.2)
        errors, _ = noting(timer)
        cancelled: list[str] = []

        async def hang(event: Event) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(event.id)

        def plain(event: Event) -> object:
            return None if kind == "beside a thread" else hang(event)

        timer.on("event", plain)
        if kind == "beside a thread":
            timer.on("event", hang)
        async with timer:
            await timer.post("p", 0, id="x", dead_letter=True)
            await until(lambda: cancelled)
            await until(lambda: dispatcher_of(timer).room() == 8)

        assert cancelled == ["x"]
        assert "is cancelled" in str(errors[0])
        assert timer.counters.handler_errors == 1


async def test_what_a_thread_returns_after_its_time_is_cancelled(server: Server) -> None:
    """A coroutine: the thread itself could not be, and was reported."""
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend, plain_handlers="thread", max_run=0.3, confirm_timeout=0.2)
        errors, _ = noting(timer)
        reported = threading.Event()

        async def hang() -> None:
            await asyncio.Event().wait()

        def plain(event: Event) -> object:
            assert reported.wait(60)
            return hang()

        timer.on("event", plain)
        async with timer:
            await timer.post("p", 0, id="x", dead_letter=True)
            await until(lambda: errors)
            reported.set()
            await until(lambda: dispatcher_of(timer).room() == 8)

        assert "cannot be cancelled" in str(errors[0])
        assert timer.counters.handler_errors == 1


@pytest.mark.parametrize("end", ["returns", "raises"])
@pytest.mark.parametrize("call", ["confirm", "release", "bury"])
@pytest.mark.parametrize("error", [StoreUnreachable, StoreRefused, OutcomeUnknown])
async def test_what_failed_settles_nothing(sim: SimBackend, call: str, end: str, error: type[BackendError]) -> None:
    """Its delivery is extended as before, and how its block ends decides."""
    watched = Watched(sim)
    timer = DTimer(watched, confirm_timeout=10, max_events=1)
    _, ended = noting(timer)
    began: list[float] = []
    seen: list[Any] = []
    start = sim.now

    @timer.on("event")
    async def handle(event: Event) -> None:
        began.append((sim.now - start).total_seconds())
        calls: dict[str, Any] = {
            "confirm": lambda: event.confirm(repeat_within=0),
            "release": lambda: event.release(5_000),
            "bury": lambda: event.bury("why"),
        }
        async with event:
            if event.num_retries:
                return
            for operation in (call, "claim") if call == "confirm" else (call,):
                watched.fail(operation, error, times=100)
            failing = asyncio.ensure_future(calls[call]())
            while not failing.done():
                await sim.sleep(100)
            with pytest.raises(error):
                await failing
            watched.heal()
            seen.append((event.settled, event.outcome))
            await sim.sleep(LONG_MS)
            if end == "raises":
                raise ZeroDivisionError
        seen.append((event.settled, event.outcome))

    async with timer:
        await timer.post("p", 0, id="x", max_retries=3, retry=Retry(1_000))
        await sim.advance(3 * LONG_MS)

    assert seen[0] == (False, None)
    assert not ended
    settled = end == "returns" and call == "confirm"
    if settled:
        assert seen[1] == (True, ConfirmOutcome.CONFIRMED)
        assert len(began) == 1
    else:
        # By its policy after a failure; at its deadline if its block was left although nothing could be said of it.
        least_s = LONG_MS / 1_000 + (1 if end == "raises" else 0)
        assert least_s <= began[1] < least_s + (7 if end == "raises" else 20)
        assert len(began) == 2
    assert timer.counters.confirmed == 1


@pytest.mark.parametrize("first", ["confirm", "release", "bury"])
async def test_what_is_asked_for_a_second_time_in_vain_takes_nothing_back(sim: SimBackend, first: str) -> None:
    """Say by two handlers, each of which confirms by itself; the second comes when the old deadline has passed."""
    timer = DTimer(sim, confirm_timeout=2)
    errors, _ = noting(timer)
    seen: list[Any] = []

    @timer.on("event")
    async def quick(event: Event) -> None:
        calls: dict[str, Any] = {
            "confirm": event.confirm,
            "release": lambda: event.release(10**8),
            "bury": lambda: event.bury("why"),
        }
        both = [asyncio.ensure_future(calls[first]()), asyncio.ensure_future(event.confirm())]
        await asyncio.wait(both)

    @timer.on("event")
    async def slow(event: Event) -> None:
        await sim.sleep(LONG_MS)
        seen.append(event.settled)
        seen.append(bool(await event.confirm()))
        seen.append(event.settled)

    async with timer:
        await timer.post("p", 0, id="x", max_retries=2)
        await sim.advance(2 * LONG_MS)

    assert seen == [True, False, True]
    assert errors == []
    assert timer.counters.confirmed_too_late == 0


async def test_a_failed_handler_tells_the_store_once(sim: SimBackend) -> None:
    watched = Watched(sim)
    timer = DTimer(watched)
    noting(timer)
    timer.on("event", lambda event: 1 / 0)
    async with timer:
        await timer.post("p", 0, max_retries=1)
        await sim.advance(10)

    assert len(watched.count("release")) == 1


@pytest.mark.parametrize("away_s", [6, 12, 28])
@pytest.mark.parametrize("max_events", [1, 8])
async def test_a_node_does_not_take_its_own_event_again_when_its_store_is_back(
    sim: SimBackend, max_events: int, away_s: float
) -> None:
    """The deadline has passed, but the claim that would take the event extends it first."""
    watched = Watched(sim)
    timer = DTimer(watched, confirm_timeout=3, max_events=max_events)
    errors, _ = noting(timer)
    runs: list[int] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        runs.append(event.num_retries)
        async with event:
            await sim.sleep(60_000)

    async with timer:
        await timer.post("p", 0, max_retries=3)
        await sim.advance(2_000)
        for operation in ("claim", "extend"):
            watched.fail(operation, StoreUnreachable, times=10_000)
        await sim.advance(1_000 * away_s)
        watched.heal()
        await sim.advance(100_000)

    assert runs == [0]
    assert timer.counters.confirmed == 1
    assert not [error for error in errors if isinstance(error, ConfirmedTooLate)]


async def test_a_node_whose_loop_was_blocked_does_not_take_its_own_event_again(server: Server) -> None:
    """Unless another node has: nothing could be extended meanwhile."""
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend, confirm_timeout=0.3)
        noting(timer)
        runs: list[int] = []

        @timer.on("event")
        async def handle(event: Event) -> None:
            runs.append(event.num_retries)
            async with event:
                await asyncio.sleep(0)
                time.sleep(0.7)  # noqa: ASYNC251  # as code does that does not await
                claims = timer.counters.claims
                await until(lambda: timer.counters.claims >= claims + 2)

        async def handled(number: int) -> None:
            await timer.post("p", 0, id=str(number), max_retries=3)
            await until(lambda: timer.counters.confirmed > number)

        async with timer:
            for number in range(5):
                await handled(number)

    assert runs == [0] * 5
