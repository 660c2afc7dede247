"""A node that has left takes no more."""

from __future__ import annotations

import asyncio

from dtimer import Event, Post
from support.worlds import Node, World


async def test_a_node_that_leaves_in_a_handler_gets_no_retries(world: World) -> None:
    """What the original dtimer 0.3.3 did (P52): the node armed itself again, and got the retries of all five events."""

    async def leave(event: Event) -> None:
        if event.payload == 0:
            await leaver.timer.leave()

    leaver: Node = await world.node("leaver", leave, confirm_timeout=0.2)
    await leaver.timer.post_many(Post(payload=n, delay=0, id=str(n), max_retries=1) for n in range(5))
    await world.until(lambda: leaver.events and not leaver.timer.joined)
    other = await world.node("other")
    await world.until(lambda: len(other.events) == 5)

    assert sorted(leaver.attempts) == [(str(n), 0) for n in range(len(leaver.events))]
    assert {id for id, _ in other.attempts} == set("01234")
    assert [member.node for member in (await world.inspect()).ring] == ["other"]


async def test_an_event_after_leaving_goes_to_another_node(world: World) -> None:
    """What the original dtimer 0.3.3 did (P53): leaving during a poll armed the node anew; a later event went to it."""
    other = await world.node("other")
    for number in range(10):
        leaver = await world.node("leaver")
        await asyncio.gather(leaver.timer.post(number, 0, id=f"during-{number}"), leaver.timer.leave())
        before = list(leaver.ids)
        await world.until_quiet()

        await other.timer.post(number, 0, id=f"after-{number}")
        await world.until_quiet()

        assert leaver.ids == before
    await world.until(lambda: other.ids[-1] == "after-9")
    assert [id for id in other.ids if id.startswith("after")] == [f"after-{number}" for number in range(10)]


async def test_leaving_hands_the_next_event_over(world: World) -> None:
    """What the original dtimer 0.3.3 did (P53): nobody else was told to come in place of the node that left."""
    other = await world.node("other")
    leaver = await world.node("leaver")
    await leaver.timer.post_many(Post(payload=n, delay=150 + n) for n in range(2))
    await leaver.timer.leave()
    await world.until(lambda: len(other.events) == 2)

    assert not leaver.events
    assert max(event.lateness.total_seconds() * 1_000 for event in other.events) < world.prompt_ms
