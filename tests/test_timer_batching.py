"""What is done in one turn of the loop travels in one call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dtimer import DTimer, Event, Post, SimBackend
from dtimer.limits import BATCH_MAX_ITEMS
from node.watched import Watched


@pytest.fixture
def watched() -> Watched:
    return Watched(SimBackend())


def confirm(event: Event) -> None:
    """Without waiting for the outcome."""
    event.confirm()


async def test_posts_of_one_turn_are_one_call(watched: Watched) -> None:
    timer = DTimer(watched)

    ids = await asyncio.gather(*(timer.post(n, 1_000) for n in range(100)))

    assert watched.calls == [("post", 100)]
    assert [entry.id for entry in await timer.upcoming()] == ids


async def test_a_lone_post_waits_for_nobody(watched: Watched) -> None:
    timer = DTimer(watched)

    for _ in range(3):
        await timer.post(None, 1_000)

    assert watched.calls == [("post", 1)] * 3


async def ask_again_and_again(timer: DTimer, num_callers: int) -> None:
    async def caller() -> None:
        for _ in range(5):
            await timer.post(None, 1_000)

    await asyncio.gather(*(caller() for _ in range(num_callers)))


async def test_callers_that_were_answered_together_ask_together(watched: Watched) -> None:
    """A batch must not shatter into small ones that alternate."""
    await ask_again_and_again(DTimer(watched), 63)

    assert watched.calls == [("post", 63)] * 5


async def test_the_calls_of_many_callers_go_side_by_side_with_them(watched: Watched) -> None:
    """While one half waits for the store the other asks; so neither store nor callers are idle."""
    await ask_again_and_again(DTimer(watched), 64)

    assert watched.calls == [("post", 64)] + [("post", 32)] * 8


async def test_a_long_list_is_split_in_order(watched: Watched) -> None:
    timer = DTimer(watched)

    posted = await timer.post_many(Post(payload=n, delay=1_000) for n in range(1_300))

    assert watched.count("post") == [512, 512, 276]
    assert [entry.id for entry in await timer.upcoming()] == posted


async def test_cancels_travel_together_too(watched: Watched) -> None:
    timer = DTimer(watched)

    assert not any(await asyncio.gather(*(timer.cancel(str(n)) for n in range(10))))

    assert watched.calls == [("cancel", 10)]


async def test_a_cancelled_poster_is_taken_out(watched: Watched) -> None:
    """Rule P5."""
    timer = DTimer(watched)
    tasks = [asyncio.ensure_future(timer.post(n, 1_000)) for n in range(3)]
    asyncio.get_running_loop().call_soon(tasks[1].cancel)

    await asyncio.gather(*tasks, return_exceptions=True)

    assert tasks[1].cancelled()
    assert watched.calls == [("post", 2)]
    assert [entry.payload for entry in await timer.upcoming()] == [0, 2]


async def test_a_cancelled_list_is_taken_out_whole(watched: Watched) -> None:
    timer = DTimer(watched)
    task = asyncio.ensure_future(timer.post_many(Post(payload=n, delay=1_000) for n in range(1_300)))
    asyncio.get_running_loop().call_soon(task.cancel)

    await asyncio.gather(task, return_exceptions=True)
    await watched.sim.advance(1)

    assert task.cancelled()
    assert watched.calls == []


async def test_confirms_ride_on_the_claim_that_fetches_more(watched: Watched) -> None:
    """That is what makes a small `max_events` fast."""
    timer = DTimer(watched, max_events=4)
    timer.on("event", confirm)
    await timer.post_many(Post(payload=n, delay=0, max_retries=1) for n in range(16))
    async with timer:
        await watched.sim.advance(10)

    assert watched.count("claim")[:5] == [0, 4, 4, 4, 4]
    assert watched.count("confirm") == []
    assert timer.counters.confirmed == 16


async def test_a_block_left_makes_room_in_the_call_that_confirms_it(watched: Watched) -> None:
    """Rule N2: the handler only waits for that very call."""
    timer = DTimer(watched, max_events=4)

    @timer.on("event")
    async def handle(event: Event) -> None:
        async with event:
            pass

    await timer.post_many(Post(payload=n, delay=0, max_retries=1) for n in range(16))
    async with timer:
        await watched.sim.advance(10)

    assert watched.count("claim")[:5] == [0, 4, 4, 4, 4]
    assert watched.count("confirm") == []
    assert timer.counters.confirmed == 16


async def test_confirms_go_alone_when_nothing_is_to_be_claimed(watched: Watched) -> None:
    timer = DTimer(watched)
    events: list[Event] = []
    timer.on("event", events.append)
    await timer.post_many(Post(payload=n, delay=0, max_retries=1) for n in range(5))
    async with timer:
        await watched.sim.advance(10)
        claims = len(watched.count("claim"))

        outcomes: list[Any] = await asyncio.gather(*(event.confirm() for event in events))

        assert all(outcomes)
        assert watched.count("confirm") == [5]
        assert len(watched.count("claim")) == claims


async def test_confirms_go_without_being_joined(watched: Watched) -> None:
    timer = DTimer(watched)
    events: list[Event] = []
    timer.on("event", events.append)
    await timer.post_many(Post(payload=n, delay=0, max_retries=1) for n in range(3))
    async with timer:
        await watched.sim.advance(10)

    assert all(await asyncio.gather(*(event.confirm() for event in events)))
    assert watched.count("confirm") == [3]


async def test_an_idle_node_makes_few_calls(watched: Watched) -> None:
    """Rule W1."""
    timer = DTimer(watched)
    timer.on("event", print)
    async with timer:
        await watched.sim.advance(60_000)

    assert 60 <= len(watched.count("claim")) <= 120
    assert watched.count("wakeups") == [1]


async def test_a_node_with_much_room_claims_in_bounded_parts(watched: Watched) -> None:
    """Rule D5: a store's work for one call has a limit; the next part follows at once."""
    timer = DTimer(watched, max_events=2_000)
    got: list[Event] = []
    timer.on("event", got.append)
    await timer.post_many(Post(payload=n, delay=0) for n in range(1_300))

    async with timer:
        await watched.sim.run_until_idle()

    assert [event.payload for event in got] == list(range(1_300))
    assert max(watched.rooms) == BATCH_MAX_ITEMS


async def test_a_node_with_much_room_claims_half_of_it_and_then_the_other(watched: Watched) -> None:
    """Rule N2: the second half is fetched while the handlers of the first run."""
    timer = DTimer(watched, max_events=100)
    begun: list[int] = []

    @timer.on("event")
    async def handle(event: Event) -> None:
        begun.append(len(watched.rooms))
        await watched.sim.sleep(1_000)

    await timer.post_many(Post(payload=n, delay=0) for n in range(300))
    async with timer:
        await watched.sim.advance(500)
        assert watched.rooms == [50, 50]
        # The first half begins to be handled when the second claim is on its way.
        assert begun == [2] * 100
        await watched.sim.advance(5_000)

    assert len(begun) == 300
