"""Events that nobody confirms."""

from __future__ import annotations

import asyncio

import pytest

from dtimer import ConfirmOutcome, EndReason, Event
from support.worlds import World, gaps_ms, lateness_ms


async def test_after_its_last_retry_an_event_ends_and_somebody_is_told(world: World) -> None:
    """What the original dtimer 0.3.3 did (P40): 1 + 2 deliveries, as here, and then it deleted the event in silence."""
    node = await world.node(confirm_timeout=0.2)
    await node.timer.post("p", 0, id="e", max_retries=2)
    await world.until(lambda: node.ended)

    assert node.attempts == [("e", 0), ("e", 1), ("e", 2)]
    assert all(200 <= gap < 200 + world.prompt_ms for gap in gaps_ms(node.events))
    (ended,) = node.ended
    assert (ended.id, ended.payload, ended.reason, ended.num_retries) == ("e", "p", EndReason.EXHAUSTED, 2)
    assert await node.timer.confirm("e") is ConfirmOutcome.NOT_FOUND
    assert await world.nothing_is_kept()


async def test_what_is_to_be_kept_is_not_deleted_at_its_end(world: World) -> None:
    """What the original dtimer 0.3.3 did (P40): there was no way to find out which events had not been confirmed."""
    node = await world.node(confirm_timeout=0.1)
    await node.timer.post("p", 0, id="e", max_retries=1, dead_letter=True)
    await world.until(lambda: node.ended)

    assert node.ended[0].dead_letter
    assert [(letter.id, letter.payload) for letter in await node.timer.dead_letters()] == [("e", "p")]


@pytest.mark.parametrize("confirm_timeout", [0.3, 0.13])
async def test_a_retry_is_as_punctual_as_a_first_delivery(world: World, confirm_timeout: float) -> None:
    """What the original dtimer 0.3.3 did (P41): a timeout of 0.3 s meant 1 s, as retries were only looked for."""
    node = await world.node(confirm_timeout=confirm_timeout)
    await node.timer.post("p", 0, max_retries=2)
    await world.until(lambda: len(node.events) == 3)

    assert max(lateness_ms(event) for event in node.events) < world.prompt_ms
    assert min(gaps_ms(node.events)) >= confirm_timeout * 1_000


@pytest.mark.parametrize("nodes", [3, 12])
async def test_the_number_of_nodes_does_not_delay_a_retry(world: World, nodes: int) -> None:
    """What the original dtimer 0.3.3 did (P42): with 3 nodes a retry after 1 s came after 2 s, with 12 as well."""
    taken: list[Event] = []
    await asyncio.gather(*(world.node(f"n{n}", taken.append, confirm_timeout=0.15) for n in range(nodes)))
    await world.timer().post("p", 0, max_retries=2)
    await world.until(lambda: len(taken) == 3)

    assert max(lateness_ms(event) for event in taken) < world.prompt_ms
    assert [event.num_retries for event in taken] == [0, 1, 2]
