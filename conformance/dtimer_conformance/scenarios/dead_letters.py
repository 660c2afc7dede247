"""Scenarios of what ends without a confirm and was to be kept, and of what an operator does with it."""

from __future__ import annotations

from dtimer import EventExists
from dtimer.limits import DAY_US, DEAD_LETTER_AGE_US, MILLISECOND_US, PAGE_MAX_ITEMS
from dtimer.outcomes import DiscardOutcome, ResendOutcome
from dtimer.values import After, DeadLetter, EndReason, IfExists, NewEvent
from dtimer_conformance.client import LONG_US, Client, event
from dtimer_conformance.features import Feature
from dtimer_conformance.scenario import scenario, with_nodes
from dtimer_conformance.verdicts import Broken, holds, same
from dtimer_conformance.world import World

OVERDUE_US = 60 * MILLISECOND_US


async def letters_of(store: Client, limit: int = PAGE_MAX_ITEMS) -> list[DeadLetter]:
    """All pages of dead letters."""
    page = (await store.dead_letters(None, limit=limit)).value
    items = list(page.items)
    while page.next is not None:
        page = (await store.dead_letters(page.next, limit=limit)).value
        items += page.items
    return items


async def bury(store: Client, id: str, detail: str = "why", payload: bytes = b"") -> None:
    await store.put(id, max_retries=1, payload=payload)
    await store.bury((await store.take("a")).receipt, detail=detail)


@scenario("E5", needs=Feature.DEAD_LETTERS)
async def what_was_to_be_kept_becomes_a_dead_letter(world: World) -> None:
    """An exhausted event that was posted with `keep` is a dead letter with its reason and counts; others are dropped.

    Troubleshooting: does the claim that ends it keep it in the same step, and say so in `kept`?
    """
    store = world.store
    await store.enter("a")
    await store.put("kept", keep=True, max_retries=1, payload=b"\x00p", headers=b"h")
    await store.put("dropped", max_retries=1)
    for _ in range(2):
        await store.come("a", timeout_us=1)
        await world.wait(OVERDUE_US)

    ended = (await store.come("a")).ended
    ended_us = store.last.at_us
    (letter,) = await letters_of(store)

    same("what was reported", {found.event.id: found.kept for found in ended}, {"kept": True, "dropped": False})
    assert letter.event is not None, "the shape of the reply was checked"
    shown = (letter.id, letter.event.payload, letter.event.headers, letter.reason, letter.num_counted, letter.buried_us)
    same("the dead letter", shown, ("kept", b"\x00p", b"h", EndReason.EXHAUSTED, 2, ended_us))


@scenario("E5", needs=Feature.DEAD_LETTERS)
async def dead_letters_are_listed_oldest_first(world: World) -> None:
    """Dead letters are listed by the time of burial, then by id, in pages that go on where the last one ended.

    Troubleshooting: does the cursor hold time and id? Letters of one claim have one time.
    """
    store = world.store
    await store.enter("a")
    names = ["m", "b", "z", "a"]
    for name in names:
        await bury(store, name)
        await world.wait(2 * MILLISECOND_US)
    await store.post([NewEvent(event(name, keep=True, expires_after_us=1), After(0)) for name in ("y", "c", "ä")])
    await world.wait(OVERDUE_US)
    await store.come("a")

    expected = [*names, "c", "y", "ä"]
    for limit in (256, 3, 1):
        found = [letter.id for letter in await letters_of(store, limit)]
        same(f"the letters in pages of {limit}", found, expected)


@scenario("E5", "P3", needs=Feature.DEAD_LETTERS)
async def a_dead_letter_is_sent_again_as_new(world: World) -> None:
    """`resend` posts a dead letter's event as new and removes the letter, unless it leaves another event in place.

    Troubleshooting: counts begin at 0. A post that changes nothing must not lose the letter.
    """
    store = world.store
    await store.enter("a")
    await bury(store, "e", payload=b"old")
    await store.put("e", LONG_US, payload=b"live")

    async def resend(if_exists: IfExists) -> ResendOutcome:
        return (await store.resend("e", due=After(0), if_exists=if_exists)).value

    left = [await resend(IfExists.KEEP), await resend(IfExists.ERROR)]
    kept = [letter.id for letter in await letters_of(store)]
    sent = await resend(IfExists.REPLACE)
    delivery = await store.take("a")

    same("under keep and error, with a live event", left, [ResendOutcome.KEPT, ResendOutcome.CONFLICT])
    same("the letters after that", kept, ["e"])
    same("under replace", sent, ResendOutcome.REPLACED)
    same(
        "payload, retries, number",
        (delivery.event.payload, delivery.num_retries, delivery.receipt.number),
        (b"old", 0, 1),
    )
    same("the letters in the end", await letters_of(store), [])
    same("of what is no letter", await resend(IfExists.REPLACE), ResendOutcome.NOT_FOUND)


@scenario("E5", needs=Feature.DEAD_LETTERS)
async def a_dead_letter_is_discarded_once(world: World) -> None:
    """`discard` forgets dead letters, and tells of each whether it was there.

    Troubleshooting: items take effect one after the other.
    """
    store = world.store
    await store.enter("a")
    await bury(store, "e")

    outcomes = (await store.discard(["none", "e", "e"])).value

    nothing = DiscardOutcome.NOT_FOUND
    same("the outcomes", outcomes, (nothing, DiscardOutcome.DISCARDED, nothing))
    same("the letters", await letters_of(store), [])


@scenario("E5", needs=(Feature.DEAD_LETTERS, Feature.INSPECTION))
async def an_id_that_is_buried_again_replaces_its_letter(world: World) -> None:
    """A second dead letter under one id takes the place of the first, which is counted as dropped.

    Troubleshooting: is the letter's time of burial the new one?
    """
    store = world.store
    await store.enter("a")
    await bury(store, "e", "first")
    await bury(store, "f")
    await bury(store, "e", "second")

    found = [(letter.id, letter.detail) for letter in await letters_of(store)]
    inspection = (await store.inspect()).value

    same("the letters", found, [("f", "why"), ("e", "second")])
    counts = (inspection.dead_letters, inspection.dead_letters_dropped)
    same("how many there are, and were dropped", counts, (2, 1))


@scenario("E5", needs=(Feature.DEAD_LETTERS, Feature.LONG_TIMES))
async def after_thirty_days_a_dead_letter_does_not_exist(world: World) -> None:
    """A dead letter that is 30 days old is not listed, not resent, not discarded.

    Troubleshooting: does every operation look at the age, also before a burial has cleared the letter away?
    """
    store = world.store
    await store.enter("a")
    await bury(store, "old")
    buried_us = (await letters_of(store))[0].buried_us
    await world.wait(DEAD_LETTER_AGE_US - DAY_US)
    await store.enter("a")
    await bury(store, "young")
    same("the letters after 29 days", [letter.id for letter in await letters_of(store)], ["old", "young"])

    await world.wait(buried_us + DEAD_LETTER_AGE_US - store.last.at_us)

    same("the letters after 30 days", [letter.id for letter in await letters_of(store)], ["young"])
    resent = (await store.resend("old", due=After(0), if_exists=IfExists.REPLACE)).value
    same("resending the old one", resent, ResendOutcome.NOT_FOUND)
    same("discarding it", (await store.discard(["old"])).value, (DiscardOutcome.NOT_FOUND,))


@with_nodes("E5", needs=Feature.DEAD_LETTERS)
async def an_operator_handles_dead_letters_by_a_timer(world: World) -> None:
    """A timer lists what ended unconfirmed, with payload and reason, sends it again and discards it.

    Troubleshooting: see the scenarios of the backend's own methods.
    """
    node = await world.node(confirm_timeout=0.03)
    await node.timer.post({"n": 1}, 0, id="e", keep=True)
    await world.until("it is exhausted", lambda: node.exhausted)
    (letter,) = await node.timer.dead_letters()
    same("the letter", (letter.id, letter.payload, letter.reason), ("e", {"n": 1}, EndReason.EXHAUSTED))
    holds("the node was told that it is kept", node.exhausted[0].kept)

    await node.timer.post(None, 60_000, id="e")
    try:
        await node.timer.resend("e", if_exists="error")
    except EventExists:
        pass
    else:
        raise Broken("a resend over a live event raised no EventExists")
    same("sent again", await node.timer.resend("e"), ResendOutcome.REPLACED)
    await world.until("it comes again, and is a dead letter again", lambda: len(node.exhausted) == 2)
    same("discarded", await node.timer.discard("e"), DiscardOutcome.DISCARDED)
    same("what is left", await node.timer.dead_letters(), [])
