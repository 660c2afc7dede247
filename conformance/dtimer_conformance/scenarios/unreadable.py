"""Scenarios of what cannot be read: records that dtimer did not write, and payloads that a codec refuses."""

from __future__ import annotations

from typing import Any

from dtimer import PayloadRefused, RecordUnreadable
from dtimer.limits import MILLISECOND_US, REFUSALS_MAX
from dtimer.outcomes import BuryOutcome, ReleaseOutcome, ResendOutcome
from dtimer.values import After, EndReason, IfExists, Release
from dtimer_conformance.client import ids
from dtimer_conformance.features import Feature, SupportsForeignRecords
from dtimer_conformance.scenario import scenario, with_nodes
from dtimer_conformance.scenarios.dead_letters import letters_of
from dtimer_conformance.verdicts import holds, same
from dtimer_conformance.world import World

OVERDUE_US = 60 * MILLISECOND_US


@scenario("F4")
async def the_third_refusal_buries(world: World) -> None:
    """A refused payload goes back uncounted twice; the third refusal ends the event, whether or not it was to be kept.

    Troubleshooting: are refusals counted in the store, in the same step, and whatever happens in between?
    """
    store = world.store
    await store.enter("a")
    await store.put("e", max_retries=5)
    outcomes: list[ReleaseOutcome] = []
    seen: list[int] = []
    for n in range(REFUSALS_MAX):
        if n == 1:
            # A failed attempt in between neither counts as a refusal nor resets them.
            await store.give_back(await store.take("a"), Release.COUNTED)
        delivery = await store.take("a")
        seen.append(delivery.num_retries)
        outcomes.append(await store.give_back(delivery, Release.REFUSED, detail="cannot be read"))

    released = ReleaseOutcome.RELEASED
    same("the outcomes", outcomes, [released, released, ReleaseOutcome.BURIED])
    same("the retries, of which refusals are none", seen, [0, 1, 1])
    same("what lives", await store.queue(), [])


@scenario("F4", needs=Feature.DEAD_LETTERS)
async def what_is_buried_or_refused_is_a_dead_letter(world: World) -> None:
    """A burial, and the third refusal, make a dead letter with the detail, byte for byte, whatever `keep` says.

    Troubleshooting: the detail is any text of up to 1 KiB, newlines included. Old receipts bury nothing.
    """
    store = world.store
    await store.enter("a")
    detail = "line 1\nline 2 \u00e4\U0001f600 \x00"
    await store.put("refused", max_retries=1)
    for _ in range(REFUSALS_MAX):
        await store.give_back(await store.take("a"), Release.REFUSED, detail=detail)
    await store.put("buried", max_retries=1)
    delivery = await store.take("a")
    outcomes = [(await store.bury(delivery.receipt, detail=detail)).value for _ in range(2)]
    await store.put("other", max_retries=1)
    other = await store.take("a")
    await store.give_back(other, Release.UNCOUNTED)
    outcomes.append((await store.bury(other.receipt, detail=detail)).value)

    expected = [BuryOutcome.BURIED, BuryOutcome.NOT_FOUND, BuryOutcome.STALE]
    same("burying, again, by an old receipt", outcomes, expected)
    found = [(letter.id, letter.reason, letter.detail) for letter in await letters_of(store)]
    same("the letters", found, [("refused", EndReason.REFUSED, detail), ("buried", EndReason.BURIED, detail)])


class _Picky:
    """A codec that refuses some payloads."""

    def encode(self, payload: bytes) -> bytes:
        return payload

    def decode(self, data: bytes) -> bytes:
        if data == b"bad":
            raise ValueError("this codec does not read that")
        return data


@with_nodes("F4", limit_s=30)
async def a_payload_that_one_node_refuses_goes_to_another(world: World) -> None:
    """What a node's codec refuses goes back uncounted, reported, and a node that can read it gets it.

    Troubleshooting: is a refused event claimable again after a second, by anybody?
    """
    picky = await world.node("picky", codec=_Picky())
    await picky.timer.post(b"bad", 0, id="tracked", max_retries=1)
    await picky.timer.post(b"bad", 0, id="once")
    await world.until("both refusals are reported", lambda: len(picky.errors) == 2)
    holds("as what they are", all(isinstance(error, PayloadRefused) for error in picky.errors), seen=picky.errors)

    class Plain(_Picky):
        def decode(self, data: bytes) -> bytes:
            return data

    other = await world.node("other", codec=Plain())
    await picky.timer.leave()
    await world.until("the other node gets it", lambda: other.events, within_us=3_000_000)

    (found,) = other.events
    same("payload, retries, delivery", (found.payload, found.num_retries, found.delivery), (b"bad", 0, 2))


@scenario("F4", needs=(Feature.FOREIGN_RECORDS, Feature.DEAD_LETTERS))
async def an_unreadable_record_is_set_aside(world: World) -> None:
    """A record that dtimer did not write is made a dead letter with its bytes by the claim that meets it.

    It must neither stop the queue nor be lost.

    Troubleshooting: does one bad record make the claim fail? Is it reported in `unreadable`, and in no page?
    """
    store = world.store
    foreign = store.backend
    assert isinstance(foreign, SupportsForeignRecords), "the feature is there"
    # The machine is not told of the record, so it cannot replay this history.
    world.journal.replayable = False
    await store.enter("a")
    await store.put("good", 1)
    raw = b"not\xffdtimer's"
    await foreign.write_record("bad", raw, store.last.at_us)
    shown = [item.event.id for item in await store.queue()]
    await world.wait(OVERDUE_US)

    claimed = await store.come("a", 1)

    same("what upcoming shows", shown, ["good"])
    same("what is delivered", ids(claimed), ["good"])
    same("what is unreadable", [(found.id, found.raw) for found in claimed.unreadable], [("bad", raw)])
    (letter,) = await letters_of(store)
    expected = ("bad", None, raw, EndReason.UNREADABLE)
    same("the dead letter", (letter.id, letter.event, letter.raw, letter.reason), expected)
    resent = (await store.resend("bad", due=After(0), if_exists=IfExists.REPLACE)).value
    same("sending it again", resent, ResendOutcome.UNREADABLE)


@with_nodes("F4", needs=Feature.FOREIGN_RECORDS)
async def a_node_reports_an_unreadable_record_and_goes_on(world: World) -> None:
    """A node that meets a foreign record reports it, and takes what comes after it.

    Troubleshooting: see the claim that sets it aside.
    """
    foreign = world.store.backend
    assert isinstance(foreign, SupportsForeignRecords), "the feature is there"
    world.journal.replayable = False
    node = await world.node()
    await world.store.peek("none")
    await foreign.write_record("bad", b"\x00", world.store.last.at_us)
    await node.timer.post(None, 1, id="good")

    await world.until("what comes after it is delivered", lambda: node.ids == ["good"])
    same("the reports", [type(error) for error in node.errors], [RecordUnreadable])


@with_nodes("F4", needs=Feature.DEAD_LETTERS)
async def a_handler_buries_its_event(world: World) -> None:
    """A handler may bury its event, and the reason is kept.

    Troubleshooting: this rests on `bury`.
    """

    async def handler(found: Any) -> None:
        await found.bury("no such order")

    node = await world.node(handler=handler)
    await node.timer.post(None, 0, id="e", max_retries=1, confirm_timeout=60)

    async def buried() -> bool:
        return len(await node.timer.dead_letters()) == 1

    await world.until("it is a dead letter", buried)
    (letter,) = await node.timer.dead_letters()
    same("reason and detail", (letter.reason, letter.detail), (EndReason.BURIED, "no such order"))
    same("peek", await node.timer.peek("e"), None)
