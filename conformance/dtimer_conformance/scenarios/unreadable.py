"""Scenarios of what cannot be read: records that dtimer did not write, and payloads that a codec refuses."""

from __future__ import annotations

from typing import Any

from dtimer import PayloadRefused, RecordUnreadable
from dtimer.limits import MILLISECOND_US, REFUSAL_WAIT_MIN_US, UNREADABLE_SHOWN_BYTES
from dtimer.protocol.outcomes import BuryOutcome, ReleaseOutcome, ResendOutcome
from dtimer.protocol.values import (
    After,
    EndReason,
    IfExists,
    LetterName,
    Release,
)
from dtimer_conformance.assertions import assert_equal, assert_that
from dtimer_conformance.client import LONG_US, Client, ids
from dtimer_conformance.environment import Environment
from dtimer_conformance.features import Feature, SupportsForeignRecords
from dtimer_conformance.scenario import scenario, with_nodes
from dtimer_conformance.scenarios.dead_letters import letters_of

OVERDUE_US = 60 * MILLISECOND_US


async def _refuse(store: Client, *, refused_for_us: int = LONG_US) -> int:
    """Take the one event that is due, and refuse it; how long after that it is due again, in ms."""
    delivery = await store.take("a")
    await store.give_back(delivery, Release.REFUSED, refused_for_us=refused_for_us)
    refused_us = store.last.at_us
    return ((await store.see(delivery.event.id)).next_us - refused_us) // MILLISECOND_US


@scenario("F4")
async def a_refused_payload_goes_round_the_ring(env: Environment) -> None:
    """A refused event is due again at once until there were as many refusals as there are members; then it waits.

    Troubleshooting: are refusals counted in the store, and as no attempts? Does a join since the last one begin anew?
    """
    store = env.store
    await store.enter("a", "b", "c")
    await store.put("e", max_retries=1)
    waits = [await _refuse(store) for _ in range(3)]
    await env.wait(REFUSAL_WAIT_MIN_US)
    waits += [await _refuse(store) for _ in range(3)]
    await store.enter("d")
    await env.wait(2 * REFUSAL_WAIT_MIN_US)
    waits += [await _refuse(store) for _ in range(4)]

    first = REFUSAL_WAIT_MIN_US // MILLISECOND_US
    assert_equal(
        "the waits in ms, a member joining after the sixth", waits, [0, 0, first, 0, 0, 2 * first, 0, 0, 0, first]
    )
    await env.wait(REFUSAL_WAIT_MIN_US)
    assert_equal("the retries, of which refusals are none", (await store.take("a")).num_retries, 0)


@scenario("F4")
async def what_is_refused_for_long_is_buried(env: Environment) -> None:
    """A refusal ends an event whose first one was as long ago as the node says, whether or not it was to be kept.

    Troubleshooting: is the time of the first refusal kept? An attempt that counts shows that the payload can be read,
    so the time begins anew.
    """
    store = env.store
    await store.enter("a", "b")
    await store.put("e", max_retries=5)
    await _refuse(store)
    await env.wait(OVERDUE_US)
    await store.give_back(await store.take("a"), Release.COUNTED)
    await _refuse(store, refused_for_us=OVERDUE_US)
    await env.wait(OVERDUE_US)

    outcome = await store.give_back(await store.take("a"), Release.REFUSED, refused_for_us=OVERDUE_US)

    assert_equal("the outcome of the last refusal", outcome, ReleaseOutcome.BURIED)
    assert_equal("what lives", await store.queue(), [])


@scenario("F4", needs=Feature.DEAD_LETTERS)
async def what_is_buried_or_refused_is_a_dead_letter(env: Environment) -> None:
    """A burial, with its detail, byte for byte, and a last refusal make a dead letter, whatever `dead_letter` says.

    Troubleshooting: the detail is any text of up to 1 KiB, newlines included. Old receipts bury nothing.
    """
    store = env.store
    await store.enter("a")
    detail = "line 1\nline 2 \u00e4\U0001f600 \x00"
    await store.put("refused", max_retries=1)
    await store.give_back(await store.take("a"), Release.REFUSED, refused_for_us=0)
    await store.put("buried", max_retries=1)
    delivery = await store.take("a")
    outcomes = [(await store.bury(delivery.receipt, detail=detail)).value for _ in range(2)]
    await store.put("other", max_retries=1)
    other = await store.take("a")
    await store.give_back(other, Release.UNCOUNTED)
    outcomes.append((await store.bury(other.receipt, detail=detail)).value)

    expected = [BuryOutcome.BURIED, BuryOutcome.NOT_FOUND, BuryOutcome.STALE]
    assert_equal("burying, again, by an old receipt", outcomes, expected)
    found = [(letter.id, letter.reason, letter.detail) for letter in await letters_of(store)]
    assert_equal("the letters", found, [("refused", EndReason.REFUSED, ""), ("buried", EndReason.BURIED, detail)])


class _Picky:
    """A codec that refuses some payloads."""

    def encode(self, payload: bytes) -> bytes:
        return payload

    def decode(self, data: bytes) -> bytes:
        if data == b"bad":
            raise ValueError("this codec does not read that")
        return data


class _Plain(_Picky):
    """One that does not."""

    def decode(self, data: bytes) -> bytes:
        return data


@with_nodes("F4", limit_s=30)
async def a_payload_that_one_node_refuses_goes_to_another(env: Environment) -> None:
    """What a node's codec refuses goes back uncounted, reported, and a node that joins later and can read it gets it.

    Troubleshooting: is a refused event claimable again after some seconds at most, by anybody?
    """
    picky = await env.node("picky", codec=_Picky())
    await picky.timer.post(b"bad", 0, id="tracked", max_retries=1)
    await picky.timer.post(b"bad", 0, id="once")
    await env.until("both refusals are reported", lambda: len(picky.errors) >= 2)
    assert_that("as what they are", all(isinstance(error, PayloadRefused) for error in picky.errors), seen=picky.errors)

    other = await env.node("other", codec=_Plain())
    await env.until("the other node gets it", lambda: other.events, within_us=6_000_000)

    (found,) = other.events
    assert_equal("payload and retries", (found.payload, found.num_retries), (b"bad", 0))


@scenario("F4", needs=(Feature.FOREIGN_RECORDS, Feature.DEAD_LETTERS))
async def an_unreadable_record_is_set_aside(env: Environment) -> None:
    """A record that dtimer did not write is made a dead letter with its bytes by the claim that meets it.

    It must neither stop the queue nor be lost.

    Troubleshooting: does one bad record make the claim fail? Is it reported in `unreadable`, and in no page?
    """
    store = env.store
    foreign = store.backend
    assert isinstance(foreign, SupportsForeignRecords), "the feature is there"
    # The machine is not told of the record, so it cannot replay this history.
    env.recorder.replayable = False
    await store.enter("a")
    await store.put("good", 1)
    raw = b"not\xffdtimer's"
    await foreign.write_record("bad", raw, store.last.at_us)
    shown = [item.event.id for item in await store.queue()]
    await env.wait(OVERDUE_US)

    claimed = await store.come("a", 1)

    assert_equal("what upcoming shows", shown, ["good"])
    assert_equal("what is delivered", ids(claimed), ["good"])
    assert_equal("what is unreadable", [(found.id, found.raw) for found in claimed.unreadable], [("bad", raw)])
    (letter,) = await letters_of(store)
    expected = ("bad", None, raw, EndReason.UNREADABLE)
    assert_equal("the dead letter", (letter.id, letter.event, letter.raw, letter.reason), expected)
    resent = (await store.resend(LetterName("bad"), due=After(0), if_exists=IfExists.REPLACE)).value
    assert_equal("sending it again", resent, ResendOutcome.UNREADABLE)


@scenario("F4", needs=(Feature.FOREIGN_RECORDS, Feature.DEAD_LETTERS))
async def of_a_large_unreadable_record_the_beginning_is_shown(env: Environment) -> None:
    """The report of an unreadable record and the list of dead letters have its first 64 KiB, whatever its size.

    Troubleshooting: compare with `UNREADABLE_SHOWN_BYTES`; a reply that has all of it may be too large for any client.
    """
    store = env.store
    foreign = store.backend
    assert isinstance(foreign, SupportsForeignRecords), "the feature is there"
    env.recorder.replayable = False
    await store.enter("a")
    raw = b"not dtimer's" * (UNREADABLE_SHOWN_BYTES // 6)
    await store.peek("none")
    await foreign.write_record("bad", raw, store.last.at_us)
    await env.wait(OVERDUE_US)

    claimed = await store.come("a", 1)

    shown = raw[:UNREADABLE_SHOWN_BYTES]
    assert_equal("what the claim shows is the beginning", [found.raw == shown for found in claimed.unreadable], [True])
    assert_equal("and so is what the list shows", [letter.raw == shown for letter in await letters_of(store)], [True])


@with_nodes("F4", needs=Feature.FOREIGN_RECORDS)
async def a_node_reports_an_unreadable_record_and_goes_on(env: Environment) -> None:
    """A node that meets a foreign record reports it, and takes what comes after it.

    Troubleshooting: see the claim that sets it aside.
    """
    foreign = env.store.backend
    assert isinstance(foreign, SupportsForeignRecords), "the feature is there"
    env.recorder.replayable = False
    node = await env.node()
    await env.store.peek("none")
    await foreign.write_record("bad", b"\x00", env.store.last.at_us)
    await node.timer.post(None, 1, id="good")

    await env.until("what comes after it is delivered", lambda: node.ids == ["good"])
    assert_equal("the reports", [type(error) for error in node.errors], [RecordUnreadable])


@with_nodes("F4", needs=Feature.DEAD_LETTERS)
async def a_handler_buries_its_event(env: Environment) -> None:
    """A handler may bury its event, and the reason is kept.

    Troubleshooting: this rests on `bury`.
    """

    async def handler(found: Any) -> None:
        await found.bury("no such order")

    node = await env.node(handler=handler)
    await node.timer.post(None, 0, id="e", max_retries=1, confirm_timeout=60)

    async def buried() -> bool:
        return len(await node.timer.dead_letters()) == 1

    await env.until("it is a dead letter", buried)
    (letter,) = await node.timer.dead_letters()
    assert_equal("reason and detail", (letter.reason, letter.detail), (EndReason.BURIED, "no such order"))
    assert_equal("peek", await node.timer.peek("e"), None)
