"""Events that were delivered and wait for their confirm."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from dtimer import CancelOutcome, ChangeOutcome, ConfirmOutcome, DTimer, Event, EventState
from support.worlds import Node, World, gaps_ms

LONG_S = 60
SHORT_S = 0.2


async def delivered(world: World, *, confirm_timeout: float = LONG_S, max_retries: int = 3) -> Node:
    """A node that was given the event `e` and does not confirm it."""
    node = await world.node("holder")
    await node.timer.post(
        {"m": 1}, 0, id="e", max_retries=max_retries, confirm_timeout=confirm_timeout if max_retries else None
    )
    await world.until(lambda: node.events)
    return node


async def test_the_number_of_retries_is_there_from_the_first_delivery_on(world: World) -> None:
    """What the original dtimer 0.3.3 did (P07): the first delivery had no such number, the later ones had 1, 2 ..."""
    node = await delivered(world, confirm_timeout=SHORT_S, max_retries=2)
    await world.until(lambda: len(node.events) == 3)

    assert node.attempts == [("e", 0), ("e", 1), ("e", 2)]
    assert [event.payload for event in node.events] == [{"m": 1}] * 3


async def test_an_unconfirmed_event_can_be_seen(world: World) -> None:
    """What the original dtimer 0.3.3 did (P08): peek and upcoming showed nothing."""
    node = await delivered(world)

    peeked = await node.timer.peek("e")
    listed = await node.timer.upcoming()

    assert peeked is not None
    assert (peeked.state, peeked.payload, peeked.delivery_number) == (EventState.UNCONFIRMED, {"m": 1}, 1)
    assert timedelta(0) < peeked.time_left <= timedelta(seconds=LONG_S)
    assert [(entry.id, entry.state) for entry in listed] == [("e", EventState.UNCONFIRMED)]


async def test_an_unconfirmed_event_can_be_stopped(world: World) -> None:
    """What the original dtimer 0.3.3 did (P09): cancel answered 0 and the event came again."""
    node = await delivered(world, confirm_timeout=SHORT_S)

    outcome = await node.timer.cancel("e")

    assert outcome is CancelOutcome.STOPPED
    assert int(outcome) == 1
    assert await world.nothing_is_kept()
    await world.passes(2 * SHORT_S * 1_000)
    assert node.attempts == [("e", 0)]


async def test_a_confirm_ends_an_event_and_a_second_one_finds_nothing(world: World) -> None:
    """What the original dtimer 0.3.3 did (P10), as here: it answered 1, then 0, and kept nothing."""
    node = await delivered(world)

    assert int(await node.timer.confirm("e")) == 1
    assert int(await node.timer.confirm("e")) == 0
    assert await world.nothing_is_kept()


async def test_changing_the_delay_of_an_unconfirmed_event_changes_nothing(world: World) -> None:
    """What the original dtimer 0.3.3 did (P11): it answered 1, and the event came once more than it had retries."""
    node = await delivered(world, confirm_timeout=SHORT_S, max_retries=2)

    outcome = await node.timer.change_delay("e", 10)

    assert outcome is ChangeOutcome.UNCONFIRMED
    assert int(outcome) == 0
    await world.until(lambda: node.ended)
    assert node.attempts == [("e", 0), ("e", 1), ("e", 2)]
    assert min(gaps_ms(node.events)) >= SHORT_S * 1_000


async def test_a_new_delay_is_not_promised_and_then_overwritten(world: World) -> None:
    """What the original dtimer 0.3.3 did (P12): it answered 1 to a delay of 60 s, and redelivered after 1 s."""
    node = await delivered(world, confirm_timeout=SHORT_S)

    assert not await node.timer.change_delay("e", 60_000)

    await world.until(lambda: len(node.events) == 2)
    assert node.attempts == [("e", 0), ("e", 1)]


async def test_changing_then_confirming_leaves_nothing(world: World) -> None:
    """What the original dtimer 0.3.3 did (P13): an entry without a payload stayed, and could be cancelled."""
    node = await delivered(world)
    await node.timer.change_delay("e", 50_000)

    assert await node.timer.confirm("e") is ConfirmOutcome.CONFIRMED

    assert await world.nothing_is_kept()
    assert await node.timer.cancel("e") is CancelOutcome.NOT_FOUND


async def test_changing_then_cancelling_leaves_nothing(world: World) -> None:
    """What the original dtimer 0.3.3 did (P14): a trace of the event stayed until its confirm timeout had passed."""
    node = await delivered(world)
    await node.timer.change_delay("e", 50_000)

    assert await node.timer.cancel("e") is CancelOutcome.STOPPED

    assert await world.nothing_is_kept()


async def test_changing_what_was_delivered_at_most_once_finds_nothing(world: World) -> None:
    """What the original dtimer 0.3.3 did (P15): it answered 1, for an event that never came again."""
    node = await delivered(world, max_retries=0)

    assert await node.timer.change_delay("e", 10) is ChangeOutcome.NOT_FOUND

    assert await world.nothing_is_kept()


async def test_what_was_delivered_at_most_once_is_over(world: World) -> None:
    """What the original dtimer 0.3.3 did (P16), as here: both confirm and cancel answered 0."""
    node = await delivered(world, max_retries=0)

    assert int(await node.timer.confirm("e")) == 0
    assert int(await node.timer.cancel("e")) == 0


async def test_a_stale_confirm_does_not_end_the_retry_that_is_under_way(world: World) -> None:
    """What the original dtimer 0.3.3 did (P17): the holder of the first delivery confirmed the second one away."""
    first = await delivered(world, confirm_timeout=SHORT_S)
    await first.timer.leave(drain=False)
    second = await world.node("second")
    await world.until(lambda: second.events)

    assert await first.timer.confirm("e") is ConfirmOutcome.STALE
    assert await first.events[0].confirm() is ConfirmOutcome.STALE

    assert second.attempts == [("e", 1)]
    assert await second.events[0].confirm() is ConfirmOutcome.CONFIRMED
    assert await world.nothing_is_kept()


async def held_past_its_deadline(world: World) -> tuple[Node, asyncio.Event]:
    """A full node that holds the event `e` past its deadline; it confirms when the gate opens."""
    gate = asyncio.Event()

    async def hold(event: Event) -> None:
        while not gate.is_set():
            await world.sleep(1)

    node = await world.node("holder", hold, max_events=1)
    await node.timer.post("p", 0, id="e", max_retries=3, confirm_timeout=SHORT_S)
    await world.until(lambda: node.events)
    await world.passes(1.5 * SHORT_S * 1_000)
    return node, gate


async def traffic(timer: DTimer) -> None:
    """Of somebody who has nothing to do with it."""
    await timer.post("stranger", 50_000, id="stranger")
    await timer.change_delay("stranger", 60_000)
    await timer.upcoming()
    await timer.cancel("stranger")


async def test_a_late_confirm_counts_as_long_as_nobody_has_taken_the_event_again(world: World) -> None:
    """What the original dtimer 0.3.3 did (P18), as here: a confirm after the timeout was accepted."""
    node, gate = await held_past_its_deadline(world)

    assert await node.events[0].confirm() is ConfirmOutcome.CONFIRMED

    gate.set()
    assert await world.nothing_is_kept()


async def test_unrelated_traffic_makes_no_late_confirm_void(world: World) -> None:
    """What the original dtimer 0.3.3 did (P19): any client's call made it a 0, and the finished work came again."""
    node, gate = await held_past_its_deadline(world)
    await traffic(world.timer())

    assert await node.events[0].confirm() is ConfirmOutcome.CONFIRMED

    gate.set()
    assert await world.nothing_is_kept()
    assert node.attempts == [("e", 0)]
