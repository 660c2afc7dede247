"""Looking at the queue, and what an operator does with dead letters."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dtimer import (
    DTimer,
    EndReason,
    Event,
    EventExists,
    EventState,
    Post,
    ResendOutcome,
    SimBackend,
    Unsupported,
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


async def test_peek_shows_an_event_as_it_stands(sim: SimBackend, timer: DTimer) -> None:
    """Rule R1."""
    assert await timer.peek("x") is None
    await timer.post("p", 1000, id="x", max_retries=2)
    await sim.advance(400)
    scheduled = await timer.peek("x")
    collect(timer)
    async with timer:
        await sim.advance(600)
        unconfirmed = await timer.peek("x")

    assert scheduled is not None
    assert (scheduled.state, scheduled.payload, scheduled.num_retries) == (EventState.SCHEDULED, "p", 0)
    assert abs(scheduled.time_left - timedelta(milliseconds=600)) < timedelta(milliseconds=1)
    assert (scheduled.deadline, scheduled.deliveries) == (None, 0)
    assert unconfirmed is not None
    assert (unconfirmed.state, unconfirmed.due, unconfirmed.deliveries) == (EventState.UNCONFIRMED, None, 1)
    assert abs(unconfirmed.time_left - timedelta(seconds=10)) < timedelta(milliseconds=5)


async def test_a_window_of_the_queue_is_listed_in_order(sim: SimBackend, timer: DTimer) -> None:
    """Rule R2, with the original's windows."""
    await timer.post(0, 0, id="over")
    await sim.advance(2_000)
    for number in (1, 2, 3):
        await timer.post(number, number * 1_000, id=f"a{number}")

    async def ids(**window: Any) -> str:
        return ",".join(entry.id for entry in await timer.upcoming(**window))

    assert await ids() == await ids(offset=-1) == await ids(limit=0) == await ids(limit=-1) == "over,a1,a2,a3"
    assert await ids(offset=0) == "a1,a2,a3"
    assert await ids(offset=1500) == "a2,a3"
    assert await ids(duration=1500) == "over,a1"
    assert await ids(offset=500, duration=1000) == "a1"
    assert await ids(offset=500, duration=0) == ""
    assert await ids(duration=0) == await ids(limit=1) == "over"
    assert await ids(offset=timedelta(0), limit=2) == "a1,a2"
    over = (await timer.upcoming())[0]
    assert over.time_left < timedelta(seconds=-1)


async def test_a_long_queue_is_listed_through_all_its_pages(timer: DTimer) -> None:
    await timer.post_many(Post(payload=n, delay=1000 + n) for n in range(1_100))

    assert [entry.payload for entry in await timer.upcoming()] == list(range(1_100))
    assert [entry.payload async for entry in timer.iter_upcoming(limit=300)] == list(range(300))


async def test_a_kept_event_becomes_a_dead_letter_and_can_be_sent_again(sim: SimBackend) -> None:
    """Rule E5."""
    timer = DTimer(sim, confirm_timeout=1)
    events = collect(timer)
    async with timer:
        await timer.post("p", 0, id="x", keep=True)
        await sim.advance(5_000)
        (letter,) = await timer.dead_letters()
        assert (letter.id, letter.payload, letter.reason) == ("x", "p", EndReason.EXHAUSTED)
        await timer.post("other", 60_000, id="x")
        with pytest.raises(EventExists):
            await timer.resend("x", if_exists="error")

        assert await timer.resend("x") is ResendOutcome.REPLACED
        await sim.advance(10)
        assert [event.payload for event in events] == ["p", "p"]
        assert await events[1].confirm()
        assert await timer.dead_letters(limit=5) == []
        assert not await timer.discard("x")


async def test_without_that_ability_dead_letters_are_a_clear_error(sim: SimBackend) -> None:
    timer = DTimer(Watched(sim))
    with pytest.raises(Unsupported, match="Watched keeps no dead letters"):
        await timer.dead_letters()
    with pytest.raises(Unsupported):
        await timer.resend("x")
    with pytest.raises(Unsupported):
        await timer.discard("x")
