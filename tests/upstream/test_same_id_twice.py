"""Posting under an id that is in use."""

from __future__ import annotations

import pytest

from dtimer import ConfirmOutcome, PostOutcome
from support.worlds import Node, World, gaps_ms, lateness_ms

TIMEOUT_S = 0.3


async def test_the_last_post_of_a_pending_id_wins_and_is_on_time(world: World) -> None:
    """What the original dtimer 0.3.3 did (P20): the last one won, as here, but came 400 ms late."""
    node = await world.node()
    await node.timer.post({"m": 1}, 100, id="e")
    posted = await node.timer.post({"m": 2}, 300, id="e")
    await world.until(lambda: node.events)

    assert posted.outcome is PostOutcome.REPLACED
    assert [event.payload for event in node.events] == [{"m": 2}]
    assert 0 <= lateness_ms(node.events[0]) < world.prompt_ms
    assert await world.nothing_is_kept()


async def four_unconfirmed(world: World) -> Node:
    """A node that was given d0 to d3, which have two retries, and confirms none."""
    node = await world.node(confirm_timeout=TIMEOUT_S)
    for number in range(4):
        await node.timer.post(number, 0, id=f"d{number}", max_retries=2)
    await world.until(lambda: len(node.events) == 4)
    return node


async def test_a_repost_of_an_unconfirmed_id_replaces_it(world: World) -> None:
    """What the original dtimer 0.3.3 did (P21): both were kept, and the next script failed on the mixture."""
    node = await world.node(confirm_timeout=TIMEOUT_S)
    await node.timer.post({"m": 1}, 0, id="e", max_retries=1)
    await world.until(lambda: node.events)

    posted = await node.timer.post({"m": 2}, 2 * TIMEOUT_S * 1_000, id="e", max_retries=1)

    assert posted.outcome is PostOutcome.REPLACED
    assert await node.events[0].confirm() is ConfirmOutcome.STALE
    await world.until(lambda: len(node.events) == 2)
    assert node.events[1].payload == {"m": 2}
    assert node.attempts == [("e", 0), ("e", 0)]
    assert gaps_ms(node.events)[0] >= TIMEOUT_S * 1_000
    assert await node.events[1].confirm() is ConfirmOutcome.CONFIRMED
    assert not node.errors
    assert await world.nothing_is_kept()


async def test_a_repost_does_not_touch_the_retries_of_others(world: World) -> None:
    """What the original dtimer 0.3.3 did (P22): of four unconfirmed events, reposting one lost two others for good."""
    node = await four_unconfirmed(world)

    await node.timer.post("again", 0, id="d1", max_retries=2)
    await world.until(lambda: len(node.ended) == 4)

    for number in range(4):
        own = [event.num_retries for event in node.events if event.id == f"d{number}"]
        assert own == ([0, 0, 1, 2] if number == 1 else [0, 1, 2])
    assert not node.errors
    assert await world.nothing_is_kept()


async def test_a_strangers_post_at_that_moment_works_and_loses_nothing(world: World) -> None:
    """What the original dtimer 0.3.3 did (P23): a stranger's post was rejected with an error, and an event was lost."""
    node = await four_unconfirmed(world)
    stranger = world.timer()
    await stranger.post("again", 60_000, id="d1")
    await world.passes(TIMEOUT_S * 1_000)

    posted = await stranger.post("mine", 60_000)

    assert posted.outcome is PostOutcome.CREATED
    await world.until(lambda: len(node.ended) == 3)
    assert {ended.id for ended in node.ended} == {"d0", "d2", "d3"}


@pytest.mark.parametrize("max_retries", [0, 1])
async def test_a_repost_that_requires_no_confirm_ends_the_old_one(world: World, max_retries: int) -> None:
    """What the original dtimer 0.3.3 did (P24), as here: both came, a confirm then answered 0, and all was clean."""
    node = await world.node()
    await node.timer.post({"m": 1}, 0, id="e", max_retries=max_retries)
    await world.until(lambda: node.events)
    await node.timer.post({"m": 2}, 0, id="e")
    await world.until(lambda: len(node.events) == 2)

    assert [event.payload for event in node.events] == [{"m": 1}, {"m": 2}]
    assert int(await node.timer.confirm("e")) == 0
    assert await world.nothing_is_kept()
