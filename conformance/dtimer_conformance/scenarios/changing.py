"""Scenarios of cancelling, moving, releasing and extending."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dtimer import Event
from dtimer.limits import MILLISECOND_US, SECOND_US
from dtimer.protocol.outcomes import (
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    ConfirmOutcome,
    ExtendOutcome,
    PostOutcome,
    ReleaseOutcome,
)
from dtimer.protocol.values import After, EventState, Extension, NewEvent, Release
from dtimer_conformance.assertions import assert_equal, assert_that
from dtimer_conformance.client import LONG_US, event, ids, member
from dtimer_conformance.environment import SOON_US, Environment
from dtimer_conformance.scenario import scenario, with_nodes

SHORT_US = 20 * MILLISECOND_US


@scenario("E2")
async def a_cancel_ends_an_event_in_any_live_state(env: Environment) -> None:
    """A cancel tells what it ended: scheduled is CANCELLED, unconfirmed is STOPPED, else NOT_FOUND; and it stays ended.

    Troubleshooting: an event that was released is scheduled again. One with two ids in a call is found once.
    """
    store = env.store
    await store.enter("a")
    for name in ("out", "back"):
        await store.put(name, max_retries=3)
    out, back = (await store.come("a", timeout_us=SHORT_US)).deliveries
    await store.give_back(back, Release.UNCOUNTED, LONG_US)
    await store.put("scheduled", LONG_US)

    outcomes = (await store.cancel(["scheduled", "out", "back", "out", "none"])).value

    nothing = CancelOutcome.NOT_FOUND
    expected = (CancelOutcome.CANCELLED, CancelOutcome.STOPPED, CancelOutcome.CANCELLED, nothing, nothing)
    assert_equal("the outcomes", outcomes, expected)
    await env.wait(4 * SHORT_US)
    assert_equal("what a later claim brings", ids(await store.come("a")), [])
    assert_equal(
        "a confirm of what was stopped", (await store.confirm([out.receipt])).value, (ConfirmOutcome.NOT_FOUND,)
    )


@with_nodes("E2")
async def a_cancelled_event_never_comes(env: Environment) -> None:
    """What a timer cancels before it is due comes to nobody; the next event does.

    Troubleshooting: does the wake-up for a cancelled event deliver something else in its place?
    """
    node = await env.node()
    outcome = CancelOutcome.NOT_FOUND
    for soon_us in SOON_US:
        node.events.clear()
        await node.timer.post(None, timedelta(microseconds=soon_us), id="cancelled")
        await node.timer.post(None, timedelta(microseconds=2 * soon_us), id="stays")
        outcome = await node.timer.cancel("cancelled")
        await env.until("the other one comes", lambda: "stays" in node.ids, within_us=2 * soon_us + SECOND_US)
        if outcome is CancelOutcome.CANCELLED:
            break

    assert_equal("the outcome", outcome, CancelOutcome.CANCELLED)
    assert_equal("what came", node.ids, ["stays"])


@scenario("E3")
async def a_change_of_delay_moves_a_scheduled_event(env: Environment) -> None:
    """`change_delay` counts anew from now, in either direction, and keeps the counts.

    Troubleshooting: is the new delay counted from now, and not from the post?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=2)
    await store.give_back(await store.take("a"), Release.COUNTED, LONG_US)
    for delay_us in (2 * LONG_US, 1000, 0):
        assert_equal("the outcome", (await store.change_delay("e", delay_us=delay_us)).value, ChangeOutcome.MOVED)
        moved_us, due_us = store.last.at_us, (await store.see("e")).next_us
        assert_that(
            "it is due by the new delay", 0 <= due_us - moved_us - delay_us < MILLISECOND_US, seen=(moved_us, due_us)
        )
    await env.wait(5 * MILLISECOND_US)

    delivery = await store.take("a")

    assert_equal("its retries", delivery.num_retries, 1)


@scenario("E3")
async def a_change_of_delay_leaves_the_rest_alone(env: Environment) -> None:
    """An unconfirmed event is left alone and named so, and an unknown id creates nothing.

    In the original, changing an unknown id left a phantom in the queue.

    Troubleshooting: is the queue written before it is known that the event is there?
    """
    store = env.store
    await store.enter("a")
    assert_equal("of an unknown id", (await store.change_delay("none", delay_us=0)).value, ChangeOutcome.NOT_FOUND)
    assert_equal("what lives then", await store.queue(), [])
    assert_equal("what a claim brings then", ids(await store.come("a")), [])

    await store.put("e", max_retries=1)
    delivery = await store.take("a")
    assert_equal(
        "of an unconfirmed event", (await store.change_delay("e", delay_us=0)).value, ChangeOutcome.UNCONFIRMED
    )
    assert_equal("its deadline", (await store.see("e")).next_us, delivery.deadline_us)
    assert_equal("its confirm", (await store.confirm([delivery.receipt])).value, (ConfirmOutcome.CONFIRMED,))


@scenario("E4", "D2")
async def a_release_gives_a_delivery_back(env: Environment) -> None:
    """An uncounted release is as if there had been no delivery, but for its number; a counted one is an attempt.

    Troubleshooting: does the release void the receipt? Is the delay counted from now?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=1)
    seen: list[tuple[int, int]] = []
    for how in (Release.UNCOUNTED, Release.COUNTED, Release.UNCOUNTED):
        delivery = await store.take("a")
        seen.append((delivery.num_retries, delivery.receipt.delivery_number))
        assert_equal("the outcome", await store.give_back(delivery, how), ReleaseOutcome.RELEASED)
        assert_equal("a second release", await store.give_back(delivery, how), ReleaseOutcome.STALE)
        assert_equal("its state then", (await store.see("e")).state, EventState.SCHEDULED)
    last = await store.take("a")
    seen.append((last.num_retries, last.receipt.delivery_number))

    assert_equal("retries and number of each delivery", seen, [(0, 1), (0, 2), (1, 3), (1, 4)])
    assert_equal(
        "releasing it without retries left", await store.give_back(last, Release.COUNTED), ReleaseOutcome.EXHAUSTED
    )
    assert_equal("what lives", await store.queue(), [])
    assert_equal("a release of nothing", await store.give_back(last, Release.COUNTED), ReleaseOutcome.NOT_FOUND)


@scenario("E4")
async def a_release_with_a_delay_is_due_after_it(env: Environment) -> None:
    """A released event can be claimed again after the delay, and not before.

    Troubleshooting: is it still at its deadline in the queue?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=1)
    await store.give_back(await store.take("a"), Release.UNCOUNTED, LONG_US)

    assert_equal("what a claim brings before", ids(await store.come("a")), [])
    due_us = (await store.see("e")).next_us - store.last.at_us
    assert_that("it is due after the delay", LONG_US - 20 * SECOND_US < due_us <= LONG_US + MILLISECOND_US, seen=due_us)


@scenario("E4", "D1")
async def an_extension_moves_the_deadline(env: Environment) -> None:
    """`extend` moves the deadline to now plus the timeout, later or earlier; it needs the newest receipt.

    Troubleshooting: is the deadline the event's place in the queue?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=1)
    delivery = await store.take("a", timeout_us=SHORT_US)
    await env.wait(2 * SHORT_US)

    extended = (await store.extend([Extension(delivery.receipt, LONG_US)])).value
    assert_equal("extending past the deadline", extended, (ExtendOutcome.EXTENDED,))
    await env.wait(3 * SHORT_US)
    assert_equal("what a claim brings before the new deadline", ids(await store.come("a")), [])

    await store.extend([Extension(delivery.receipt, 1)])
    await env.wait(3 * SHORT_US)
    new = await store.take("a")
    old = (await store.extend([Extension(delivery.receipt, LONG_US)])).value
    assert_equal("extending by an old receipt", old, (ExtendOutcome.STALE,))
    await store.confirm([new.receipt])
    gone = (await store.extend([Extension(new.receipt, LONG_US)])).value
    assert_equal("extending what is gone", gone, (ExtendOutcome.NOT_FOUND,))


@scenario("E4", "T4")
async def extensions_go_in_list_order(env: Environment) -> None:
    """Many deliveries are extended in one call, each by a timeout of its own; of one that is named twice, the last
    counts.

    Troubleshooting: does each extended delivery take a microsecond of its own?
    """
    store = env.store
    await store.enter("a")
    for name in ("1", "2", "3"):
        await store.put(name, max_retries=1)
    one, two, three = (delivery.receipt for delivery in (await store.come("a")).deliveries)
    await store.confirm([three])

    asked = [Extension(one, 0), Extension(three, 1), Extension(two, LONG_US), Extension(one, LONG_US)]
    outcomes = (await store.extend(asked)).value

    extended, nothing = ExtendOutcome.EXTENDED, ExtendOutcome.NOT_FOUND
    assert_equal("the outcomes", outcomes, (extended, nothing, extended, extended))
    deadlines = [(await store.see(name)).next_us for name in ("1", "2")]
    assert_equal("by how much the last deadline is behind the first", deadlines[0] - deadlines[1], 1)


@scenario("E4", "D1")
async def extensions_ride_on_claims(env: Environment) -> None:
    """What comes with a claim is extended before it takes anything, also for a node that is unknown or fenced.

    A handler that has taken its time would otherwise be overtaken by its own node's claim.

    Troubleshooting: are they extended before the queue is looked at, and before the member is?
    """
    store = env.store
    await store.enter("a")
    await store.put("1", max_retries=2)
    await store.put("2", max_retries=2)
    first, second = (await store.come("a", timeout_us=1)).deliveries
    await env.wait(SHORT_US * 4)

    claimed = await store.come("a", extending=(Extension(first.receipt, LONG_US),))
    assert_equal("what a claim extends", claimed.extended, (ExtendOutcome.EXTENDED,))
    assert_equal("what it brings", ids(claimed), ["2"])
    again = claimed.deliveries[0].receipt
    await store.join(member("a", "2"))
    asked = (Extension(second.receipt, 1), Extension(again, 1), Extension(first.receipt, 1))
    outcomes = (ExtendOutcome.STALE, ExtendOutcome.EXTENDED, ExtendOutcome.NOT_FOUND)
    for node in ("stranger", "a"):
        await store.confirm([first.receipt])
        assert_equal(f"what a claim of {node!r} extends", (await store.come(node, extending=asked)).extended, outcomes)
    await env.wait(SHORT_US * 4)
    assert_equal("what is due then", ids(await store.come("a", incarnation="2")), ["2"])


@with_nodes("E4", "N2")
async def handlers_release_and_extend(env: Environment) -> None:
    """A handler gives its event back, and it comes again after the delay; an extended one is left with its handler.

    Troubleshooting: this is the timer's business, and rests on `release` and `extend`.
    """

    async def handler(taken: Event[Any]) -> None:
        if taken.id == "released" and taken.delivery_number == 1:
            await taken.release(20)
        elif taken.id == "extended":
            await taken.extend(60)

    node = await env.node(handler=handler)
    await node.timer.post(None, 0, id="released", max_retries=1, confirm_timeout=60)
    await node.timer.post(None, 0, id="extended", max_retries=1, confirm_timeout=0.5)

    await env.until("the released event comes again", lambda: node.ids.count("released") == 2)
    again = next(event for event in reversed(node.events) if event.id == "released")
    assert_equal("its retries and number", (again.num_retries, again.delivery_number), (0, 2))
    await env.wait(800 * MILLISECOND_US)
    assert_equal("how often the extended one came", node.ids.count("extended"), 1)


@scenario("E6")
async def outcomes_are_the_enums_of_their_operations(env: Environment) -> None:
    """Each outcome is true when the call did what it asked for, and false otherwise, as the original's 1 and 0.

    Troubleshooting: return the members of `dtimer.protocol.outcomes`, not words or numbers that look like them.
    """
    store = env.store
    await store.enter("a")
    false: list[object] = [
        *(await store.cancel(["none"])).value,
        (await store.change_delay("none", delay_us=0)).value,
        (await store.confirm_newest("none")).value,
    ]
    true: list[object] = [await store.put("e", max_retries=5)]
    true.append((await store.post([NewEvent(event("e", max_retries=5), After(0))])).value[0])
    true.append((await store.change_delay("e", delay_us=0)).value)
    await env.wait(MILLISECOND_US)
    delivery = await store.take("a")
    false.append((await store.change_delay("e", delay_us=0)).value)
    true += (await store.extend([Extension(delivery.receipt, LONG_US)])).value
    true.append(await store.give_back(delivery, Release.COUNTED))
    false.append(await store.give_back(delivery, Release.COUNTED))
    false.append((await store.bury(delivery.receipt, detail="")).value)
    delivery = await store.take("a")
    true.append((await store.confirm([delivery.receipt])).value[0])

    assert_equal("outcomes that are true", [outcome for outcome in true if not outcome], [])
    assert_equal("outcomes that are false", [outcome for outcome in false if outcome], [])
    shown = [int(outcome) for outcome in (PostOutcome.KEPT, BuryOutcome.BURIED, ConfirmOutcome.GONE)]
    assert_equal("as numbers", shown, [0, 1, 1])
