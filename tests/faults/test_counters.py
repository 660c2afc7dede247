"""Nothing is silent: each counter is raised by a real cause, and what is amiss is told (E5, F3, F4, N4, O1)."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import pytest
from attrs import fields

from dtimer import (
    ConfirmedTooLate,
    Counters,
    DTimer,
    DTimerError,
    Event,
    HandlerFailed,
    JsonCodec,
    JsonValue,
    LoopBlocked,
    MalformedWakeup,
    NodeDisturbed,
    PayloadRefused,
    Post,
    RecordUnreadable,
    StoreClockLeapt,
    StoreClockStepped,
    StoreLostWrites,
    StoreRestarted,
)
from dtimer.limits import DEAD_LETTERS_MAX, LOOP_BLOCKED_US, SECOND_US
from dtimer.protocol.values import EndReason
from support.members import behind
from support.proxy import Proxy
from support.scripts import runs
from support.servers import Server
from support.waiting import until
from support.worlds import NAMESPACE, Node, RedisWorld, without_blocks

Cause: TypeAlias = Callable[[RedisWorld, Server], Awaitable[tuple[Node, type[DTimerError] | EndReason | None]]]
"""Brings it about; the node that met it, and what it was told of it."""


class Picky(JsonCodec):
    """Refuses what another version of the program has posted."""

    def decode(self, data: bytes) -> JsonValue:
        if b"v2" in data:
            raise ValueError("from the future")
        return super().decode(data)


async def delivered(world: RedisWorld, server: Server) -> tuple[Node, None]:
    node = await world.node()
    await node.timer.post("p", 0)
    await world.taken(1, node)
    return node, None


async def retried(world: RedisWorld, server: Server) -> tuple[Node, None]:
    node = await world.node(confirm_timeout=0.05)
    await node.timer.post("p", 0, max_retries=1)
    await world.taken(2, node)
    return node, None


async def confirmed(world: RedisWorld, server: Server) -> tuple[Node, None]:
    node = await world.node(None, lambda event: event.confirm())
    await node.timer.post("p", 0, max_retries=1)
    await world.until(lambda: node.timer.counters.confirmed)
    return node, None


async def confirmed_too_late(world: RedisWorld, server: Server) -> tuple[Node, type[DTimerError]]:
    """The event was given to another node meanwhile: its handler has returned, so that nothing extends the delivery."""
    node = await world.node(confirm_timeout=0.05)
    await node.timer.post("p", 0, max_retries=5, confirm_timeout=0.05)
    await world.until(lambda: len(node.events) > 1)
    await node.events[0].confirm()
    return node, ConfirmedTooLate


async def exhausted(world: RedisWorld, server: Server) -> tuple[Node, EndReason]:
    node = await world.node(confirm_timeout=0.05)
    await node.timer.post("p", 0, max_retries=1)
    await world.until(lambda: node.ended)
    return node, node.ended[0].reason


async def expired(world: RedisWorld, server: Server) -> tuple[Node, EndReason]:
    """Nobody was there in time."""
    await world.timer().post("p", 0, expires_after=1)
    await world.passes(20)
    node = await world.node()
    await world.until(lambda: node.ended)
    return node, node.ended[0].reason


async def handler_errors(world: RedisWorld, server: Server) -> tuple[Node, type[DTimerError]]:
    def fail(event: Event) -> None:
        raise ValueError

    node = await world.node(None, fail)
    await node.timer.post("p", 0)
    await world.until(lambda: node.errors)
    return node, HandlerFailed


async def refused_payloads(world: RedisWorld, server: Server) -> tuple[Node, type[DTimerError]]:
    node = await world.node(codec=Picky())
    await node.timer.post("v2", 0)
    await world.until(lambda: node.errors)
    return node, PayloadRefused


async def unreadable(world: RedisWorld, server: Server) -> tuple[Node, type[DTimerError]]:
    node = await world.node()
    await node.timer.post("p", 200, id="e")
    with server.client() as client:
        client.hset(f"{{{NAMESPACE}}}:records", "e", b"\xff")
    await world.until(lambda: node.errors)
    return node, RecordUnreadable


async def malformed_wakeups(world: RedisWorld, server: Server) -> tuple[Node, type[DTimerError]]:
    node = await world.node()
    epoch = (await world.backend().open()).epoch
    with server.client() as client:
        client.publish(f"{{{NAMESPACE}}}:{epoch}:p", b"\xff")
    await world.until(lambda: node.errors)
    return node, MalformedWakeup


async def pulses_heard(world: RedisWorld, server: Server) -> tuple[Node, None]:
    node = await world.node()
    await world.until(lambda: node.timer.counters.pulses_heard)
    return node, None


async def claims(world: RedisWorld, server: Server) -> tuple[Node, None]:
    node = await world.node()
    await world.until(lambda: node.timer.counters.claims)
    return node, None


async def lost_writes(world: RedisWorld, server: Server) -> tuple[Node, type[DTimerError]]:
    node = await world.node()
    with server.client() as client:
        client.flushall()
    await world.until(lambda: node.errors)
    return node, StoreLostWrites


async def store_restarts(world: RedisWorld, server: Server) -> tuple[Node, type[DTimerError]]:
    """Another server has answered since: this one, by another name."""
    node = await world.node()
    other = world.backend()
    other.server_for_tests = "other"
    await other.cancel(["none"])
    await world.until(lambda: node.errors)
    return node, StoreRestarted


async def rejoins(world: RedisWorld, server: Server) -> tuple[Node, None]:
    """Somebody took it out; it was told so by its next claim, and is back: `ready` says it."""
    node = await world.node()
    ready: list[int] = []
    node.timer.on("ready", lambda: ready.append(1))
    with server.client() as client:
        client.hdel(f"{{{NAMESPACE}}}:nodes", node.id)
    await world.until(lambda: ready)
    return node, None


async def clock_steps(world: RedisWorld, server: Server) -> tuple[Node, type[DTimerError]]:
    node = await clock_of(world, -SECOND_US)
    return node, StoreClockStepped


async def clock_leaps(world: RedisWorld, server: Server) -> tuple[Node, type[DTimerError]]:
    node = await clock_of(world, 5 * SECOND_US)
    return node, StoreClockLeapt


async def clock_of(world: RedisWorld, step_us: int) -> Node:
    """A node, and a store whose clock is set by so much between two calls."""
    now_us = [2_000_000_000 * SECOND_US]
    timer: DTimer = DTimer(world.backend(clock_for_tests=lambda: now_us[0]))
    world.keep(timer)
    node = Node(timer)
    timer.on("error", without_blocks(node.errors.append))
    await timer.join()
    await timer.post("p", 60_000)
    now_us[0] += step_us
    await timer.post("p", 60_000)
    return node


async def failed_subscriptions(world: RedisWorld, server: Server) -> tuple[Node, type[DTimerError]]:
    node = await world.node()
    with server.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await world.until(lambda: node.errors)
    return node, NodeDisturbed


async def reconnects(world: RedisWorld, server: Server) -> tuple[Node, type[DTimerError]]:
    node, told = await failed_subscriptions(world, server)
    await world.until(lambda: node.timer.counters.reconnects)
    return node, told


async def loop_blocks(world: RedisWorld, server: Server) -> tuple[Node, type[DTimerError]]:
    """A plain handler that computes without a pause."""

    def compute(event: Event) -> None:
        until_s = time.monotonic() + 2 * LOOP_BLOCKED_US / SECOND_US
        while time.monotonic() < until_s:
            pass

    node = await world.node(None, compute)
    node.timer.on("error", node.errors.append)
    await node.timer.post("p", 0)
    await world.until(lambda: node.timer.counters.loop_blocks)
    return node, LoopBlocked


CAUSES: Final[dict[str, Cause]] = {
    cause.__name__: cause
    for cause in (
        delivered, retried, confirmed, exhausted, expired, handler_errors, refused_payloads, unreadable,
        malformed_wakeups, pulses_heard, claims, lost_writes, store_restarts, rejoins, clock_steps, clock_leaps,
        failed_subscriptions, reconnects, confirmed_too_late, loop_blocks,
    )
}  # fmt: skip


def test_no_counter_is_missing() -> None:
    """A new one shall not be left without a cause."""
    assert {field.name for field in fields(Counters)} == set(CAUSES) | {"failed_claims"}


@pytest.mark.parametrize("counter", CAUSES)
async def test_a_counter_is_raised_by_a_real_cause_and_somebody_is_told(
    one_world: RedisWorld, one_server: Server, counter: str
) -> None:
    """Of what is out of order. What is in order is only counted."""
    node, told = await CAUSES[counter](one_world, one_server)

    assert getattr(node.timer.counters, counter) >= 1
    if isinstance(told, EndReason):
        assert told.name == counter.upper()
    elif told is not None:
        assert told in node.error_types()


async def test_every_claim_that_fails_is_counted_and_the_first_is_reported(one_server: Server) -> None:
    """Rule N4: lost replies, and a server that is away."""
    async with Proxy(one_server.port) as proxy, behind(proxy) as node:
        for number in range(1, 4):
            proxy.drop_reply_and_cut(runs("claim"))
            await until(lambda number=number: node.timer.counters.failed_claims == number)  # type: ignore[misc]

        assert node.timer.counters.failed_claims == 3
        assert NodeDisturbed in node.error_types()


async def test_what_nobody_listens_to_is_in_the_log(one_world: RedisWorld, caplog: pytest.LogCaptureFixture) -> None:
    """Without handlers for errors or exhausted events nothing is silent either."""

    def fail(event: Event) -> None:
        raise ValueError("in a handler")

    timer: DTimer = DTimer(one_world.backend(), confirm_timeout=0.05, codec=Picky())
    one_world.keep(timer)
    timer.on("event", fail)
    async with timer:
        await timer.post_many([Post(payload="v1", delay=0, id="a"), Post(payload="v2", delay=0, id="b")])
        await timer.post("v2", 0, max_retries=1, id="c", expires_after=10)
        await until(lambda: timer.counters.expired)
    said = " ".join(record.message for record in caplog.records)

    assert "'a' raised ValueError('in a handler')" in said
    assert "'b' cannot be decoded" in said
    assert "'c' ended unconfirmed: expired" in said


async def test_dead_letters_beyond_the_cap_are_counted_by_the_store(one_world: RedisWorld) -> None:
    """Rule E5: the one end of an event that no node is told of, since none has asked; the store's own count says it."""
    overdue = (
        Post[JsonValue](payload="p", delay=0, dead_letter=True, expires_after=1) for _ in range(DEAD_LETTERS_MAX + 1)
    )
    await one_world.timer().post_many(overdue)
    await one_world.passes(20)
    await one_world.node()
    await one_world.until_quiet()

    seen = await one_world.inspect()
    assert (seen.dead_letters, seen.dead_letters_dropped) == (DEAD_LETTERS_MAX, 1)
