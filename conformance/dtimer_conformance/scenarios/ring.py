"""Scenarios of the ring and the arm: who is told to come, and who is passed over."""

from __future__ import annotations

from dtimer.limits import ARM_GRACE_US, MILLISECOND_US, SECOND_US, UNARMED_OVERDUE_US
from dtimer.protocol.outcomes import ClaimStatus
from dtimer.protocol.values import After, NewEvent
from dtimer_conformance.assertions import NOTHING, RuleBroken, assert_equal, assert_that
from dtimer_conformance.client import LONG_US, event, ids, member
from dtimer_conformance.environment import Environment
from dtimer_conformance.features import Feature
from dtimer_conformance.scenario import scenario

SHORT_US = 5 * MILLISECOND_US
OVERDUE_US = UNARMED_OVERDUE_US + 10 * MILLISECOND_US


async def told(env: Environment) -> list[tuple[str, int]]:
    """Who was told by the last operation, and for when."""
    return [(found.node, found.due_us) for found in env.store.last.announced]


async def due_of(env: Environment, id: str) -> int:
    """When an event is due, without touching what the last operation told."""
    found = (await env.store.backend.peek(id)).value
    if found is None:
        raise RuleBroken(f"event {id!r} was to be live")
    return found.next_us


@scenario("D6", "W4")
async def events_one_at_a_time_go_round_the_ring(env: Environment) -> None:
    """When events fall due one at a time, and who is told comes, any N in a row go to N nodes.

    Troubleshooting: is who took something moved to the ring's end, and the first of the ring armed next?
    """
    store = env.store
    await env.listen("a", "b", "c")
    await store.enter("a", "b", "c")
    takers: list[str] = []
    for n in range(9):
        await store.put(str(n), SHORT_US)
        announced = store.last.announced
        assert_equal("how many nodes are told", len(announced), 1)
        await env.wait(SHORT_US)
        takers.append(announced[0].node)
        assert_equal("what the told node's claim brings", ids(await store.come(announced[0].node)), [str(n)])

    assert_equal("the takers", takers, ["a", "b", "c"] * 3)


@scenario("D6")
async def who_was_not_told_leaves_young_events(env: Environment) -> None:
    """A node that is not armed takes only what is 50 ms overdue, so that it does not snatch what another comes for.

    Troubleshooting: compare with `UNARMED_OVERDUE_US`; the limit itself is included.
    """
    store = env.store
    await env.listen("a", "b")
    await store.enter("a", "b")
    for n in range(20):
        await store.put(f"{n}", SHORT_US)
        ((armed, due_us),) = await told(env)
        other = "b" if armed == "a" else "a"
        await env.wait(SHORT_US)
        claimed = await store.come(other)
        # A busy host may have slept too long between the two.
        if store.last.at_us - due_us < UNARMED_OVERDUE_US:
            assert_equal("what a node that was not told gets at once", ids(claimed), [])
            await env.wait(OVERDUE_US)
            claimed = await store.come(other)
        assert_equal("what it gets 50 ms later", ids(claimed), [f"{n}"])
        if n >= 2:
            return


@scenario("D8", "W2")
async def a_full_node_is_passed_over(env: Environment) -> None:
    """A claim that leaves its node no room parks it, and another is told at once; when all are full, nobody is.

    Troubleshooting: is a claim without room one that leaves none? Does the next claim of a full node end its parking?
    """
    store = env.store
    await env.listen("a", "b")
    await store.enter("a", "b")
    await store.post([NewEvent(event(f"{n}"), After(0)) for n in range(3)])
    await env.wait(OVERDUE_US)

    assert_equal("what a takes", ids(await store.come("a", 1)), ["0"])
    assert_equal("who is told then", [node for node, _ in await told(env)], ["b"])
    assert_equal("what b takes", ids(await store.come("b", 1)), ["1"])
    assert_equal("who is told when both are full", await told(env), [])
    await store.put("more")
    assert_equal("who is told of more", await told(env), [])
    assert_equal("what a gets once it has room", ids(await store.come("a", 8)), ["2", "more"])


@scenario("W2")
async def one_is_told_and_only_once(env: Environment) -> None:
    """Of what is posted one eligible node is told, for the time at which the head is due; for later events nobody is.

    Troubleshooting: is the arm part of the namespace, changed in the same step as the queue?
    """
    store = env.store
    await store.put("before", LONG_US)
    await store.enter("a")
    assert_equal("who is told without anybody listening or joined", [node for node, _ in await told(env)][1:], [])
    await store.leave(member("a"))
    await env.listen("a", "b")
    await store.enter("a")
    assert_equal("who is told at its join", await told(env), [("a", await due_of(env, "before"))])
    await store.enter("b")
    assert_equal("who is told at the next one's join", await told(env), [])
    await store.put("later", 2 * LONG_US)
    assert_equal("who is told of a later event", await told(env), [])


@scenario("W2", "N1")
async def an_arm_is_handed_on(env: Environment) -> None:
    """When the armed node leaves, or its id is taken by another incarnation, the arm goes to another.

    An arm that was lost with its node would leave events lying until somebody looks.

    Troubleshooting: does `leave` settle the ring as every other operation does?
    """
    store = env.store
    await env.listen("a", "b")
    await store.enter("a", "b")
    await store.put("e", LONG_US)
    assert_equal("who is told first", [node for node, _ in await told(env)], ["a"])

    await store.leave(member("a"))
    assert_equal("who is told when it leaves", [node for node, _ in await told(env)], ["b"])
    await store.enter("a")
    await store.join(member("b", "2"))
    assert_equal("members notified when the armed one joins again", [node for node, _ in await told(env)], ["a"])


@scenario("W3")
async def only_an_earlier_head_is_told(env: Environment) -> None:
    """The armed node is told when the head comes to be earlier, and of nothing else; coming too early does no harm.

    Troubleshooting: when the head is cancelled or moved later, nothing is sent; the reply to the vain claim tells.
    """
    store = env.store
    await env.listen("a", "b")
    await store.enter("a", "b")
    await store.put("head", LONG_US)
    await store.put("other", 2 * LONG_US)
    await store.put("earlier", LONG_US // 2)
    assert_equal("who is told of an earlier head", await told(env), [("a", await due_of(env, "earlier"))])
    await store.cancel(["earlier"])
    assert_equal("who is told when it is cancelled", await told(env), [])
    await store.change_delay("head", delay_us=3 * LONG_US)
    assert_equal("who is told when the head moves later", await told(env), [])

    claimed = await store.come("a")

    expected = (NOTHING, await due_of(env, "other"))
    assert_equal(
        "what the node gets that comes too early, and when it is to come", (ids(claimed), claimed.come_at_us), expected
    )
    assert_equal("who is told then", await told(env), [])


@scenario("W4")
async def the_armed_ones_reply_tells_when_to_come(env: Environment) -> None:
    """Who took something is last in the ring and another is armed; a reply tells when to come only if its node is.

    Troubleshooting: is the claimer, if it is armed again, told by its reply, and by no message?
    """
    store = env.store
    await env.listen("a", "b")
    await store.enter("a", "b")
    await store.put("now")
    await store.put("then", LONG_US)
    await env.wait(OVERDUE_US)

    first = await store.come("a")
    assert_equal("what the first claim takes", (ids(first), first.come_at_us), (["now"], None))
    assert_equal("who is told", await told(env), [("b", await due_of(env, "then"))])
    assert_equal("what the unarmed one's reply tells", (await store.come("a")).come_at_us, None)
    assert_equal("what the armed one's reply tells", (await store.come("b")).come_at_us, await due_of(env, "then"))

    await store.leave(member("a"))
    await store.put("again")
    await env.wait(OVERDUE_US)
    alone = await store.come("b")
    assert_equal(
        "what one that is alone is told", (ids(alone), alone.come_at_us), (["again"], await due_of(env, "then"))
    )
    assert_equal("and nothing is sent to it", await told(env), [])


@scenario("W5")
async def an_armed_node_that_does_not_come_is_suspect(env: Environment) -> None:
    """A claim that finds the armed node 50 ms late takes the event and arms another; its own next claim ends that.

    So a node that hangs costs one late event, and not every event.

    Troubleshooting: compare with `ARM_GRACE_US`, from the due time or the telling, whichever was later.
    """
    store = env.store
    await env.listen("hangs", "b", "c")
    await store.enter("hangs", "b", "c")
    await store.put("e", SHORT_US)
    assert_equal("who is told", [node for node, _ in await told(env)], ["hangs"])
    await env.wait(SHORT_US + ARM_GRACE_US + 10 * MILLISECOND_US)

    assert_equal("what another's claim takes", ids(await store.come("b")), ["e"])
    tellings: list[str] = []
    for n in range(3):
        await store.put(f"{n}", SHORT_US)
        tellings += [node for node, _ in await told(env)]
        await env.wait(SHORT_US)
        await store.come(tellings[-1])
    assert_equal("who is told of the next events", tellings, ["c", "b", "c"])

    await store.come("hangs")
    await store.put("back", LONG_US)
    assert_equal("who is told once it has come", [node for node, _ in await told(env)], ["hangs"])


@scenario("N3", needs=Feature.REACH)
async def a_node_whom_nobody_hears_for_is_passed_over(env: Environment) -> None:
    """An announcement that reaches nobody parks its node, and the next one is told in the same operation.

    Troubleshooting: does the store know whether anybody listens on a node's channel?
    """
    store = env.store
    await env.listen("b")
    await store.enter("dead", "b")

    await store.put("e", LONG_US)

    found = [(announced.node, announced.reached) for announced in store.last.announced]
    assert_equal("who is told", found, [("dead", False), ("b", True)])
    await store.put("earlier", LONG_US // 2)
    assert_equal("who is told after that", [node for node, _ in await told(env)], ["b"])


@scenario("N3")
async def a_silent_member_is_removed(env: Environment) -> None:
    """A member that has not claimed for ten times what it said is removed by the next claim or join of anybody.

    Troubleshooting: does each claim prolong the life of its member, by the `poll_us` that came with it?
    """
    store = env.store
    await store.join(member("silent", poll_us=2 * MILLISECOND_US))
    await store.join(member("claims", poll_us=LONG_US))
    await store.join(member("dozes", poll_us=2 * MILLISECOND_US))
    await store.come("dozes", poll_us=LONG_US)
    await env.wait(30 * MILLISECOND_US)

    await store.come("claims")

    assert_equal("the status of the silent one", (await store.come("silent")).status, ClaimStatus.NOT_JOINED)
    assert_equal("the status of one that has claimed since", (await store.come("dozes")).status, ClaimStatus.JOINED)


@scenario("W2", needs=Feature.INSPECTION)
async def an_inspection_shows_the_ring(env: Environment) -> None:
    """`inspect` shows counts, head, arm and ring as they stand, in ring order.

    Troubleshooting: an event that was delivered and given back counts as delivered.
    """
    store = env.store
    await env.listen("a", "b")
    await store.enter("a", "b")
    await store.put("e", LONG_US)
    await store.put("f", max_retries=1)
    await env.wait(OVERDUE_US)
    await store.take("a")

    found = (await store.inspect()).value

    assert_equal("live, delivered, dead letters", (found.live, found.delivered, found.dead_letters), (2, 1, 0))
    assert_equal("the ring", [node.node for node in found.ring], ["b", "a"])
    assert_equal("the head", found.head_us, min(await due_of(env, "e"), await due_of(env, "f")))
    assert_that("the arm is the first of the ring's", found.arm is not None and found.arm.node == "b", seen=found.arm)
    lives = {node.node: node.expires_us for node in found.ring}
    assert_that("members live ten polls from their last claim", lives["a"] > lives["b"] > 100 * SECOND_US, seen=lives)
