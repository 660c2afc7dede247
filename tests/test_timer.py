"""What an application calls, row by row: the original's operations and what was added to them."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

import dtimer
from dtimer import (
    CancelOutcome,
    ChangeOutcome,
    ConfirmOutcome,
    DTimer,
    EndReason,
    Event,
    EventExists,
    InvalidArgument,
    PayloadNotEncodable,
    PayloadTooLarge,
    Post,
    PostedId,
    PostOutcome,
    SimBackend,
)
from node.watched import Watched


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend()


@pytest.fixture
def timer(sim: SimBackend) -> DTimer:
    """One that has not joined."""
    return DTimer(backend=sim)


def collect(timer: DTimer[Any]) -> list[Event[Any]]:
    events: list[Event[Any]] = []
    timer.on("event", events.append)
    return events


async def test_an_event_comes_when_it_is_due_with_what_was_posted(sim: SimBackend, timer: DTimer) -> None:
    events = collect(timer)
    async with timer:
        posted = await timer.post({"to": "Ann"}, 500, id="mail", headers={"trace": "7"})
        start = sim.now
        await sim.advance(499)
        assert not events

        await sim.advance(1)

    (event,) = events
    assert (posted, posted.outcome) == ("mail", PostOutcome.CREATED)
    assert (event.id, event.payload, event.headers) == ("mail", {"to": "Ann"}, {"trace": "7"})
    assert (event.max_retries, event.num_retries, event.delivery_number, event.deadline) == (0, 0, 1, None)
    assert event.due - start == timedelta(milliseconds=500)
    assert timedelta(0) <= event.lateness < timedelta(milliseconds=5)
    assert event.delivered_at == event.due + event.lateness


async def test_posting_needs_no_join(sim: SimBackend, timer: DTimer) -> None:
    """Rule P1."""
    await DTimer(backend=sim).post("x", 0)
    events = collect(timer)

    async with timer:
        await sim.advance(0)

    assert [event.payload for event in events] == ["x"]


async def test_ids_are_made_short_and_unique(timer: DTimer) -> None:
    """Rule P2."""
    ids = [await timer.post(None, 60_000) for _ in range(50)]

    assert len(set(ids)) == 50
    assert all(re.fullmatch("[0-9a-f]{16}", id) for id in ids)


async def test_equal_delays_come_in_the_order_posted(sim: SimBackend, timer: DTimer) -> None:
    """Rule T4."""
    events = collect(timer)
    async with timer:
        await timer.post_many(Post(payload=n, delay=100) for n in range(20))
        await sim.advance(1000)

    assert [event.payload for event in events] == list(range(20))


async def test_a_time_of_day_may_be_given(sim: SimBackend, timer: DTimer) -> None:
    events = collect(timer)
    async with timer:
        await timer.post("x", at=sim.now + timedelta(seconds=3))
        await sim.advance(2_999)
        assert not events
        await sim.advance(2)

    assert len(events) == 1


async def test_what_happens_to_a_live_event_of_the_same_id(sim: SimBackend, timer: DTimer) -> None:
    """Rule P3."""
    await timer.post(1, 1000, id="x")

    replaced = await timer.post(2, 1000, id="x")
    kept = await timer.post(3, 1000, id="x", if_exists="keep")
    with pytest.raises(EventExists, match="'x'"):
        await timer.post(4, 1000, id="x", if_exists="error")

    assert (replaced.outcome, kept.outcome) == (PostOutcome.REPLACED, PostOutcome.KEPT)
    peeked = await timer.peek("x")
    assert peeked is not None
    assert peeked.payload == 2


async def test_a_conflict_is_one_items_result(timer: DTimer) -> None:
    """Rule P5."""
    await timer.post(1, 1000, id="b")

    results = await timer.post_many(Post(payload=0, delay=1000, id=id, if_exists="error") for id in "abc")

    assert [str(result) for result in results if isinstance(result, PostedId)] == ["a", "c"]
    assert isinstance(results[1], EventExists)


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("delay", {"delay": float("nan")}),
        ("delay", {}),
        ("id", {"delay": 1, "id": ""}),
        ("max_retries", {"delay": 1, "max_retries": -1}),
        ("confirm_timeout", {"delay": 1, "confirm_timeout": 0}),
        ("max_run", {"delay": 1, "max_retries": 1, "max_run": 0}),
        ("retry", {"delay": 1, "retry": 5}),
        ("expires_after", {"delay": 1, "expires_after": 0}),
        ("dead_letter", {"delay": 1, "dead_letter": 1}),
        ("if_exists", {"delay": 1, "if_exists": "no"}),
        ("headers", {"delay": 1, "headers": {"a": 1}}),
    ],
)
async def test_a_wrong_argument_is_named_and_nothing_is_sent(
    sim: SimBackend, argument: str, arguments: dict[str, Any]
) -> None:
    watched = Watched(sim)
    with pytest.raises(InvalidArgument) as caught:
        await DTimer(watched).post(None, **arguments)

    assert caught.value.argument == argument
    assert not watched.calls


async def test_one_wrong_item_keeps_all_from_being_sent(sim: SimBackend) -> None:
    watched = Watched(sim)
    with pytest.raises(InvalidArgument):
        await DTimer(watched).post_many([Post(payload=1, delay=1), Post(payload=2)])

    assert not watched.calls


async def test_an_item_that_is_no_post_is_named_and_nothing_is_sent(sim: SimBackend) -> None:
    watched = Watched(sim)
    with pytest.raises(InvalidArgument, match="must each be a Post") as caught:
        await DTimer(watched).post_many([Post(payload=1, delay=1), {"payload": 2}])  # type: ignore[list-item]

    assert caught.value.argument == "posts"
    assert not watched.calls


async def test_payloads_that_cannot_travel_are_refused(sim: SimBackend) -> None:
    timer = DTimer(sim, payload_max_bytes=10)
    with pytest.raises(PayloadTooLarge):
        await timer.post("x" * 9, 1)
    with pytest.raises(PayloadNotEncodable):
        await timer.post(float("inf"), 1)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("node_id", ""),
        ("node_id", "a b"),
        ("max_events", 0),
        ("max_events", True),
        ("confirm_timeout", 0),
        ("payload_max_bytes", 0),
        ("payload_max_bytes", (64 << 20) + 1),
    ],
)
def test_the_constructor_names_what_it_refuses(sim: SimBackend, argument: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        DTimer(sim, **{argument: value})
    assert caught.value.argument == argument


async def test_cancel_ends_an_event_and_says_how_far_it_was(sim: SimBackend, timer: DTimer) -> None:
    """Rule E2."""
    events = collect(timer)
    await timer.post(1, 100, id="a", max_retries=1)
    await timer.post(1, 100, id="b")
    async with timer:
        assert await timer.cancel("b") is CancelOutcome.CANCELLED
        await sim.advance(100)
        assert await timer.cancel("a") is CancelOutcome.STOPPED
        await sim.advance(60_000)

    assert await timer.cancel_many(["a", "b", "c"]) == [CancelOutcome.NOT_FOUND] * 3
    assert [event.id for event in events] == ["a"]


async def test_change_delay_moves_only_what_is_scheduled(sim: SimBackend, timer: DTimer) -> None:
    """Rule E3; the original left a phantom for an unknown id."""
    events = collect(timer)
    assert await timer.change_delay("x", 5) is ChangeOutcome.NOT_FOUND
    assert await timer.upcoming() == []
    await timer.post(1, 5_000, id="x", max_retries=1)
    async with timer:
        assert await timer.change_delay("x", 300) is ChangeOutcome.MOVED
        await sim.advance(300)
        assert len(events) == 1
        assert await timer.change_delay("x", timedelta(0)) is ChangeOutcome.UNCONFIRMED


async def test_an_unconfirmed_event_comes_again_at_its_deadline_and_is_counted(sim: SimBackend) -> None:
    """Rules D2 and D3; the original left the number out of the first delivery."""
    timer = DTimer(sim, confirm_timeout=2)
    events = collect(timer)
    ended: list[Any] = []
    timer.on("ended", ended.append)
    async with timer:
        await timer.post("p", 0, id="x", max_retries=2)
        await sim.advance(20_000)

    assert [(event.num_retries, event.delivery_number) for event in events] == [(0, 1), (1, 2), (2, 3)]
    gaps = [later.delivered_at - earlier.delivered_at for earlier, later in pairwise(events)]
    assert all(timedelta(seconds=2) <= gap < timedelta(seconds=2, milliseconds=5) for gap in gaps)
    (end,) = ended
    assert (end.id, end.payload, end.reason) == ("x", "p", EndReason.EXHAUSTED)
    assert (end.num_retries, end.dead_letter) == (2, False)
    counters = timer.counters
    assert (counters.delivered, counters.retried, counters.exhausted, counters.confirmed) == (3, 2, 1, 0)


async def test_confirm_by_id_or_event_ends_it(sim: SimBackend, timer: DTimer) -> None:
    """Rule E1, by the id alone, as in the original."""
    events = collect(timer)
    async with timer:
        await timer.post_many(Post(payload=id, delay=0, id=id, max_retries=1) for id in "ab")
        await sim.advance(0)
        assert await timer.confirm("a") is ConfirmOutcome.CONFIRMED
        assert await timer.confirm("a") is ConfirmOutcome.NOT_FOUND
        assert await timer.confirm(events[1]) is ConfirmOutcome.CONFIRMED
        await sim.advance(60_000)

    assert len(events) == 2
    assert timer.counters.confirmed == 2


async def test_an_old_delivery_confirms_nothing_by_id_either(sim: SimBackend) -> None:
    """Rule E1: the original's late confirm killed the retry that another node was working on."""
    first = DTimer(sim, node_id="first", confirm_timeout=1)
    seen = collect(first)
    async with first:
        await first.post("p", 0, id="x", max_retries=1, confirm_timeout=1)
        await sim.advance(0)
        async with DTimer(sim, node_id="second") as second:
            await first.leave(drain=False)
            again = collect(second)
            second.max_events = 8
            await sim.advance(1_500)
            assert (len(seen), len(again)) == (1, 1)

            assert await first.confirm("x") is ConfirmOutcome.STALE
            assert await second.confirm("x") is ConfirmOutcome.CONFIRMED


async def test_a_stranger_confirms_the_newest_delivery(sim: SimBackend, timer: DTimer) -> None:
    """The operator's form."""
    collect(timer)
    async with timer:
        await timer.post("p", 0, id="x", max_retries=1)
        await sim.advance(0)

        assert await DTimer(sim).confirm("x") is ConfirmOutcome.CONFIRMED


async def test_confirming_what_requires_no_confirm_costs_nothing(sim: SimBackend) -> None:
    watched = Watched(sim)
    timer = DTimer(watched)
    events = collect(timer)
    async with timer:
        await timer.post("p", 0)
        await sim.advance(0)
        calls = len(watched.calls)

        assert await events[0].confirm() is ConfirmOutcome.NOT_FOUND
        with pytest.raises(dtimer.ConfirmNotRequired):
            await events[0].release()
        with pytest.raises(dtimer.ConfirmNotRequired):
            await events[0].extend(5)
        assert len(watched.calls) == calls


async def test_max_events_falls_back_to_what_it_was_made_with(timer: DTimer) -> None:
    """Rule N2."""
    timer.max_events = 3
    assert timer.max_events == 3
    timer.max_events = -1
    assert timer.max_events == 8
    with pytest.raises(InvalidArgument):
        timer.max_events = 2.5  # type: ignore[assignment]  # refused when it is set, not in every claim


async def test_ready_is_told_after_each_join(sim: SimBackend, timer: DTimer) -> None:
    told: list[bool] = []

    @timer.on("ready")
    def ready() -> None:
        told.append(timer.joined)

    assert not timer.joined
    await timer.join()
    await timer.join()
    assert told == [True]
    await timer.leave()
    await timer.leave()
    await timer.join()

    assert told == [True, True]
    await timer.leave()


async def test_joining_at_once_is_one_membership(sim: SimBackend) -> None:
    watched = Watched(sim)
    timer = DTimer(watched, node_id="n")

    await asyncio.gather(*(timer.join() for _ in range(3)))

    assert watched.count("join") == [1]
    assert len((await sim.inspect()).value.ring) == 1
    await asyncio.gather(timer.leave(), timer.join(), timer.leave())
    assert not timer.joined
    assert not (await sim.inspect()).value.ring


async def test_whoever_joins_second_waits_for_the_first(timer: DTimer) -> None:
    first = asyncio.create_task(timer.join())
    await asyncio.sleep(0)

    await timer.join()

    assert timer.joined
    await first
    await timer.leave()


def test_importing_it_imports_neither_redis_nor_the_simulator() -> None:
    code = "import sys, dtimer; print([m for m in ('redis', 'pytest', 'hypothesis', 'dtimer.sim') if m in sys.modules])"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)

    assert result.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert all(hasattr(dtimer, name) for name in dtimer.__all__)
    with pytest.raises(AttributeError):
        dtimer.nothing  # noqa: B018
