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
    Retry,
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
    assert (scheduled.deadline, scheduled.delivery_number) == (None, 0)
    assert unconfirmed is not None
    assert (unconfirmed.state, unconfirmed.due, unconfirmed.delivery_number) == (EventState.UNCONFIRMED, None, 1)
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
        await timer.post("p", 0, id="x", dead_letter=True)
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


async def test_a_dead_letter_tells_what_went_wrong_last(sim: SimBackend) -> None:
    """Rule E5: with a retry policy, without one, and from within its block; and of a codec."""
    start = sim.now

    class Sour(Exception):
        pass

    timer = DTimer(sim, node_id="n", confirm_timeout=1)
    timer.on("error", lambda _: None)
    timer.on("ended", lambda _: None)

    @timer.on("event")
    async def handle(event: Event) -> None:
        if event.payload == "block":
            async with event:
                raise Sour("the milk")
        raise Sour("the milk")

    async with timer:
        await timer.post(
            "policy", 0, id="policy", dead_letter=True, max_retries=1, retry=Retry(100), headers={"h": "1"}
        )
        await timer.post("none", 0, id="none", dead_letter=True, max_retries=1)
        await timer.post("block", 0, id="block", dead_letter=True)
        await sim.advance(5_000)
        letters = {letter.id: letter for letter in await timer.dead_letters()}

    assert set(letters) == {"policy", "none", "block"}
    for letter in letters.values():
        assert letter.last_error is not None
        assert letter.last_error.failure is not None
        assert letter.last_error.failure.type.endswith("Sour")
        assert letter.last_error.failure.text == "the milk"
        assert (letter.last_error.node, letter.last_error.delivery_number) == ("n", letter.delivery_number)
        assert letter.due - start < timedelta(milliseconds=1)
        assert "Sour: the milk (delivery" in letter.detail
    policy = letters["policy"]
    assert (policy.headers, policy.max_retries, policy.delivery_number, policy.num_retries) == ({"h": "1"}, 1, 2, 1)


async def test_of_a_node_that_died_a_dead_letter_says_so(sim: SimBackend) -> None:
    """Rule E5: nothing was told, but who had it is known."""
    timer = DTimer(sim, node_id="n", confirm_timeout=1)
    timer.on("event", lambda event: None)
    async with timer:
        await timer.post("p", 0, id="x", dead_letter=True)
        await sim.advance(5_000)
        (letter,) = await timer.dead_letters()

    assert letter.last_error is not None
    assert letter.last_error.failure is None
    assert letter.detail == "not confirmed in time (delivery 1, node n)"


async def test_an_exception_that_cannot_be_written_is_a_last_error_all_the_same(sim: SimBackend) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    timer = DTimer(sim, node_id="n")
    timer.on("error", lambda _: None)

    @timer.on("event")
    async def handle(event: Event) -> None:
        raise Mute if event.payload == "mute" else ValueError("\ud800" + "x" * 5_000)

    async with timer:
        await timer.post("mute", 0, id="mute", dead_letter=True, retry=Retry(1))
        await timer.post("long", 0, id="long", dead_letter=True, retry=Retry(1))
        await sim.advance(1_000)
        letters = {letter.id: letter.last_error for letter in await timer.dead_letters()}

    mute, long = letters["mute"], letters["long"]
    assert mute is not None
    assert mute.failure is not None
    assert "Mute" in mute.failure.text
    assert long is not None
    assert long.failure is not None
    assert len(long.failure.text.encode()) <= 1_024


async def test_what_is_buried_again_has_two_letters(sim: SimBackend) -> None:
    """Rule E5: each is sent again and discarded by itself; an id alone means the last."""
    timer = DTimer(sim)

    @timer.on("event")
    async def handle(event: Event) -> None:
        await event.bury(str(event.payload))

    async with timer:
        for number in range(3):
            await timer.post(number, 0, id="x", dead_letter=True)
            await sim.advance(10)
        letters = await timer.dead_letters()
        assert [letter.payload for letter in letters] == [0, 1, 2]

        assert await timer.discard("x")
        assert not await timer.discard("x")
        assert [letter.payload for letter in await timer.dead_letters()] == [0, 1]
        assert await timer.discard(letters[0])
        assert not await timer.discard(letters[0])
        assert await timer.resend(letters[1], 60_000) is ResendOutcome.CREATED
        assert await timer.dead_letters() == []
        peeked = await timer.peek("x")
        assert peeked is not None
        assert peeked.payload == 1


async def test_without_that_ability_dead_letters_are_a_clear_error(sim: SimBackend) -> None:
    timer = DTimer(Watched(sim))
    with pytest.raises(Unsupported, match="Watched keeps no dead letters"):
        await timer.dead_letters()
    with pytest.raises(Unsupported):
        await timer.resend("x")
    with pytest.raises(Unsupported):
        await timer.discard("x")


async def test_what_is_printed_names_the_event_and_not_its_payload(sim: SimBackend) -> None:
    """In a shell or in a log the id is what is looked for; the payload may be large, or private."""
    async with DTimer(backend=sim) as timer:
        given: list[object] = []

        @timer.on("event")
        async def bury(event: Event) -> None:
            given.append(event)
            await (event.release(counted=True) if event.id == "over" else event.bury("why"))

        posted = await timer.post("secret", 60_000, id="later\n", max_retries=2)
        assert repr(posted) == r"PostedId('later\n', created)"
        assert (str(posted), f"{posted}") == ("later\n", "later\n")
        assert repr(type(posted)("x")) == "'x'"
        (upcoming,) = await timer.upcoming()
        said = r"Upcoming(id='later\n', state=scheduled, time_left=0:01:00, num_retries=0, max_retries=2)"
        assert repr(upcoming) == said
        await timer.post("secret", 0, id="dead", dead_letter=True)
        await sim.run_until_idle()
        (letter,) = await timer.dead_letters()
        assert repr(letter).startswith("DeadEvent(id='dead', reason=buried, detail='why', buried_at=")
        assert "secret" not in repr(letter)
        assert [repr(event) for event in given] == ["Event(id='dead', delivery_number=1, num_retries=0)"]
        timer.on("ended", given.append)
        await timer.post("secret", 0, id="over", dead_letter=True)
        await sim.run_until_idle()
        assert repr(given[-1]).startswith("Ended(id='over', reason=")
        assert "secret" not in repr(given[-1])
        assert repr(timer).startswith("DTimer(node_id=")
