"""What is and what is not a delay."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from dtimer import ChangeOutcome, InvalidArgument, Post
from support.worlds import World, lateness_ms


@pytest.mark.parametrize("delay", [0, -5_000, -1e15])
async def test_no_delay_and_a_negative_one_fire_at_once(world: World, delay: float) -> None:
    """What the original dtimer 0.3.3 did: as here (P25), but below the year 1970 an event was deleted unfired (P27)."""
    node = await world.node()
    await node.timer.post("p", delay)
    await world.until(lambda: node.events)

    assert lateness_ms(node.events[0]) < world.prompt_ms
    assert await world.nothing_is_kept()


async def test_an_event_can_be_brought_forward_to_at_once(world: World) -> None:
    """What the original dtimer 0.3.3 did (P25), as here: a changed delay of -1 fired at once."""
    node = await world.node()
    await node.timer.post("p", 60_000, id="e")

    assert await node.timer.change_delay("e", -1) is ChangeOutcome.MOVED

    await world.until(lambda: node.events)
    assert lateness_ms(node.events[0]) < world.prompt_ms


async def test_fractions_of_a_millisecond_count(world: World) -> None:
    """What the original dtimer 0.3.3 did (P26), as here: it kept them. Here they are rounded to microseconds."""
    timer = world.timer()
    await timer.post_many(Post(payload=delay, delay=delay) for delay in (60_000.0004, 60_000.0006))

    low, high = [entry.due for entry in await timer.upcoming()]

    assert low is not None
    assert high is not None
    # One for the rounding, and one because items of one call are due in their order.
    assert high - low == timedelta(microseconds=2)


async def test_a_very_negative_delay_does_not_hold_up_the_next_event(world: World) -> None:
    """What the original dtimer 0.3.3 did (P27): it was deleted unfired, and the next event came 802 ms late."""
    node = await world.node()
    await node.timer.post("old", -1e15)
    await node.timer.post("next", 100)
    await world.until(lambda: len(node.events) == 2)

    assert [event.payload for event in node.events] == ["old", "next"]
    assert lateness_ms(node.events[1]) < world.prompt_ms
    assert await world.nothing_is_kept()


@pytest.mark.parametrize("delay", [math.nan, math.inf, -math.inf, 2**53 - 1, 1e300, "5", None, True])
async def test_what_is_no_delay_is_refused_and_leaves_nothing(world: World, delay: Any) -> None:
    """What the original dtimer 0.3.3 did: it accepted infinite and far too long ones (P27, P28), of NaN the payload
    stayed for ever (P29), and a wrong type was thrown before there was a promise that could be rejected (P30)."""
    timer = world.timer()
    posting = timer.post("p", delay, id="e")
    with pytest.raises(InvalidArgument, match="delay"):
        await posting
    changing = timer.change_delay("e", delay)
    with pytest.raises(InvalidArgument, match="delay"):
        await changing
    assert await world.nothing_is_kept()


async def test_a_refused_delay_leaves_a_scheduled_event_as_it_was(world: World) -> None:
    """What the original dtimer 0.3.3 did (P29), as here: changing to NaN was rejected."""
    timer = world.timer()
    await timer.post("p", 60_000, id="e")
    before = await timer.peek("e")

    with pytest.raises(InvalidArgument):
        await timer.change_delay("e", math.nan)

    after = await timer.peek("e")
    assert before is not None
    assert after is not None
    assert before.due == after.due


async def test_the_longest_delay_is_shown_as_it_is(world: World) -> None:
    """What the original dtimer 0.3.3 did (P28): long ones were shown as 1, 0 or null."""
    timer = world.timer()
    century = timedelta(days=36_525)
    await timer.post("p", century, id="e")

    entry = await timer.peek("e")

    assert entry is not None
    assert century - timedelta(seconds=10) < entry.time_left <= century
