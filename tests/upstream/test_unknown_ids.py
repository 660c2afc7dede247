"""Operations on ids that name no event, or none of the wanted kind."""

from __future__ import annotations

from dtimer import CancelOutcome, ChangeOutcome, ConfirmOutcome
from support.worlds import World


async def test_changing_the_delay_of_an_unknown_id_says_so_and_leaves_nothing(world: World) -> None:
    """What the original dtimer 0.3.3 did (P01): it answered 1 and put an entry without a payload into its queue."""
    outcome = await world.timer().change_delay("nope", 500)

    assert outcome is ChangeOutcome.NOT_FOUND
    assert int(outcome) == 0
    assert await world.nothing_is_kept()


async def test_no_ghost_can_be_seen_or_cancelled(world: World) -> None:
    """What the original dtimer 0.3.3 did (P02): such an entry was seen by cancel, not by peek or upcoming."""
    timer = world.timer()
    await timer.change_delay("nope", 500)

    assert await timer.peek("nope") is None
    assert await timer.cancel("nope") is CancelOutcome.NOT_FOUND
    assert await timer.upcoming() == []


async def test_no_ghost_uses_up_a_limit(world: World) -> None:
    """What the original dtimer 0.3.3 did (P03): with a limit of 1, upcoming found such an entry, and listed nothing."""
    timer = world.timer()
    await timer.change_delay("nope", 500)
    await timer.post("real", 60_000, id="real")

    assert [entry.id for entry in await timer.upcoming(limit=1)] == ["real"]


async def test_an_unknown_id_is_still_unknown_when_its_time_comes(world: World) -> None:
    """What the original dtimer 0.3.3 did (P04): the node met such an entry when it was due, and just removed it."""
    node = await world.node()
    await node.timer.change_delay("nope", 20)
    await node.timer.post("real", 60, id="real")
    await world.until(lambda: node.events)

    assert node.ids == ["real"]
    assert not node.errors
    assert await world.nothing_is_kept()


async def test_an_unknown_id_cannot_be_cancelled_confirmed_or_seen(world: World) -> None:
    """What the original dtimer 0.3.3 did (P05), as here: it answered 0, 0 and nothing."""
    timer = world.timer()

    assert int(await timer.cancel("nope")) == 0
    assert int(await timer.confirm("nope")) == 0
    assert await timer.peek("nope") is None


async def test_confirming_a_scheduled_event_changes_nothing(world: World) -> None:
    """What the original dtimer 0.3.3 did (P06), as here: it answered 0, and the event stayed scheduled."""
    node = await world.node()
    await node.timer.post("p", 100, id="e", max_retries=1)

    assert await node.timer.confirm("e") is ConfirmOutcome.NOT_FOUND

    await world.until(lambda: node.events)
    assert node.attempts == [("e", 0)]
