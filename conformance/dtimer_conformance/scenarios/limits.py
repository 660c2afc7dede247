"""Scenarios of the limits on one call: items, bytes, pages."""

from __future__ import annotations

from dtimer.limits import (
    BATCH_MAX_BYTES,
    BATCH_MAX_ITEMS,
    CLAIM_EXTRA_ENTRIES,
    MILLISECOND_US,
    PAYLOAD_MAX_BYTES,
    UNARMED_OVERDUE_US,
)
from dtimer.protocol.values import After, NewEvent
from dtimer_conformance.assertions import NOTHING, assert_equal
from dtimer_conformance.client import event, ids
from dtimer_conformance.environment import Environment
from dtimer_conformance.scenario import scenario

SHORT_US = 20 * MILLISECOND_US
OVERDUE_US = UNARMED_OVERDUE_US + 10 * MILLISECOND_US
"""After so long any node may take an event, whether or not it was told to come (D6)."""


@scenario("D5")
async def a_claim_takes_no_more_than_its_room(env: Environment) -> None:
    """A claim brings at most as many deliveries as there is room, says `more` then, and none for no room.

    Troubleshooting: is the room the limit of the query? Does `more` say that the claim stopped at a limit?
    """
    store = env.store
    await store.enter("a")
    await store.post([NewEvent(event(f"{n}"), After(0)) for n in range(5)])

    none = await store.come("a", 0)
    two = await store.come("a", 2)
    rest = await store.come("a", 3)

    assert_equal("ids and `more` without room", (ids(none), none.more), (NOTHING, True))
    assert_equal("ids and `more` with room for two", (ids(two), two.more), (["0", "1"], True))
    assert_equal("ids and `more` with room for the rest", (ids(rest), rest.more), (["2", "3", "4"], False))


@scenario("D5")
async def a_call_takes_512_items(env: Environment) -> None:
    """Posts, cancels, confirms and claims of 512 items are one call each.

    Troubleshooting: is there a limit on parameters in your store's driver?
    """
    store = env.store
    await store.enter("a")
    names = [f"{n:03}" for n in range(BATCH_MAX_ITEMS)]
    await store.post([NewEvent(event(name, max_retries=1), After(0)) for name in names])
    claimed = await store.come("a", BATCH_MAX_ITEMS)
    assert_equal("what a claim with room for all brings", len(claimed.deliveries), BATCH_MAX_ITEMS)
    half = BATCH_MAX_ITEMS // 2
    confirmed = (await store.confirm([delivery.receipt for delivery in claimed.deliveries[:half]])).value
    cancelled = (await store.cancel(names)).value

    assert_equal("confirms that are true", sum(map(bool, confirmed)), half)
    assert_equal("cancels that are true", sum(map(bool, cancelled)), BATCH_MAX_ITEMS - half)


@scenario("D5", limit_s=30)
async def a_reply_stays_within_its_bytes(env: Environment) -> None:
    """A reply carries at most 8 MiB of payloads, and at least one event; the claim says that there is more.

    Troubleshooting: compare with `BATCH_MAX_BYTES`. Ended events count too, since their payloads travel as well.
    """
    store = env.store
    await store.enter("a")
    fitting = BATCH_MAX_BYTES // PAYLOAD_MAX_BYTES
    for n in range(fitting + 1):
        await store.put(f"{n}", payload=b"x" * PAYLOAD_MAX_BYTES)

    first, second = await store.come("a", 20), await store.come("a", 20)

    assert_equal("deliveries and `more` of the first claim", (len(first.deliveries), first.more), (fitting, True))
    assert_equal("deliveries and `more` of the second", (len(second.deliveries), second.more), (1, False))


@scenario("D5", "E5")
async def a_claim_clears_64_ended_events_without_using_room(env: Environment) -> None:
    """Besides what it delivers, a claim ends up to 64 events that are exhausted or expired; they take no room.

    Troubleshooting: compare with `CLAIM_EXTRA_ENTRIES`. The rest is left to the next claim.
    """
    store = env.store
    await store.enter("a")
    number = CLAIM_EXTRA_ENTRIES + 6
    await store.post([NewEvent(event(f"{n:03}", expires_after_us=1), After(0)) for n in range(number)])
    await store.put("alive")
    await env.wait(OVERDUE_US)

    first, second = await store.come("a", 1), await store.come("a", 1)

    assert_equal(
        "ended, delivered, more: first",
        (len(first.ended), ids(first), first.more),
        (CLAIM_EXTRA_ENTRIES, NOTHING, True),
    )
    assert_equal("ended, delivered: second", (len(second.ended), ids(second)), (6, ["alive"]))
