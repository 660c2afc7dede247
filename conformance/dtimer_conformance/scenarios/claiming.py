"""Scenarios of claiming: who gets what, how often, and until when."""

from __future__ import annotations

import asyncio

from dtimer import Retry
from dtimer.limits import (
    MILLISECOND_US,
    UNARMED_OVERDUE_US,
)
from dtimer.protocol.outcomes import ClaimStatus, JoinOutcome, ReleaseOutcome
from dtimer.protocol.values import After, EndReason, NewEvent, Release, RetryPolicy
from dtimer_conformance.assertions import NOTHING, assert_equal, assert_that
from dtimer_conformance.client import event, ids, member
from dtimer_conformance.environment import Environment
from dtimer_conformance.scenario import scenario, with_nodes

SHORT_US = 20 * MILLISECOND_US
OVERDUE_US = UNARMED_OVERDUE_US + 10 * MILLISECOND_US
"""After so long any node may take an event, whether or not it was told to come (D6)."""


@scenario("D1")
async def nobody_else_gets_an_unconfirmed_event(env: Environment) -> None:
    """Until its deadline an unconfirmed event is given to nobody, neither to another node nor to its holder again.

    Two nodes that work on one event at once is what a deadline is there to prevent.

    Troubleshooting: are the search for claimable events and their taking one atomic step?
    """
    store = env.store
    await store.enter("a", "b")
    await store.put("e", max_retries=3)
    await env.wait(OVERDUE_US)
    delivery = await store.take("a")
    await env.wait(OVERDUE_US)

    brought = [ids(await store.come(node)) for node in ("b", "a", "b")]

    assert_equal("what further claims bring", brought, [NOTHING] * 3)
    await store.give_back(delivery, Release.UNCOUNTED)
    await env.wait(OVERDUE_US)
    assert_equal("what another node gets once it is given back", (await store.take("b")).receipt.delivery_number, 2)


@scenario("D1", own_clock=True)
async def claims_at_the_same_time_share_the_events(env: Environment) -> None:
    """Many clients that claim at the same time get each event once in all.

    Troubleshooting: can two claims read the same entry before either has taken it?
    """
    clients = [env.store, *[await env.client() for _ in range(3)]]
    for n in range(8):
        await env.store.enter(f"n{n}")
    await env.store.post([NewEvent(event(f"{n:03}"), After(0)) for n in range(100)])
    await env.wait(OVERDUE_US)

    claimed = await asyncio.gather(*(clients[n % 4].come(f"n{n % 8}", 5) for n in range(24)))

    names = sorted(name for claim in claimed for name in ids(claim))
    assert_equal("the ids that were given out, in order", names, [f"{n:03}" for n in range(100)])


@scenario("D2", "E5")
async def deliveries_are_counted(env: Environment) -> None:
    """`num_retries` counts the counted deliveries before, and there are at most 1 + `max_retries` of them.

    Then a claim that meets the event past its deadline ends it as exhausted, and tells once.

    Troubleshooting: the first delivery has 0 retries. Is the event ended by the claim that is one too many?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=2, payload=b"p")
    seen: list[tuple[int, int]] = []
    for _ in range(3):
        delivery = await store.take("a", timeout_us=1)
        seen.append((delivery.num_retries, delivery.receipt.delivery_number))
        await env.wait(OVERDUE_US)

    last, after = await store.come("a"), await store.come("a")

    assert_equal("retries and number of each delivery", seen, [(0, 1), (1, 2), (2, 3)])
    ended = [(found.event.payload, found.reason, found.delivery_number, found.num_counted) for found in last.ended]
    assert_equal(
        "what the claim after them reports", (ids(last), ended), (NOTHING, [(b"p", EndReason.EXHAUSTED, 3, 3)])
    )
    assert_equal("what the next one reports", (ids(after), after.ended), (NOTHING, ()))


@scenario("D2")
async def an_event_without_retries_is_delivered_at_most_once(env: Environment) -> None:
    """An event that requires no confirm is gone when it is delivered, and its delivery has no deadline.

    Troubleshooting: `max_retries=0` without `dead_letter` requires no confirm; with `dead_letter` it does.
    """
    store = env.store
    await store.enter("a")
    await store.put("once")
    await store.put("kept", dead_letter=True)

    deliveries = (await store.come("a")).deliveries

    found = {delivery.event.id: delivery.deadline_us is not None for delivery in deliveries}
    assert_equal("who has a deadline", found, {"once": False, "kept": True})
    assert_equal("who lives", [item.event.id for item in await store.queue()], ["kept"])


@scenario("D3", "D7")
async def an_event_comes_again_at_its_deadline(env: Environment) -> None:
    """An unconfirmed event can be claimed from its deadline on, and its next delivery says it was due then.

    Troubleshooting: is the deadline the event's place in the one queue, so that no sweep is needed?
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=1)
    first = await store.take("a", timeout_us=SHORT_US)
    await env.wait(SHORT_US)

    second = await store.take("a")

    assert_equal("when the second could be claimed from", second.due_us, first.deadline_us)


@with_nodes("D3", "F3")
async def a_retry_policy_says_when_a_failed_event_comes_again(env: Environment) -> None:
    """When a handler raises, its event comes again after the policy's delay, growing by its factor, as an attempt.

    Troubleshooting: does the store give the policy back as it was? The node works out the delay and releases, counted.
    """

    def fail(_: object) -> None:
        raise RuntimeError("as the scenario wants it")

    node = await env.node(handler=fail)
    await node.timer.post(None, 0, id="e", max_retries=3, confirm_timeout=60, retry=Retry(delay=20, factor=2))

    await env.until("it has come four times", lambda: len(node.events) == 4)
    await env.until("it is reported as exhausted", lambda: node.ended)
    assert_equal("the retries", [found.num_retries for found in node.events], [0, 1, 2, 3])
    pauses = [
        (b.due - a.delivered_at).total_seconds() * 1000 for a, b in zip(node.events, node.events[1:], strict=False)
    ]
    for pause, least in zip(pauses, (20, 40, 80), strict=True):
        assert_that(f"a pause of {least} ms is one", least <= pause < least + 1000, seen=pauses)


@scenario("D4")
async def the_deadline_is_the_delivery_plus_the_timeout(env: Environment) -> None:
    """A delivery's deadline is its own microsecond plus the event's confirm timeout, or the claiming node's.

    Troubleshooting: the event's own timeout comes first; 0 is not None.
    """
    store = env.store
    await store.enter("a")
    await store.put("own", max_retries=1, confirm_timeout_us=7_000_003)
    await store.put("nodes", max_retries=1)

    deliveries = (await store.come("a", timeout_us=5_000_001)).deliveries

    lengths = {found.event.id: (found.deadline_us or 0) - found.at_us for found in deliveries}
    assert_equal("from delivery to deadline", lengths, {"own": 7_000_003, "nodes": 5_000_001})
    times = [found.at_us for found in deliveries]
    assert_equal("deliveries have microseconds of their own", times, sorted(set(times)))
    shown = {item.event.id: item.next_us for item in await store.queue()}
    assert_equal("the deadlines in the queue", shown, {found.event.id: found.deadline_us for found in deliveries})


@with_nodes("D4", "D2")
async def a_node_that_forgets_to_confirm_gets_it_again(env: Environment) -> None:
    """A handler that never confirms meets its event again after the timeout, until its retries are used up.

    Troubleshooting: does a deadline arm a node as a due time does?
    """
    node = await env.node(confirm_timeout=0.05)
    await node.timer.post("p", 0, id="e", max_retries=2)

    await env.until("the node is told that it is exhausted", lambda: node.ended)
    assert_equal("the retries", [found.num_retries for found in node.events], [0, 1, 2])
    told = node.ended[0]
    assert_equal("what is told of it", (told.id, told.payload, told.num_retries), ("e", "p", 2))
    assert_that("it is told that it is not a dead letter", not told.dead_letter)


@scenario("N1", "D1")
async def a_lost_join_fences_nobody(env: Environment) -> None:
    """A store that lost a node's latest join knows an earlier incarnation: the node is a stranger, and joins again.

    Troubleshooting: are incarnations compared as text, and only a greater one fences?
    """
    store = env.store
    await store.put("e")
    await store.join(member("a", "1"))
    await env.wait(OVERDUE_US)
    lost = await store.come("a", incarnation="2")
    await store.join(member("a", "2"))
    joined = await store.come("a", incarnation="2")

    assert_equal(
        "status and ids of the one that is unknown", (lost.status, ids(lost)), (ClaimStatus.NOT_JOINED, NOTHING)
    )
    assert_equal("status and ids when it has joined again", (joined.status, ids(joined)), (ClaimStatus.JOINED, ["e"]))


@scenario("N1", "D1")
async def strangers_and_the_fenced_get_nothing(env: Environment) -> None:
    """A claim by a node that has not joined, or whose id another has joined under since, takes nothing and says so.

    Troubleshooting: are node id and incarnation both compared?
    """
    store = env.store
    await store.put("e")
    stranger = await store.come("a")
    first = (await store.join(member("a", "1"))).value
    again = (await store.join(member("a", "1"))).value
    await store.join(member("a", "2"))
    await env.wait(OVERDUE_US)
    fenced = await store.come("a", incarnation="1")
    left_by_fenced = (await store.leave(member("a", "1"))).value
    joined = await store.come("a", incarnation="2")
    left = [(await store.leave(member("a", "2"))).value for _ in range(2)]

    assert_equal("status and ids of a stranger", (stranger.status, ids(stranger)), (ClaimStatus.NOT_JOINED, NOTHING))
    assert_equal(
        "what joining tells, first and again", (first, again), (JoinOutcome.JOINED, JoinOutcome.ALREADY_JOINED)
    )
    assert_equal("status and ids of the fenced", (fenced.status, ids(fenced)), (ClaimStatus.FENCED, NOTHING))
    assert_equal("status and ids of the member", (joined.status, ids(joined)), (ClaimStatus.JOINED, ["e"]))
    assert_equal("leaving as the fenced, as the member, again", (left_by_fenced, *left), (False, True, False))


@scenario("E5", "E4")
async def a_counted_release_without_retries_left_exhausts(env: Environment) -> None:
    """The last attempt, given back as counted, ends the event; the outcome says so, and no claim tells it again.

    Troubleshooting: compare counted deliveries with `max_retries`, not with the number of the delivery.
    """
    store = env.store
    await store.enter("a")
    await store.put("e", max_retries=1, retry=RetryPolicy(1))
    outcomes = [await store.give_back(await store.take("a"), Release.UNCOUNTED) for _ in range(2)]
    outcomes += [await store.give_back(await store.take("a"), Release.COUNTED) for _ in range(2)]
    claimed = await store.come("a")

    released = ReleaseOutcome.RELEASED
    assert_equal("the outcomes", outcomes, [released, released, released, ReleaseOutcome.EXHAUSTED])
    assert_equal("what a claim reports after it", (ids(claimed), claimed.ended), (NOTHING, ()))
