"""Who is late, silent, restless or forgotten is seen, and who has an excuse is excused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dtimer import DTimer, Event, JsonValue
from dtimer.protocol import operations as op
from dtimer.protocol.outcomes import ClaimStatus
from dtimer.protocol.values import Applied, Claimed, Delivery, EventData, Member, Receipt
from dtimer.sim import BreakSubscription, Crash, Host, Pause, Simulation, StepClock, World
from dtimer.sim.checks.promptness import BOUND_US, CALLS_MAX, PEACE_BOUND_US, RECOVERY_US, SILENCE_US, Promptness

S = 1_000_000
START_S = 2 * RECOVERY_US / S

Scenario = Callable[[World, Promptness, list[str]], Awaitable[None]]


def watched(scenario: Scenario, *, nodes: int = 2, joins: bool = True) -> list[str]:
    """What is complained of while a scenario runs; the nodes are real and sound, or do nothing."""
    complaints: list[str] = []
    simulation = Simulation(seed=1, nodes=nodes)

    @simulation.node
    async def program(host: Host) -> None:
        if not joins:
            await host.forever()
        timer = DTimer(host.backend(), node_id=host.name)

        @timer.on("event")
        async def handle(event: Event[JsonValue]) -> None:
            async with event:
                pass

        async with timer:
            await host.forever()

    async def main(world: World) -> None:
        promptness = Promptness(world, lambda rules, *_: complaints.append(rules))
        world.observe(promptness)
        await scenario(world, promptness, complaints)

    simulation.run(main)
    return complaints


async def pass_time(promptness: Promptness, seconds: float) -> None:
    for _ in range(round(seconds)):
        await asyncio.sleep(1)
        promptness.look()


def late(by_us: int) -> Delivery:
    return Delivery(
        event=EventData(id="a", payload=b""), receipt=Receipt("a", 1, "c"), due_us=10**9, at_us=10**9 + by_us,
        num_retries=0, deadline_us=None,
    )  # fmt: skip


def claims(promptness: Promptness, node: str, count: int, room: int = 1) -> None:
    claim = op.Claim(member=Member(node, "0001", 1), room=room, confirm_timeout_us=1, nonce="c")
    for _ in range(count):
        promptness.on_applied(node, 1, "dt", claim, Applied("epoch", 1, 1, Claimed(status=ClaimStatus.JOINED)))


def test_sound_nodes_are_not_complained_of() -> None:
    async def scenario(world: World, promptness: Promptness, _: list[str]) -> None:
        timer = DTimer(world.backend())
        for number in range(90):
            await timer.post({}, delay=number % 3 * 500)
            await pass_time(promptness, 1)
        promptness.members()

    assert watched(scenario) == []


@pytest.mark.parametrize(
    ("late_us", "fault", "complaints"),
    [
        (PEACE_BOUND_US, None, []),
        (PEACE_BOUND_US + 1, None, ["D7"]),
        (PEACE_BOUND_US + 1, "pause", []),
        (BOUND_US, "pause", []),
        (BOUND_US + 1, "pause", ["D7"]),
        (BOUND_US + 1, "step_clock", []),
    ],
)
def test_an_event_that_is_late(late_us: int, fault: str | None, complaints: list[str]) -> None:
    """By more than is excused: trouble of one node is an excuse for a second, of the store's clock for any time."""

    async def scenario(world: World, promptness: Promptness, _: list[str]) -> None:
        await pass_time(promptness, START_S)
        if fault == "pause":
            world.inject(Pause("n2", for_s=1))
        elif fault is not None:
            world.inject(StepClock(1))
        await pass_time(promptness, 3)
        promptness.delivered("n1", late(late_us))

    assert watched(scenario) == complaints


def test_nobody_has_to_come_who_has_no_room() -> None:
    async def scenario(world: World, promptness: Promptness, _: list[str]) -> None:
        await pass_time(promptness, START_S)
        for node in world.nodes:
            claims(promptness, node, 1, room=0)
        promptness.delivered("n1", late(60 * S))

    assert watched(scenario) == []


def test_a_node_that_is_silent() -> None:
    async def scenario(world: World, promptness: Promptness, complaints: list[str]) -> None:
        await pass_time(promptness, SILENCE_US / S)
        assert not complaints
        await pass_time(promptness, 3)

    assert set(watched(scenario, nodes=1, joins=False)) == {"N4"}


def test_a_node_that_is_down_is_not_silent() -> None:
    async def scenario(world: World, promptness: Promptness, _: list[str]) -> None:
        await pass_time(promptness, START_S)
        world.inject(Crash("n1"))
        await pass_time(promptness, 3 * SILENCE_US / S)

    assert watched(scenario, nodes=1) == []


@pytest.mark.parametrize(("calls", "complaints"), [(CALLS_MAX - 10, []), (CALLS_MAX + 1, ["W1"])])
def test_a_node_that_makes_no_pause(calls: int, complaints: list[str]) -> None:
    async def scenario(world: World, promptness: Promptness, _: list[str]) -> None:
        await pass_time(promptness, START_S)
        claims(promptness, "n1", calls)
        await pass_time(promptness, 1)

    assert watched(scenario, nodes=1) == complaints


def test_a_node_that_is_not_in_the_ring() -> None:
    async def scenario(world: World, promptness: Promptness, _: list[str]) -> None:
        timer = DTimer(world.backend(), node_id="other")
        await timer.post({}, delay=0)
        await pass_time(promptness, START_S)
        promptness.members()

    assert set(watched(scenario, nodes=1, joins=False)) == {"N4"}


def test_a_node_that_hears_nothing() -> None:
    async def scenario(world: World, promptness: Promptness, _: list[str]) -> None:
        await pass_time(promptness, START_S)
        world.inject(BreakSubscription("n1", "silence"))
        promptness.members()
        await pass_time(promptness, 5)
        promptness.members()

    assert watched(scenario, nodes=1) == ["N4"]
