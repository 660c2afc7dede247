"""Scenarios of wake-ups that are lost, late, repeated or foreign, and of ways to the store that break."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from dtimer import (
    ConfirmOutcome,
    Event,
    ExtendOutcome,
    MalformedWakeup,
    NodeDisturbed,
    OutcomeUnknown,
    Post,
    StoreUnreachable,
)
from dtimer.limits import MILLISECOND_US, SECOND_US
from dtimer.protocol.values import Applied, Claimed, Malformed, Message, Pace, Pulse, Wakeup
from dtimer_conformance.assertions import assert_equal, assert_that
from dtimer_conformance.client import LONG_US, Client
from dtimer_conformance.environment import QUICK, Environment, Node
from dtimer_conformance.scenario import scenario, with_nodes

T = TypeVar("T")

SECOND = timedelta(seconds=1)
SLOW = Pace()
"""As W1 promises it, for stores whose announcements can get lost."""


def nothing(_: Message) -> Iterable[Message]:
    return ()


def no_wakeups(message: Message) -> Iterable[Message]:
    return () if isinstance(message, Wakeup) else (message,)


def thrice(message: Message) -> Iterable[Message]:
    return (message,) * 3


def with_junk(message: Message) -> Iterable[Message]:
    return (Malformed(b"\xff junk"), message, Malformed(b""))


def swapped() -> Callable[[Message], Iterable[Message]]:
    """The first wake-up is heard after the second."""
    held: list[Message] = []

    def hear(message: Message) -> Iterable[Message]:
        if not isinstance(message, Wakeup):
            return (message,)
        held.append(message)
        return () if len(held) == 1 else (message, held[0]) if len(held) == 2 else (message,)

    return hear


async def _all_come(
    env: Environment, nodes: list[Node], number: int, within_us: int = 3 * SECOND_US
) -> list[timedelta]:
    """Post events to these nodes, one at a time; how late each came."""
    await nodes[0].timer.post_many(Post(payload=n, delay=100 + 60 * n, id=f"{n:02}") for n in range(number))

    def taken() -> list[str]:
        return sorted(name for node in nodes for name in node.ids)

    await env.until("all have come", lambda: len(taken()) >= number, within_us=within_us)
    assert_equal("each has come once", taken(), [f"{n:02}" for n in range(number)])
    return sorted(event.lateness for node in nodes for event in node.events)


@with_nodes("W1", "D7")
async def lost_wake_ups_cost_less_than_a_second(env: Environment) -> None:
    """When every announcement is lost, fallback claims find what is due, none later than a second.

    Troubleshooting: does a claim with `pulse` tell all nodes? Does a claim of an unarmed node take what is overdue?
    """
    nodes = [await env.node(f"n{n}", pace=SLOW, hears=no_wakeups) for n in range(2)]

    late = await _all_come(env, nodes, 6)

    slack = timedelta(0) if env.virtual else timedelta(milliseconds=500)
    assert_that("none is later than a second", late[-1] < SECOND + slack, seen=late)


@scenario("W1", own_clock=True)
async def a_pulse_is_heard_by_all(env: Environment) -> None:
    """A claim with `pulse` is heard by every node that listens, its own included; one without is heard by nobody.

    Troubleshooting: is the pulse sent on a channel that all nodes of the namespace, and of its epoch, hear?
    """
    probe = await env.listen("a", "b", "c")
    await env.store.enter("a")
    await env.store.come("a")
    await env.store.come("a", pulse=True)
    claimed = env.store.last

    await env.until("all have heard one", lambda: all(listening.pulses for listening in probe))
    await env.wait(30 * MILLISECOND_US)

    expected = [Pulse("a", claimed.at_us, claimed.seq)]
    assert_equal("what they have heard", [listening.pulses for listening in probe], [expected] * 3)
    await env.store.come("stranger", pulse=True)
    await env.wait(30 * MILLISECOND_US)
    assert_equal("after a stranger's claim", [len(listening.pulses) for listening in probe], [1, 1, 1])


@with_nodes("W1")
async def one_node_looks_for_all(env: Environment) -> None:
    """While nothing is due, nodes look about as often as one of them would, since all hear the pulse.

    Troubleshooting: does each node hear the pulses of the others?
    """
    nodes = [await env.node(f"n{n}", pace=QUICK) for n in range(4)]
    await env.wait(300 * MILLISECOND_US)
    before = sum(node.timer.counters.claims for node in nodes)

    await env.wait(900 * MILLISECOND_US)

    claims = sum(node.timer.counters.claims for node in nodes) - before
    # One in 150 to 200 ms, and one of each within a second as its sign of life. Alone, each would make six.
    assert_that("they make fewer claims than four that hear nothing", 3 <= claims <= 16, seen=claims)


@with_nodes("W1", "N4")
async def a_deaf_node_subscribes_anew(env: Environment) -> None:
    """A node that does not hear even its own pulse takes itself for deaf and subscribes again, and then hears.

    Troubleshooting: can `wakeups` be entered again while the earlier one is just being left?
    """
    node = await env.node(pace=QUICK, hears=nothing)
    await env.wait(300 * MILLISECOND_US)
    node.client.faults.hears = None
    heard = node.timer.counters.pulses_heard

    await env.until("it hears pulses", lambda: node.timer.counters.pulses_heard > heard + 1)


@with_nodes("W3", "D7")
async def late_repeated_and_foreign_wake_ups_do_no_harm(env: Environment) -> None:
    """Wake-ups that come twice, late, or are none at all change neither what is delivered nor how often.

    Troubleshooting: a claim that comes too early must be answered like any other.
    """
    nodes = [
        await env.node("twice", pace=QUICK, hears=thrice),
        await env.node("late", pace=QUICK, late_us=80 * MILLISECOND_US),
        await env.node("junk", pace=QUICK, hears=with_junk),
    ]

    late = await _all_come(env, nodes, 9)

    assert_that("none is later than a second", late[-1] < SECOND, seen=late)
    kinds = {type(error) for node in nodes for error in node.errors}
    assert_that("nothing but foreign messages is reported", kinds <= {MalformedWakeup}, seen=kinds)


@with_nodes("W3", "D7")
async def of_two_wake_ups_the_earlier_counts(env: Environment) -> None:
    """A node that is told of a later and of an earlier event comes for the earlier, in whichever order it hears them.

    Troubleshooting: is the armed node told when an earlier event is posted than the one that it is armed for?
    """
    # Nothing but what it is told brings it in time.
    node = await env.node(pace=Pace(pulse_silence_us=LONG_US, poll_us=LONG_US))
    poster = await env.timer()
    await env.wait(50 * MILLISECOND_US)
    for number, hears in enumerate((None, swapped())):
        node.client.faults.hears = hears
        # Sooner than what is left of the round before, so that it is told of both.
        await poster.post(None, 50_000 - 10_000 * number, id=f"later {number}")
        sooner = await poster.post(None, 100, id=f"sooner {number}")

        # Before a simulator's store has nodes look for what is overdue.
        await env.until("the earlier comes", partial(_has_come, node, sooner), within_us=SECOND_US // 4)

    assert_equal("what came", node.ids, ["sooner 0", "sooner 1"])


def _has_come(node: Node, id: str) -> bool:
    return id in node.ids


@with_nodes("W5", "D7")
async def a_node_that_hangs_is_passed_over(env: Environment) -> None:
    """A node whose process hangs, with its connections open, costs one late event; the others come on time.

    Troubleshooting: does the claim that finds it late arm another node in its place?
    """
    nodes = [await env.node(f"n{n}", pace=QUICK) for n in range(3)]
    await env.wait(50 * MILLISECOND_US)
    hung = nodes[0]
    hung.client.freeze()
    alive = nodes[1:]
    await alive[0].timer.post_many(Post(payload=n, delay=100 + 60 * n) for n in range(9))

    await env.until(
        "the others take all", lambda: sum(len(node.events) for node in alive) == 9, within_us=3 * SECOND_US
    )

    late = sorted(event.lateness for node in alive for event in node.events)
    assert_that("most come within 200 ms", late[5] < timedelta(milliseconds=200), seen=late)
    assert_that("none is later than a second", late[-1] < SECOND, seen=late)


@with_nodes("N4")
async def a_node_survives_failing_claims(env: Environment) -> None:
    """While claims fail, a node pauses and tries again; it reports that once, and then all goes on.

    Troubleshooting: this is the timer's business; an error of the backend must leave it as it was.
    """
    node = await env.node(pace=QUICK)
    node.client.faults.refuse(StoreUnreachable("claim", "as the scenario wants it"), times=3)
    await node.timer.post(None, 0, id="e")

    await env.until("the event is delivered", lambda: node.ids == ["e"], within_us=3 * SECOND_US)
    assert_equal("the reports", [type(error) for error in node.errors], [NodeDisturbed])
    assert_equal("failed claims", node.timer.counters.failed_claims, 3)


@with_nodes("N4")
async def a_node_comes_back_after_a_cut(env: Environment) -> None:
    """When its way to the store was cut and is whole again, a node subscribes and claims again by itself.

    Troubleshooting: does `wakeups` raise when it hears nothing any more? Can it be entered again?
    """
    node = await env.node(pace=QUICK)
    await env.wait(50 * MILLISECOND_US)
    node.client.cut()
    poster = await env.timer()
    await poster.post(None, 0, id="e")
    await env.wait(300 * MILLISECOND_US)
    assert_equal("what it got while it was cut off", node.events, [])

    node.client.heal()

    await env.until("it takes the event", lambda: node.ids == ["e"], within_us=5 * SECOND_US)
    await poster.post(None, 50, id="f")
    await env.until("and the next one", lambda: node.ids == ["e", "f"], within_us=2 * SECOND_US)
    await env.until("the disturbance is over", lambda: node.timer.counters.reconnects == 1)


@with_nodes("F2", "W1")
async def a_lost_claim_comes_again_at_its_deadline(env: Environment) -> None:
    """When a claim's reply is lost, events that require a confirm come again at their deadlines; others are lost.

    Troubleshooting: a claim is not repeated by the backend. Its deliveries stand, whoever heard of them.
    """
    node = await env.node(pace=QUICK, confirm_timeout=0.2)
    node.client.faults.loses = lambda reply: bool(reply.value.deliveries)
    node.client.faults.lose("claim")
    await node.timer.post_many(
        [Post(payload=0, delay=0, id="tracked", max_retries=1), Post(payload=0, delay=0, id="once")]
    )

    await env.until("the event to confirm comes", lambda: node.events, within_us=3 * SECOND_US)
    await env.wait(100 * MILLISECOND_US)

    assert_equal(
        "what came",
        [(event.id, event.num_retries, event.delivery_number) for event in node.events],
        [("tracked", 1, 2)],
    )


@with_nodes("F1", "P3", "E2", "E3")
async def what_others_do_after_a_lost_reply_stands(env: Environment) -> None:
    """A post, a cancel or a change whose reply was lost is not made again: its caller is told that it is unknown.

    What another client has done under the id meanwhile is not undone: a cancelled event does not come back, a new one
    is not cancelled, and the last of two posts stands.

    Troubleshooting: this is the timer's business; no backend may send anything again by itself.
    """
    client = await env.client()
    timer, other = await env.timer(client=client), env.store
    await other.enter("o")
    await other.put("held", max_retries=5)
    await other.take("o", timeout_us=LONG_US)
    for name in ("cancelled", "moved"):
        await other.put(name, LONG_US)
    calls: list[tuple[str, Callable[[], Coroutine[Any, Any, object]], Callable[[], Awaitable[object]]]] = [
        ("post", lambda: timer.post("v1", 60_000, id="posted"), lambda: other.cancel(["posted"])),
        ("post", lambda: timer.post("v1", 60_000, id="replaced"), lambda: other.put("replaced", LONG_US, payload=b"2")),
        ("cancel", lambda: timer.cancel("cancelled"), lambda: other.put("cancelled", LONG_US, max_retries=5)),
        ("change_delay", lambda: timer.change_delay("moved", 1), lambda: other.change_delay("moved", delay_us=LONG_US)),
        ("confirm_newest", lambda: timer.confirm("held"), lambda: other.put("held", LONG_US, payload=b"2")),
    ]
    for method, call, meanwhile in calls:
        await _unknown(env, client, method, call(), meanwhile)

    assert_equal(
        "what lives", sorted(item.event.id for item in await other.queue()), ["cancelled", "held", "moved", "replaced"]
    )
    payloads = [(await other.see(name)).event.payload for name in ("held", "replaced")]
    assert_equal("the last posts stand", payloads, [b"2", b"2"])
    due_us = (await other.see("moved")).next_us - other.last.at_us
    assert_that("the last change stands", due_us > SECOND_US, seen=due_us)


async def _unknown(
    env: Environment,
    client: Client,
    method: str,
    call: Coroutine[Any, Any, object],
    meanwhile: Callable[[], Awaitable[object]],
) -> None:
    """The call is applied, its reply is lost, others act: its caller is told so, and it is not made again."""

    def num_calls() -> int:
        return sum(record.operation.method == method for record in env.recorder.history)

    before = 0

    async def act() -> None:
        nonlocal before
        await meanwhile()
        before = num_calls()

    client.faults.lose(method, meanwhile=act)
    try:
        await _with_time(env, call)
    except OutcomeUnknown as error:
        assert_equal("whether it is safe to repeat", error.safe_to_repeat, False)
    else:
        assert_that(f"{method} raises when its reply is lost", False)
    assert_equal(f"how often {method} was sent once more", num_calls() - before, 0)


async def _with_time(env: Environment, call: Coroutine[Any, Any, T]) -> T:
    """What a call returns that may have to wait, for virtual time too, before it tries again."""
    task = asyncio.ensure_future(call)
    await env.until("the call ends", task.done, within_us=6 * SECOND_US)
    return await task


@with_nodes("F1", "E1", "E4")
async def what_may_be_repeated_is_repeated(env: Environment) -> None:
    """Reads and what a receipt fences are repeated after a lost reply; a confirm that then finds nothing is GONE.

    Troubleshooting: must the repetition of what was applied change nothing and say so?
    """
    node = await env.node(pace=QUICK)
    await node.timer.post(None, 0, id="e", max_retries=1, confirm_timeout=60)
    await env.until("it is delivered", lambda: node.events)
    for method in ("confirm", "claim", "extend", "peek"):
        node.client.faults.lose(method)

    extended = await _with_time(env, node.events[0].extend(60))
    confirmed = await _with_time(env, _awaited(node.events[0].confirm()))
    found = await _with_time(env, node.timer.peek("e"))

    assert_equal("the extension", extended, ExtendOutcome.EXTENDED)
    assert_equal("the confirm", confirmed, ConfirmOutcome.GONE)
    assert_equal("the peek", found, None)
    assert_equal("what lives", await node.timer.upcoming(), [])


@with_nodes("F1", "E1", "E4")
async def a_repeated_receipt_leaves_alone_what_others_did_since(env: Environment) -> None:
    """A confirm, a release and a burial are repeated after a lost reply, by a receipt that others have voided since.

    What stands under the id then is left alone; and since the first try itself may have voided the receipt, the caller
    is told that the outcome is unknown, not that nothing happened.

    Troubleshooting: this is the timer's business, and rests on receipts that count once at most.
    """
    node, other = await env.node(pace=QUICK), env.store
    asks: dict[str, Callable[[Event[Any]], Coroutine[Any, Any, object]]] = {
        "confirm": lambda event: _awaited(event.confirm()),
        "release": lambda event: event.release(60_000),
        "bury": lambda event: event.bury(""),
    }
    for name in asks:
        await node.timer.post(None, 0, id=name, max_retries=1, confirm_timeout=60)
    await env.until("they are delivered", lambda: len(node.events) == len(asks))
    for event in list(node.events):
        method = event.id

        async def replace(id: str = event.id) -> None:
            await other.put(id, LONG_US, payload=b"2")

        # A confirm may ride on a claim; one that carries none keeps its reply.
        node.client.faults.loses = _carries_the_outcome
        for carrier in {"confirm": ("confirm", "claim")}.get(method, (method,)):
            node.client.faults.lose(carrier, meanwhile=replace)
        try:
            outcome = await _with_time(env, asks[method](event))
        except OutcomeUnknown as error:
            assert_equal("the operation", error.operation, method)
        else:
            assert_that(f"{method} is unknown", False, seen=outcome)
    payloads = [(await other.see(name)).event.payload for name in asks]
    assert_equal("what others have posted stands", payloads, [b"2"] * len(asks))


def _carries_the_outcome(reply: Applied[Any]) -> bool:
    return not isinstance(reply.value, Claimed) or bool(reply.value.confirmed)


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


@with_nodes("F1")
async def what_was_never_sent_is_repeated_inside(env: Environment) -> None:
    """While the store cannot be reached, every call of a timer is repeated for some seconds, and then works.

    Troubleshooting: is StoreUnreachable raised only for what was surely not sent?
    """
    client = await env.client()
    timer = await env.timer(client=client)
    for method in ("post", "change_delay", "cancel"):
        client.faults.refuse(StoreUnreachable(method, "as the scenario wants it"), times=2)

    posted = await _with_time(env, timer.post(None, 100, id="e"))
    moved = await _with_time(env, timer.change_delay("e", LONG_US // 1000))
    cancelled = await _with_time(env, timer.cancel("e"))

    assert_equal(
        "the id, and whether it was moved and cancelled", (posted, bool(moved), bool(cancelled)), ("e", True, True)
    )
