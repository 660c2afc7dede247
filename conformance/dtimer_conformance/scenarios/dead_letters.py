"""Scenarios of what ends without a confirm and was to be kept, and of what an operator does with it."""

from __future__ import annotations

from dtimer import EventExists
from dtimer.limits import DAY_US, DEAD_LETTER_AGE_US, MILLISECOND_US, PAGE_MAX_ITEMS
from dtimer.protocol.outcomes import ConfirmOutcome, DiscardOutcome, ReleaseOutcome, ResendOutcome
from dtimer.protocol.values import (
    After,
    DeadLetter,
    EndReason,
    Failure,
    IfExists,
    LastError,
    LetterName,
    NewEvent,
    Release,
)
from dtimer_conformance.assertions import RuleBroken, assert_equal, assert_that
from dtimer_conformance.client import LONG_US, Client, event
from dtimer_conformance.environment import Environment
from dtimer_conformance.features import Feature
from dtimer_conformance.scenario import scenario, with_nodes

OVERDUE_US = 60 * MILLISECOND_US


async def letters_of(store: Client, limit: int = PAGE_MAX_ITEMS) -> list[DeadLetter]:
    """All pages of dead letters."""
    page = (await store.dead_letters(None, limit=limit)).value
    items = list(page.items)
    while page.next is not None:
        before = page.next
        page = (await store.dead_letters(before, limit=limit)).value
        late = [letter for letter in page.items if letter.buried_us <= before.after_us]
        assert_equal("what a page repeats of those before it", late, [])
        items += page.items
    return items


async def bury(store: Client, id: str, detail: str = "why", payload: bytes = b"") -> None:
    await store.put(id, max_retries=1, payload=payload)
    await store.bury((await store.take("a")).receipt, detail=detail)


@scenario("E5", needs=Feature.DEAD_LETTERS)
async def what_was_to_be_kept_becomes_a_dead_letter(env: Environment) -> None:
    """An exhausted event posted with `dead_letter` becomes one, with its reason and counts; others are dropped.

    Troubleshooting: does the claim that ends it keep it in the same step, and say so in `dead_letter`?
    """
    store = env.store
    await store.enter("a")
    await store.put("kept", dead_letter=True, max_retries=1, payload=b"\x00p", headers=b"h")
    await store.put("dropped", max_retries=1)
    for _ in range(2):
        await store.come("a", timeout_us=1)
        await env.wait(OVERDUE_US)

    ended = (await store.come("a")).ended
    ended_us = store.last.at_us
    (letter,) = await letters_of(store)

    assert_equal(
        "what was reported", {end.event.id: end.dead_letter for end in ended}, {"kept": True, "dropped": False}
    )
    assert letter.event is not None, "the shape of the reply was checked"
    shown = (letter.id, letter.event.payload, letter.event.headers, letter.reason, letter.num_counted, letter.buried_us)
    assert_equal("the dead letter", shown, ("kept", b"\x00p", b"h", EndReason.EXHAUSTED, 2, ended_us))


@scenario("E5", needs=Feature.DEAD_LETTERS)
async def dead_letters_are_listed_oldest_first(env: Environment) -> None:
    """Dead letters are listed in the order of their burials, in pages that go on where the last one ended.

    Troubleshooting: has each a microsecond of its own, also those of one claim?
    """
    store = env.store
    await store.enter("a")
    names = ["m", "b", "z", "a"]
    for name in names:
        await bury(store, name)
        await env.wait(2 * MILLISECOND_US)
    await store.post(
        [NewEvent(event(name, dead_letter=True, expires_after_us=1), After(0)) for name in ("y", "c", "ä")]
    )
    await env.wait(OVERDUE_US)
    await store.come("a")

    expected = [*names, "y", "c", "ä"]
    for limit in (256, 3, 1):
        found = [letter.id for letter in await letters_of(store, limit)]
        assert_equal(f"the letters in pages of {limit}", found, expected)


@scenario("E5", "P3", needs=Feature.DEAD_LETTERS)
async def a_dead_letter_is_sent_again_as_new(env: Environment) -> None:
    """`resend` posts a dead letter's event as new and removes the letter, unless it leaves another event in place.

    Troubleshooting: counts begin at 0. A post that changes nothing must not lose the letter.
    """
    store = env.store
    await store.enter("a")
    await bury(store, "e", payload=b"old")
    await store.put("e", LONG_US, payload=b"live")

    async def resend(if_exists: IfExists) -> ResendOutcome:
        return (await store.resend(LetterName("e"), due=After(0), if_exists=if_exists)).value

    left = [await resend(IfExists.KEEP), await resend(IfExists.ERROR)]
    kept = [letter.id for letter in await letters_of(store)]
    sent = await resend(IfExists.REPLACE)
    delivery = await store.take("a")

    assert_equal("under keep and error, with a live event", left, [ResendOutcome.KEPT, ResendOutcome.CONFLICT])
    assert_equal("the letters after that", kept, ["e"])
    assert_equal("under replace", sent, ResendOutcome.REPLACED)
    assert_equal(
        "payload, retries, number",
        (delivery.event.payload, delivery.num_retries, delivery.receipt.delivery_number),
        (b"old", 0, 1),
    )
    assert_equal("the letters in the end", await letters_of(store), [])
    assert_equal("a resend of an id without a dead letter", await resend(IfExists.REPLACE), ResendOutcome.NOT_FOUND)


@scenario("E5", needs=Feature.DEAD_LETTERS)
async def a_dead_letter_is_discarded_once(env: Environment) -> None:
    """`discard` forgets dead letters, and tells of each whether it was there.

    Troubleshooting: items take effect one after the other.
    """
    store = env.store
    await store.enter("a")
    await bury(store, "e")

    outcomes = (await store.discard([LetterName(id) for id in ("none", "e", "e")])).value

    nothing = DiscardOutcome.NOT_FOUND
    assert_equal("the outcomes", outcomes, (nothing, DiscardOutcome.DISCARDED, nothing))
    assert_equal("the letters", await letters_of(store), [])


@scenario("E5", needs=(Feature.DEAD_LETTERS, Feature.INSPECTION))
async def an_id_that_is_buried_again_has_two_letters(env: Environment) -> None:
    """A second dead letter under one id stands beside the first: each is listed, sent again and discarded by its name.

    Troubleshooting: a name without a time means the letter of the last burial, and no other when that is gone.
    A page goes on behind the very letter that the last one ended with.
    """
    store = env.store
    await store.enter("a")
    for detail in ("first", "second", "third"):
        await bury(store, "e", detail)
    first, second, third = await letters_of(store, 1)
    inspection = (await store.inspect()).value

    assert_equal("the letters", [letter.detail for letter in (first, second, third)], ["first", "second", "third"])
    counts = (inspection.dead_letters, inspection.dead_letters_dropped)
    assert_equal("how many there are, and were dropped", counts, (3, 0))
    outcomes = (await store.discard([LetterName("e"), LetterName("e"), first.name, first.name, third.name])).value
    discarded, nothing = DiscardOutcome.DISCARDED, DiscardOutcome.NOT_FOUND
    assert_equal(
        "discarding the last, again, the first, again, the last", outcomes, (discarded, nothing) * 2 + (nothing,)
    )
    sent = (await store.resend(second.name, due=After(0), if_exists=IfExists.ERROR)).value
    assert_equal("sending the second again", sent, ResendOutcome.CREATED)
    assert_equal("the letters in the end", await letters_of(store), [])


@scenario("E5", needs=Feature.DEAD_LETTERS)
async def a_dead_letter_tells_what_went_wrong_last(env: Environment) -> None:
    """A letter has the due time, the number of deliveries, and of the last failed delivery what went wrong.

    Troubleshooting: is the error kept with the event until it is buried? Of a delivery that was not confirmed in time,
    and of which nothing was told, the letter has the node and the deadline.
    """
    store = env.store
    await store.enter("a", "b")
    error = Failure("app.Sour", "the milk\nis \u00e4\U0001f600 \x00")
    due_us: dict[str, int] = {}

    async def put(id: str, max_retries: int = 0) -> None:
        await store.put(id, dead_letter=True, max_retries=max_retries)
        due_us[id] = (await store.see(id)).next_us

    await put("told")
    told = await store.take("a", timeout_us=OVERDUE_US)
    await store.give_back(told, Release.FAILED, failure=error)
    told_us = store.last.at_us
    await put("silent")
    silent = await store.take("a", timeout_us=OVERDUE_US)
    await put("retried", 1)
    await store.give_back(await store.take("a"), Release.COUNTED, failure=error)
    retried = await store.take("b", timeout_us=OVERDUE_US)
    await put("refused")
    await store.give_back(await store.take("a"), Release.REFUSED, failure=error, refused_for_us=0)
    refused_us = store.last.at_us
    await env.wait(2 * OVERDUE_US)
    await store.come("a")
    letters = {letter.id: letter for letter in await letters_of(store)}

    def shown(id: str) -> tuple[object, ...]:
        letter = letters[id]
        return (letter.reason, letter.due_us, letter.delivery_number, letter.num_counted, letter.last_error)

    def last(delivery: int, node: str, at_us: int | None, failure: Failure | None = None) -> LastError:
        assert at_us is not None, "all of them require a confirm"
        return LastError(delivery_number=delivery, node=node, at_us=at_us, failure=failure)

    exhausted = EndReason.EXHAUSTED
    assert_equal(
        "an error that was told", shown("told"), (exhausted, due_us["told"], 1, 1, last(1, "a", told_us, error))
    )
    assert_equal("none", shown("silent"), (exhausted, due_us["silent"], 1, 1, last(1, "a", silent.deadline_us)))
    missed = last(2, "b", retried.deadline_us)
    assert_equal("an error, and then none", shown("retried"), (exhausted, due_us["retried"], 2, 2, missed))
    of_codec = last(1, "a", refused_us, error)
    assert_equal("a codec's", shown("refused"), (EndReason.REFUSED, due_us["refused"], 1, 0, of_codec))


@scenario("E4")
async def a_failure_that_is_told_changes_nothing_else(env: Environment) -> None:
    """A delivery that has failed stays out until its deadline, and can still be confirmed.

    Troubleshooting: `Release.FAILED` only keeps the error.
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=1)
    delivery = await store.take("a")
    before = await store.see("e")

    outcome = await store.give_back(delivery, Release.FAILED, failure=Failure("Sour", "milk"))

    assert_equal("the outcome", outcome, ReleaseOutcome.RELEASED)
    assert_equal("the event, before and after", await store.see("e"), before)
    confirmed = (await store.confirm([delivery.receipt])).value
    assert_equal("confirming it after all", confirmed, (ConfirmOutcome.CONFIRMED,))
    assert_equal("failing again", await store.give_back(delivery, Release.FAILED), ReleaseOutcome.NOT_FOUND)


@scenario("E5", needs=(Feature.DEAD_LETTERS, Feature.LONG_TIMES))
async def after_thirty_days_a_dead_letter_does_not_exist(env: Environment) -> None:
    """A dead letter that is 30 days old is not listed, not resent, not discarded.

    Troubleshooting: does every operation look at the age, also before a burial has cleared the letter away?
    """
    store = env.store
    await store.enter("a")
    await bury(store, "old")
    buried_us = (await letters_of(store))[0].buried_us
    await env.wait(DEAD_LETTER_AGE_US - DAY_US)
    await store.enter("a")
    await bury(store, "young")
    assert_equal("the letters after 29 days", [letter.id for letter in await letters_of(store)], ["old", "young"])

    await env.wait(buried_us + DEAD_LETTER_AGE_US - store.last.at_us)

    assert_equal("the letters after 30 days", [letter.id for letter in await letters_of(store)], ["young"])
    resent = (await store.resend(LetterName("old"), due=After(0), if_exists=IfExists.REPLACE)).value
    assert_equal("resending the old one", resent, ResendOutcome.NOT_FOUND)
    assert_equal("discarding it", (await store.discard([LetterName("old")])).value, (DiscardOutcome.NOT_FOUND,))


@with_nodes("E5", needs=Feature.DEAD_LETTERS)
async def an_operator_handles_dead_letters_by_a_timer(env: Environment) -> None:
    """A timer lists what ended unconfirmed, with payload and reason, sends it again and discards it.

    Troubleshooting: see the scenarios of the backend's own methods.
    """
    node = await env.node(confirm_timeout=0.03)
    await node.timer.post({"n": 1}, 0, id="e", dead_letter=True)
    await env.until("it is exhausted", lambda: node.ended)
    (letter,) = await node.timer.dead_letters()
    assert_equal("the letter", (letter.id, letter.payload, letter.reason), ("e", {"n": 1}, EndReason.EXHAUSTED))
    assert_that("the node was told that it is a dead letter", node.ended[0].dead_letter)

    await node.timer.post(None, 60_000, id="e")
    try:
        await node.timer.resend("e", if_exists="error")
    except EventExists:
        pass
    else:
        raise RuleBroken("a resend over a live event raised no EventExists")
    assert_equal("sent again", await node.timer.resend("e"), ResendOutcome.REPLACED)
    await env.until("it comes again, and is a dead letter again", lambda: len(node.ended) == 2)
    assert_equal("discarded", await node.timer.discard("e"), DiscardOutcome.DISCARDED)
    assert_equal("what is left", await node.timer.dead_letters(), [])
