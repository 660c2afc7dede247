"""Scenarios of confirming: which receipts count, and until when."""

from __future__ import annotations

from attrs import evolve

from dtimer.limits import MILLISECOND_US
from dtimer.protocol.outcomes import (
    ConfirmOutcome,
)
from dtimer_conformance.assertions import assert_equal
from dtimer_conformance.client import ids
from dtimer_conformance.environment import Environment
from dtimer_conformance.scenario import scenario, with_nodes

SHORT_US = 20 * MILLISECOND_US


@scenario("E1")
async def the_newest_receipt_confirms(env: Environment) -> None:
    """The newest receipt ends the event; a second time it finds nothing, and so does any receipt of what is not live.

    Troubleshooting: is the event removed, or only marked?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=1)
    await store.put("other", max_retries=1)
    receipts = [delivery.receipt for delivery in (await store.come("a")).deliveries]

    twice = (await store.confirm([receipts[0], receipts[0], receipts[1]])).value
    again = (await store.confirm(receipts)).value

    confirmed, nothing = ConfirmOutcome.CONFIRMED, ConfirmOutcome.NOT_FOUND
    assert_equal("the outcomes, one receipt given twice", twice, (confirmed, nothing, confirmed))
    assert_equal("the outcomes of confirming again", again, (nothing, nothing))
    assert_equal("what lives", await store.queue(), [])


@scenario("E1")
async def an_old_receipt_confirms_nothing(env: Environment) -> None:
    """A receipt of an earlier delivery is STALE and changes nothing: a slow handler cannot end what another works on.

    Troubleshooting: are number and nonce both compared, not the id alone?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=2)
    old = await store.take("a", timeout_us=SHORT_US)
    await env.wait(4 * SHORT_US)
    new = await store.take("a")

    forged = [evolve(new.receipt, nonce="forged"), evolve(new.receipt, delivery_number=new.receipt.delivery_number + 1)]
    outcomes = (await store.confirm([old.receipt, *forged])).value

    assert_equal("the outcomes of an old receipt and of forged ones", outcomes, (ConfirmOutcome.STALE,) * 3)
    assert_equal("the event is where it was", (await store.see("e")).next_us, new.deadline_us)
    assert_equal("the newest receipt", (await store.confirm([new.receipt])).value, (ConfirmOutcome.CONFIRMED,))


@scenario("E1")
async def a_confirm_past_the_deadline_counts_until_the_next_claim(env: Environment) -> None:
    """The newest receipt confirms past the deadline too, as long as nobody has claimed the event again.

    Otherwise it would depend on chance who happened to look in between.

    Troubleshooting: does the passing of time alone end or requeue a delivery?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=1)
    delivery = await store.take("a", timeout_us=1)
    await env.wait(SHORT_US)

    assert_equal("a late confirm", (await store.confirm([delivery.receipt])).value, (ConfirmOutcome.CONFIRMED,))
    assert_equal("what the next claim brings", ids(await store.come("a")), [])


@scenario("E1")
async def confirms_ride_on_claims(env: Environment) -> None:
    """Receipts that come with a claim are confirmed before it takes anything, also those of a node that is unknown.

    Troubleshooting: are they confirmed before the member is looked up?
    """
    store = env.store
    await store.enter("a")
    await store.put("1", max_retries=1)
    await store.put("2", max_retries=1)
    first, second = (await store.come("a", timeout_us=1)).deliveries
    await env.wait(SHORT_US * 4)

    claimed = await store.come("a", confirming=(first.receipt,))
    assert_equal("what a claim confirms", claimed.confirmed, (ConfirmOutcome.CONFIRMED,))
    assert_equal("what it brings", ids(claimed), ["2"])
    again = claimed.deliveries[0].receipt
    unknown = await store.come("stranger", confirming=(second.receipt, again))
    assert_equal(
        "what an unknown node's claim confirms", unknown.confirmed, (ConfirmOutcome.STALE, ConfirmOutcome.CONFIRMED)
    )


@scenario("E1")
async def an_operator_confirms_by_id(env: Environment) -> None:
    """`confirm_newest` ends an unconfirmed event whoever holds it, and nothing else.

    Troubleshooting: a scheduled event is not unconfirmed, also after a release.
    """
    store = env.store
    await store.enter("a")
    nothing = (await store.confirm_newest("e")).value
    await store.put("e", max_retries=1)
    scheduled = (await store.confirm_newest("e")).value
    delivery = await store.take("a")
    unconfirmed = (await store.confirm_newest("e")).value

    outcomes = (nothing, scheduled, unconfirmed)
    expected = (ConfirmOutcome.NOT_FOUND, ConfirmOutcome.NOT_FOUND, ConfirmOutcome.CONFIRMED)
    assert_equal("of nothing, of a scheduled event, of an unconfirmed one", outcomes, expected)
    assert_equal("the holder's own confirm after it", (await store.confirm([delivery.receipt])).value[0], outcomes[0])


@with_nodes("E1")
async def a_handler_confirms_as_it_says(env: Environment) -> None:
    """A handler that returns has confirmed nothing; one that leaves `async with event` has; and so has `confirm`.

    Troubleshooting: this is the timer's business, and rests on `confirm` and on receipts in claims.
    """
    node = await env.node(confirm_timeout=1)
    for name in ("returned", "block", "said"):
        await node.timer.post(name, 0, id=name, max_retries=1, confirm_timeout=60)
    await env.until("all are delivered", lambda: len(node.events) == 3)
    returned, block, said = node.events

    async with block:
        pass
    outcome = await node.timer.confirm(said.id)

    assert_equal("the outcome of confirming by id", outcome, ConfirmOutcome.CONFIRMED)
    assert_equal("what still lives", [item.id for item in await node.timer.upcoming()], [returned.id])
    assert_equal("confirming it late", await returned.confirm(), ConfirmOutcome.CONFIRMED)
