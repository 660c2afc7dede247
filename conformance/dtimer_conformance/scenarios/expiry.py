"""Scenarios of events that come too late to be delivered."""

from __future__ import annotations

from dtimer.limits import (
    MILLISECOND_US,
    UNARMED_OVERDUE_US,
)
from dtimer.protocol.values import EndReason, Release
from dtimer_conformance.assertions import assert_equal
from dtimer_conformance.client import LONG_US, ids
from dtimer_conformance.environment import SOON_US, Environment
from dtimer_conformance.features import Feature
from dtimer_conformance.scenario import scenario

SHORT_US = 20 * MILLISECOND_US
LATE_US = 400 * MILLISECOND_US
"""So late that a slow machine is not later still."""
OVERDUE_US = UNARMED_OVERDUE_US + 10 * MILLISECOND_US
"""After so long any node may take an event, whether or not it was told to come (D6)."""


@scenario("P7", "E5")
async def an_expired_event_is_reported_and_not_delivered(env: Environment) -> None:
    """A claim that meets an event later than its expiry ends it and reports it as EXPIRED; until then it is delivered.

    Troubleshooting: is the expiry kept as a time, counted from the due time, and compared with the operation's time?
    """
    store = env.store
    await store.enter("a")
    await store.put("late", expires_after_us=1, payload=b"p")
    await store.put("fresh", expires_after_us=LONG_US)
    await env.wait(SHORT_US)

    claimed = await store.come("a")

    ended = [(found.event.id, found.event.payload, found.reason, found.num_counted) for found in claimed.ended]
    assert_equal("what is delivered", ids(claimed), ["fresh"])
    assert_equal("what has ended", ended, [("late", b"p", EndReason.EXPIRED, 0)])
    assert_equal("what lives", await store.queue(), [])


@scenario("P7", "E3")
async def only_a_post_or_a_change_of_delay_sets_the_expiry(env: Environment) -> None:
    """The expiry counts from the due time of the post or of the last change of delay; a release does not prolong it.

    Troubleshooting: is the expiry worked out anew from the place in the queue? Does a change of delay renew it also
    where it is kept once the event has been delivered?
    """
    store = env.store
    await store.enter("a")
    await store.put("released", max_retries=5, expires_after_us=SHORT_US)
    delivery = await store.take("a")
    await store.give_back(delivery, Release.UNCOUNTED, 2 * SHORT_US)
    await store.put("moved", SHORT_US, expires_after_us=LONG_US)
    await store.change_delay("moved", delay_us=0)
    await env.wait(3 * SHORT_US)

    claimed = await store.come("a")

    assert_equal("what has expired", [found.event.id for found in claimed.ended], ["released"])
    assert_equal("what is delivered", ids(claimed), ["moved"])

    await store.put("given back, then moved", max_retries=5, expires_after_us=LATE_US)
    await store.give_back(await store.take("a"), Release.UNCOUNTED, 0)
    await store.change_delay("given back, then moved", delay_us=LATE_US)
    await env.wait(LATE_US + SHORT_US)
    assert_equal("what is delivered later than the post allows", ids(await store.come("a")), ["given back, then moved"])


@scenario("P7", "E5", needs=Feature.DEAD_LETTERS)
async def an_expired_event_that_is_kept_is_a_dead_letter(env: Environment) -> None:
    """With `dead_letter` an expired event becomes a dead letter; one that is out of retries, too, counts as exhausted.

    Troubleshooting: is exhaustion looked at before expiry?
    """
    store = env.store
    await store.enter("a")
    over_us = OVERDUE_US
    for soon_us in SOON_US:
        over_us = max(OVERDUE_US, soon_us)
        await store.put("exhausted", dead_letter=True, confirm_timeout_us=1, expires_after_us=soon_us)
        if (await store.come("a")).deliveries:
            break
    await store.put("expired", dead_letter=True, expires_after_us=1)
    await env.wait(over_us)

    ended = (await store.come("a")).ended

    assert_equal(
        "what a claim reports",
        {found.event.id: (found.reason, found.dead_letter) for found in ended},
        {
            "exhausted": (EndReason.EXHAUSTED, True),
            "expired": (EndReason.EXPIRED, True),
        },
    )
    letters = (await store.dead_letters(None, limit=10)).value.items
    assert_equal(
        "the dead letters",
        {letter.id: letter.reason for letter in letters},
        {
            "exhausted": EndReason.EXHAUSTED,
            "expired": EndReason.EXPIRED,
        },
    )
