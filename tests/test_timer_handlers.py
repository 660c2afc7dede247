"""Handlers: how they run, what they hold, and what follows when they fail."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from datetime import timedelta
from typing import Any

import pytest

from dtimer import (
    ConfirmOutcome,
    DTimer,
    DTimerError,
    Event,
    HandlerFailed,
    InvalidArgument,
    Post,
    SimBackend,
)
from dtimer.limits import RECEIPTS_REMEMBERED_MAX
from dtimer.protocol.outcomes import ClaimStatus
from dtimer.protocol.values import Claimed, Delivery, EventData, Receipt
from support.inside import dispatcher_of


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


@pytest.fixture
def timer(sim: SimBackend) -> DTimer:
    return DTimer(sim, node_id="n")


@pytest.fixture
def errors(timer: DTimer) -> list[DTimerError]:
    """What the timer's error handler hears."""
    heard: list[DTimerError] = []
    timer.on("error", heard.append)
    return heard


async def test_never_more_than_max_events_run_at_once(sim: SimBackend) -> None:
    """Rule N2."""
    timer = DTimer(sim, max_events=3)
    running = most = done = 0

    @timer.on("event")
    async def handle(event: Event) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        await sim.sleep(100)
        running -= 1
        done += 1

    async with timer:
        await timer.post_many(Post(payload=n, delay=0) for n in range(10))
        await sim.advance(250)
        assert done == 6
        await sim.advance(200)

    assert (most, done) == (3, 10)


async def test_what_follows_a_block_takes_up_room(sim: SimBackend) -> None:
    """Rule N2: the confirm at the block's end makes room once, not for as long as the handler goes on."""
    timer = DTimer(sim, max_events=2)
    running = most = done = 0

    @timer.on("event")
    async def handle(event: Event) -> None:
        nonlocal running, most, done
        async with event:
            pass
        running += 1
        most = max(most, running)
        await sim.sleep(100)
        running -= 1
        done += 1

    async with timer:
        await timer.post_many(Post(payload=n, delay=0, max_retries=1) for n in range(12))
        await sim.advance(50)
        assert running == 4
        assert dispatcher_of(timer).room() == 0
        await sim.advance(1_000)

    assert (most, done, timer.counters.confirmed) == (4, 12, 12)
    assert dispatcher_of(timer).room() == 2


async def test_a_cut_wait_for_a_confirm_gives_its_room_back(sim: SimBackend, errors: list[DTimerError]) -> None:
    timer = DTimer(sim, max_events=2)
    timer.on("error", errors.append)

    @timer.on("event")
    async def handle(event: Event) -> None:
        asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
        async with event:
            pass

    async with timer:
        await timer.post("p", 0, max_retries=1)
        await sim.advance(50)
        assert dispatcher_of(timer).room() == 2

    assert [type(error) for error in errors] == [HandlerFailed]


@pytest.mark.parametrize("kind", ["time limit", "block", "one of two"])
async def test_a_confirm_that_was_asked_for_goes_on_when_its_caller_is_cancelled(
    sim: SimBackend, timer: DTimer, errors: list[DTimerError], kind: str
) -> None:
    """Rule E1: the work is done. Another caller is not cancelled by it either."""
    runs = 0
    outcomes: list[object] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        nonlocal runs
        runs += 1
        if kind == "time limit":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await event.confirm()
        elif kind == "block":
            async with event:
                asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
        else:
            confirming = event.confirm()

            async def wait() -> object:
                return await confirming

            first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
            await asyncio.sleep(0)
            first.cancel()
            outcomes.append(await second)

    async with timer:
        await timer.post("p", 0, max_retries=3, confirm_timeout=1)
        await sim.advance(10_000)

    assert runs == 1
    assert timer.counters.confirmed == 1
    assert outcomes == ([ConfirmOutcome.CONFIRMED] if kind == "one of two" else [])
    assert len(errors) == (kind == "block")


async def test_room_that_comes_back_is_used_at_once(sim: SimBackend) -> None:
    """Rule D8: the store passes a full node over until it claims again."""
    timer = DTimer(sim, max_events=1)
    begun: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        begun.append((event.payload, sim.now))
        await sim.sleep(70)

    start = sim.now
    async with timer:
        await timer.post_many(Post(payload=n, delay=0) for n in range(3))
        await sim.advance(300)

    offsets = [(at - start) / timedelta(milliseconds=1) for _, at in begun]
    assert [round(offset / 70) for offset in offsets] == [0, 1, 2]
    assert offsets[-1] < 150


async def test_a_raised_limit_is_used_at_once(sim: SimBackend) -> None:
    timer = DTimer(sim, max_events=1)
    begun: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        begun.append(event.payload)
        await sim.sleep(1_000)

    async with timer:
        await timer.post_many(Post(payload=n, delay=0) for n in range(3))
        await sim.advance(10)
        assert begun == [0]
        timer.max_events = 3
        await sim.advance(10)
        assert begun == [0, 1, 2]
        await sim.advance(2_000)


async def test_every_handler_gets_each_event_and_the_last_one_finishes_it(sim: SimBackend) -> None:
    timer = DTimer(sim, max_events=1)
    log: list[str] = []

    @timer.on("event")
    async def slow(event: Event) -> None:
        await sim.sleep(100)
        log.append(f"slow {event.payload}")

    timer.on("event", lambda event: log.append(f"quick {event.payload}"))
    async with timer:
        await timer.post_many(Post(payload=n, delay=0) for n in range(2))
        await sim.advance(300)

    assert log == ["quick 0", "slow 0", "quick 1", "slow 1"]


async def test_without_a_handler_events_are_left_to_others(sim: SimBackend, timer: DTimer) -> None:
    """Rule N5."""
    got: list[Any] = []
    async with timer:
        await timer.post("p", 0, id="x")
        await sim.advance(30_000)
        assert (await timer.peek("x")) is not None

        timer.on("event", got.append)
        await sim.advance(0)

    assert len(got) == 1


async def test_a_handler_taken_back_gets_nothing_more(sim: SimBackend, timer: DTimer) -> None:
    got: list[Any] = []
    timer.on("event", got.append)
    timer.off("event", got.append)
    timer.off("event", got.append)
    async with timer:
        await timer.post("p", 0, id="x")
        await sim.advance(1_000)

    assert not got


async def test_a_name_that_is_none_is_refused(timer: DTimer) -> None:
    with pytest.raises(InvalidArgument):
        timer.on("evnet", print)  # type: ignore[call-overload]  # a slip of the fingers
    with pytest.raises(InvalidArgument):
        timer.on("event", 5)  # type: ignore[call-overload]  # not a function


async def test_a_plain_function_may_confirm_without_awaiting(sim: SimBackend, timer: DTimer) -> None:
    @timer.on("event")
    def handle(event: Event) -> None:
        event.confirm()

    async with timer:
        await timer.post("p", 0, id="x", max_retries=3)
        await sim.advance(60_000)

    assert (timer.counters.delivered, timer.counters.confirmed) == (1, 1)


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_handler_that_raises_is_reported_and_stops_nothing(
    sim: SimBackend, timer: DTimer, errors: list[DTimerError], kind: str
) -> None:
    """Rule F3; in the original the rest of the batch was lost."""
    done: list[Any] = []

    def plain(event: Event) -> None:
        if event.payload == 1:
            raise ZeroDivisionError("boom")
        done.append(event.payload)

    async def coroutine(event: Event) -> None:
        plain(event)

    timer.on("event", plain if kind == "plain" else coroutine)
    async with timer:
        await timer.post_many(Post(payload=n, delay=0) for n in range(3))
        await sim.advance(100)

    assert done == [0, 2]
    (error,) = errors
    assert isinstance(error, HandlerFailed)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert timer.counters.handler_errors == 1


async def test_without_an_error_handler_errors_are_logged(
    sim: SimBackend, timer: DTimer, caplog: pytest.LogCaptureFixture
) -> None:
    timer.on("event", lambda event: 1 / 0)
    async with timer:
        await timer.post("p", 0)
        await sim.advance(0)

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("dtimer", logging.ERROR)
    assert record.exc_info is not None


async def test_an_error_handler_that_raises_stops_nothing(
    sim: SimBackend, timer: DTimer, caplog: pytest.LogCaptureFixture
) -> None:
    timer.on("event", lambda event: 1 / 0)
    timer.on("error", lambda error: 1 / 0)

    @timer.on("error")
    async def also(error: DTimerError) -> None:
        raise RuntimeError

    async with timer:
        await timer.post_many(Post(payload=n, delay=0) for n in range(2))
        await sim.advance(0)

    assert timer.counters.handler_errors == 2
    assert len(caplog.records) == 4


async def test_a_block_confirms_when_it_is_left_cleanly(sim: SimBackend, timer: DTimer) -> None:
    @timer.on("event")
    async def handle(event: Event) -> None:
        async with event:
            pass

    async with timer:
        await timer.post("p", 0, max_retries=1)
        await sim.advance(60_000)

    assert (timer.counters.delivered, timer.counters.confirmed) == (1, 1)


async def test_a_handler_may_post_and_join_and_look(sim: SimBackend, timer: DTimer) -> None:
    seen: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        seen.append(event.payload)
        await timer.join()
        if event.payload == 1:
            await timer.post(2, 100)
            assert len(await timer.upcoming()) == 1

    async with timer:
        await timer.post(1, 100)
        await sim.advance(300)

    assert seen == [1, 2]


async def test_only_so_many_receipts_are_remembered(sim: SimBackend) -> None:
    """A bound on memory: beyond it, confirming by id is the operator's form."""
    timer = DTimer(sim, max_events=2_000)
    timer.on("event", lambda event: None)
    async with timer:
        await timer.post_many(
            Post(payload=n, delay=0, id=str(n), max_retries=1) for n in range(RECEIPTS_REMEMBERED_MAX + 1)
        )
        await sim.advance(100)

        assert len(dispatcher_of(timer)._receipts) == RECEIPTS_REMEMBERED_MAX
        assert await timer.confirm("0") is ConfirmOutcome.CONFIRMED
        assert await timer.confirm(str(RECEIPTS_REMEMBERED_MAX)) is ConfirmOutcome.CONFIRMED


async def test_a_cancelled_handler_is_reported_and_its_room_comes_back(
    sim: SimBackend, errors: list[DTimerError]
) -> None:
    timer = DTimer(sim, max_events=1)
    timer.on("error", errors.append)
    done: list[Any] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        if event.payload == 0:
            raise asyncio.CancelledError
        done.append(event.payload)

    async with timer:
        await timer.post_many(Post(payload=n, delay=0) for n in range(2))
        await sim.advance(100)

    assert done == [1]
    assert [type(error) for error in errors] == [HandlerFailed]


async def test_a_handler_that_is_cancelled_before_it_begins_leaves_nothing_behind(
    sim: SimBackend, timer: DTimer, errors: list[DTimerError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a warning that it was never awaited, nor room that never comes back."""
    consumers = dispatcher_of(timer).consumers
    deliver = consumers.deliver

    def deliver_and_cut(event: Event) -> None:
        deliver(event)
        consumers.cancel(event)

    monkeypatch.setattr(consumers, "deliver", deliver_and_cut)

    @timer.on("event")
    async def handle(event: Event) -> None:
        raise AssertionError("it was cancelled before it began")

    async with timer:
        await timer.post("p", 0)
        await sim.advance(10)
        assert dispatcher_of(timer).room() == 8

    gc.collect()
    assert [type(error) for error in errors] == [HandlerFailed]


async def test_what_a_large_claim_brought_is_handed_out_when_the_node_has_left(timer: DTimer) -> None:
    """It is handed out in portions; a leave between two of them loses none of it."""
    handed_out: list[str] = []
    timer.on("event", lambda event: handed_out.append(event.id))
    ids = [str(number) for number in range(100)]
    brought = [
        Delivery(
            event=EventData(id=id, payload=b"1"),
            receipt=Receipt(id, 1, "n"),
            due_us=0,
            at_us=0,
            num_retries=0,
            deadline_us=None,
        )
        for id in ids
    ]
    claimed = Claimed(
        status=ClaimStatus.JOINED,
        confirmed=(),
        deliveries=tuple(brought),
        ended=(),
        unreadable=(),
        more=False,
        come_at_us=None,
    )

    await timer.join()
    dispatcher_of(timer).take(claimed, leaving=False)
    assert handed_out == []
    dispatcher_of(timer).end_all()

    assert handed_out == ids
    await asyncio.sleep(0)
    assert dispatcher_of(timer).room() == timer.max_events
    await timer.leave()


async def test_the_next_claim_is_under_way_before_a_large_one_is_handled(sim: SimBackend) -> None:
    """Rule N2: a node does not wait for its handlers, nor with what is still to be handed to them."""
    timer = DTimer(sim, max_events=256)
    claims_before: list[int] = []

    @timer.on("event")
    def handle(event: Event) -> None:
        claims_before.append(timer.counters.claims)

    await timer.post_many(Post(payload=n, delay=0) for n in range(256))
    async with timer:
        await sim.advance(10)

    assert len(claims_before) == 256
    assert claims_before[0] == 2
    assert claims_before == sorted(claims_before)


async def test_what_is_still_to_be_handed_out_takes_up_room(sim: SimBackend) -> None:
    timer = DTimer(sim, max_events=100)
    most = 0

    @timer.on("event")
    async def handle(event: Event) -> None:
        nonlocal most
        deliveries = dispatcher_of(timer)
        most = max(most, len(deliveries.consumers.unfinished) + len(deliveries._coming))
        assert deliveries.room() <= 100 - len(deliveries.consumers.unfinished) - len(deliveries._coming)
        await sim.sleep(20)

    await timer.post_many(Post(payload=n, delay=0) for n in range(400))
    async with timer:
        await sim.advance(1_000)

    assert (most, timer.counters.delivered) == (100, 400)
