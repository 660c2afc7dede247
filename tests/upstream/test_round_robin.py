"""How events are shared among nodes."""

from __future__ import annotations

from collections import Counter

import pytest

from dtimer import Event, NodeFenced, Post
from support.worlds import World, lateness_ms


@pytest.mark.parametrize("max_events", [8, 1])
async def test_events_one_at_a_time_go_round(world: World, max_events: int) -> None:
    """What the original dtimer 0.3.3 did (P44), as here: 0, 1, 2, 0, 1, 2 ... whatever the room of each."""
    nodes = [await world.node(name, max_events=max_events) for name in "012"]
    timer = world.timer()
    takers = ""
    for number in range(12):
        await timer.post(number, 10)
        await world.taken(number + 1, *nodes)
        takers += next(node.id for node in nodes if number in [event.payload for event in node.events])
        await world.passes(10)

    assert takers == "012" * 4


@pytest.mark.parametrize("max_events", [8, 1])
async def test_a_burst_reaches_each_event_once_and_promptly(world: World, max_events: int) -> None:
    """What the original dtimer 0.3.3 did (P44), as here: 30 due at once were all out within some ms."""
    taken: list[Event] = []
    for name in "012":
        await world.node(name, taken.append, max_events=max_events)
    await world.timer().post_many(Post(payload=number, delay=50, id=str(number)) for number in range(30))
    await world.until(lambda: len(taken) >= 30)

    assert Counter(event.id for event in taken) == Counter(map(str, range(30)))
    assert max(lateness_ms(event) for event in taken) < world.prompt_ms


async def test_what_is_overdue_is_taken_at_once_after_a_join(world: World) -> None:
    """What the original dtimer 0.3.3 did (P44), as here: 30 overdue events were out 100 ms after a node had joined,
    although that had room for 4 only."""
    await world.timer().post_many(Post(payload=number, delay=0) for number in range(30))
    node = await world.node(max_events=4)
    await world.until(lambda: len(node.events) == 30)

    assert [event.payload for event in node.events] == list(range(30))
    assert (node.events[-1].delivered_at - node.events[0].delivered_at).total_seconds() * 1_000 < world.prompt_ms


async def test_of_two_processes_with_one_node_id_the_later_one_is_the_node(world: World) -> None:
    """What the original dtimer 0.3.3 did (P44): both shared what was meant for one, 5 to 5.
    Here the later one takes all, and the earlier one is told so."""
    earlier = await world.node("same")
    later = await world.node("same")
    for number in range(10):
        await later.timer.post(number, 0)
        await world.taken(number + 1, earlier, later)

    await world.until(lambda: earlier.errors)
    assert [event.payload for event in later.events] == list(range(10))
    assert earlier.error_types() == [NodeFenced]
    assert not earlier.timer.joined


async def test_when_the_later_one_leaves_others_go_on(world: World) -> None:
    """What the original dtimer 0.3.3 did (P44), as here: a survivor went on."""
    other = await world.node("other")
    later = await world.node("same")
    await later.timer.leave()
    for number in range(4):
        await other.timer.post(number, 0)
    await world.until(lambda: len(other.events) == 4)

    assert not later.events
