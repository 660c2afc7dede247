"""What a caller meets when the store, or the way to it, fails: errors that say what is known, in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dtimer.errors import BackendClosed, BackendError, OutcomeUnknown, StoreBusy, StoreFull, StoreUnreachable
from dtimer.protocol.values import After, EventData, NewEvent
from dtimer.sim import (
    Hold,
    Host,
    Latency,
    LinkedBackend,
    LoseCalls,
    Partition,
    Pause,
    Refuse,
    Restart,
    RestartStore,
    Simulation,
    World,
)
from dtimer.sim.faulty.link import Loss, Part

EVENT = (NewEvent(EventData(id="e", payload=b""), After(10**12)),)


async def opened(world: World) -> LinkedBackend:
    """A backend with a connection that is idle."""
    backend = world.backend()
    await backend.open()
    return backend


def live(world: World) -> int:
    inspection = world.inspect()
    return 0 if inspection is None else inspection.live


async def failure(call: Awaitable[object], world: World) -> tuple[type[BackendError], float]:
    """The error of a call, and after how many seconds it came."""
    begun_s = world.now_s
    with pytest.raises(BackendError) as raised:
        await call
    return raised.type, round(world.now_s - begun_s, 1)


def run(scenario: Callable[[World], Awaitable[None]], seed: int = 0) -> None:
    simulation = Simulation(seed=seed, nodes=0)
    simulation.run(scenario)


def test_a_lost_request_was_perhaps_applied_as_far_as_its_sender_knows() -> None:
    """F1: it was not, but nobody told."""

    async def scenario(world: World) -> None:
        backend = await opened(world)
        world.inject(Partition("client", "to_store"))
        assert await failure(backend.post(EVENT), world) == (OutcomeUnknown, 5.0)
        assert live(world) == 0

    run(scenario)


def test_a_lost_reply_is_the_same_to_its_receiver() -> None:
    """F1: only that it was applied."""

    async def scenario(world: World) -> None:
        backend = await opened(world)
        world.inject(Partition("client", "from_store"))
        assert await failure(backend.post(EVENT), world) == (OutcomeUnknown, 5.0)
        assert live(world) == 1

    run(scenario)


def test_what_cannot_connect_was_not_applied() -> None:
    async def scenario(world: World) -> None:
        backend = world.backend()
        with world.inject(Partition("client")):
            assert await failure(backend.post(EVENT), world) == (StoreUnreachable, 5.0)
        await backend.post(EVENT)
        assert live(world) == 1

    run(scenario)


def test_a_held_request_is_applied_long_after_its_sender_gave_up() -> None:
    """What is in a kernel's buffer is sent when the way is open again."""

    async def scenario(world: World) -> None:
        backend = await opened(world)
        world.inject(Hold("client", for_s=60))
        assert await failure(backend.post(EVENT), world) == (OutcomeUnknown, 5.0)
        await asyncio.sleep(54)
        assert live(world) == 0
        await asyncio.sleep(2)
        assert live(world) == 1

    run(scenario)


def test_a_held_reply_that_is_released_in_time_is_a_reply() -> None:
    async def scenario(world: World) -> None:
        backend = await opened(world)
        world.inject(Hold("client", "from_store", for_s=3))
        begun_s = world.now_s
        await backend.post(EVENT)
        assert 3 <= world.now_s - begun_s < 3.01

    run(scenario)


@pytest.mark.parametrize(("part", "applied"), [("request", 0), ("reply", 1)])
@pytest.mark.parametrize(("how", "after_s"), [("silence", 5.0), ("disconnect", 0.0)])
def test_one_loss_costs_one_call(part: Part, applied: int, how: Loss, after_s: float) -> None:
    async def scenario(world: World) -> None:
        backend = await opened(world)
        world.inject(LoseCalls("client", part, how=how))
        assert await failure(backend.post(EVENT), world) == (OutcomeUnknown, after_s)
        assert live(world) == applied
        await backend.post(EVENT)
        assert live(world) == 1

    run(scenario)


def test_a_server_that_died_is_noticed_at_once() -> None:
    """Calls under way are lost with their connections; later ones are refused, then answered with an error."""

    async def scenario(world: World) -> None:
        backend = await opened(world)
        world.inject(Latency("client", 0.2, 0.2))
        lost = asyncio.create_task(failure(backend.post(EVENT), world))
        await asyncio.sleep(0.1)
        world.inject(RestartStore(down_s=3, loading_s=3))
        assert await lost == (OutcomeUnknown, 0.3)
        assert await failure(backend.post(EVENT), world) == (StoreUnreachable, 0.8)
        await asyncio.sleep(3)
        assert await failure(backend.post(EVENT), world) == (StoreBusy, 0.8)
        await asyncio.sleep(3)
        await backend.post(EVENT)

    run(scenario)


def test_a_connection_that_is_half_open_is_found_out_by_its_next_request() -> None:
    """The server restarted behind a partition, so nobody could say so; the request meets another process."""

    async def scenario(world: World) -> None:
        backend = await opened(world)
        world.inject(Partition("client", for_s=2))
        world.inject(RestartStore(down_s=1))
        await asyncio.sleep(3)
        assert await failure(backend.post(EVENT), world) == (OutcomeUnknown, 0.0)
        assert live(world) == 0

    run(scenario)


def test_a_refusal_is_a_reply_and_keeps_the_connection() -> None:
    async def scenario(world: World) -> None:
        backend = await opened(world)
        refusal = world.inject(Refuse("out_of_memory", for_s=10))
        for _ in range(3):
            assert await failure(backend.post(EVENT), world) == (StoreFull, 0.0)
        await backend.cancel(["e"])
        refusal.end()
        begun_us = world.now_us
        await backend.post(EVENT)
        assert world.now_us - begun_us <= 1_000, "one way there and one back"

    run(scenario)


def test_a_process_that_stood_still_finds_its_replies_too_late() -> None:
    """As on a real loop: when it looks, the time limit has passed."""
    simulation = Simulation(nodes=1)
    failures: list[tuple[type[BackendError], float]] = []

    async def scenario(world: World) -> int:
        async def program(host: Host) -> None:
            backend = host.backend()
            await backend.open()
            failures.append(await failure(backend.post(EVENT), world))

        world.inject(Latency("n1", 0.2, 0.2))
        world.host("n1").application = program
        world.inject(Restart("n1"))
        await asyncio.sleep(1.3)
        world.inject(Pause("n1", for_s=20))
        await asyncio.sleep(30)
        return live(world)

    assert simulation.run(scenario).result == 1
    assert failures == [(OutcomeUnknown, 20.1)]


def test_only_so_many_connections_are_used_at_once() -> None:
    """As many as by the Redis backend; who waits too long for one has sent nothing."""

    async def scenario(world: World) -> None:
        backend = await opened(world)
        calls = [asyncio.create_task(backend.peek(str(number))) for number in range(100)]
        await asyncio.gather(*calls)
        partition = world.inject(Partition("client"))
        failures = await asyncio.gather(*(failure(backend.peek(str(number)), world) for number in range(20)))
        assert failures == [(OutcomeUnknown, 5.0)] * 16 + [(StoreUnreachable, 5.0)] * 4
        partition.end()
        await backend.peek("e")

    run(scenario)


def test_who_cancels_a_call_does_not_stop_it() -> None:
    async def scenario(world: World) -> None:
        backend = await opened(world)
        call = asyncio.create_task(backend.post(EVENT))
        await asyncio.sleep(0.00005)
        call.cancel()
        await asyncio.sleep(1)
        assert live(world) == 1
        await backend.post(EVENT)

    run(scenario)


def test_a_closed_backend_takes_no_more_and_waits_for_what_is_under_way() -> None:
    async def scenario(world: World) -> None:
        backend = await opened(world)
        call = asyncio.create_task(backend.post(EVENT))
        await asyncio.sleep(0.00005)
        await backend.close()
        assert call.done()
        await call
        assert await failure(backend.post(EVENT), world) == (BackendClosed, 0.0)

    run(scenario)


def test_calls_overtake_each_other() -> None:
    """They are on connections of their own; a node must not rely on any order."""
    orders: set[tuple[str, ...]] = set()

    async def scenario(world: World) -> None:
        backend = await opened(world)
        order: list[str] = []

        async def look(id: str) -> None:
            await backend.peek(id)
            order.append(id)

        await asyncio.gather(look("a"), look("b"), look("c"))
        order.clear()
        await asyncio.gather(look("a"), look("b"), look("c"))
        orders.add(tuple(order))

    for seed in range(20):
        run(scenario, seed)
    assert len(orders) > 2
