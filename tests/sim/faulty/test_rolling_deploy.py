"""Payloads of a new kind while some nodes run code that cannot decode them yet (rule F4).

None is lost or buried, and none comes more than five seconds after it is due and a node is there that can read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

import pytest
from attrs import frozen

from dtimer import Codec, DTimer, Event
from dtimer.sim import Host, Simulation, World
from dtimer.sim.faulty.simulation import START

EVENTS = 100
LATE_MAX_S = 5
DUE_S = 1


class New:
    """A codec that reads everything."""

    def encode(self, payload: bytes) -> bytes:
        return payload

    def decode(self, data: bytes) -> bytes:
        return data


class Old(New):
    """One that does not know the new kind."""

    def decode(self, data: bytes) -> bytes:
        if data.startswith(b"new"):
            raise ValueError("a kind that is not known")
        return data


@frozen
class Stay:
    """A time for which a node is joined, with one codec; in seconds."""

    codec: Codec[bytes]
    begin: float = 0
    end: float = 1_000


def deploy(
    seed: int, nodes: Sequence[Sequence[Stay]], *, spread_s: float = 0, work_s: float = 0, max_events: int = 8
) -> list[float]:
    """A hundred events of a new kind, due within `spread_s` after the first second; how late each came, in s.

    Args:
        nodes: one after another, what each process does.
        work_s: how long handlers take.
    """
    names = [f"n{number}" for number in range(len(nodes))]
    simulation = Simulation(seed=seed, nodes=names, record=False)
    came: dict[str, datetime] = {}

    def program(stays: Sequence[Stay]) -> Callable[[Host], Awaitable[None]]:
        async def run(node: Host) -> None:
            now_s = 0.0
            for stay in stays:
                await asyncio.sleep(stay.begin - now_s)
                timer = DTimer(node.backend(), codec=stay.codec, max_events=max_events)
                timer.on("error", lambda _: None)

                @timer.on("event")
                async def handle(event: Event[bytes]) -> None:
                    async with event:
                        await asyncio.sleep(work_s)
                        assert event.id not in came, "each is delivered to a handler once"
                        came[event.id] = event.delivered_at

                async with timer:
                    await asyncio.sleep(stay.end - stay.begin)
                now_s = stay.end

        return run

    for name, stays in zip(names, nodes, strict=True):
        simulation.node_named(name)(program(stays))

    async def scenario(world: World) -> list[str]:
        timer = DTimer(world.backend(), codec=New())
        for number in range(EVENTS):
            at = START + timedelta(seconds=due_s(number))
            await timer.post(b"new", at=at, id=str(number), max_retries=3)
        await world.until(lambda: len(came) == EVENTS, within_s=600)
        return [letter.id for letter in await timer.dead_letters()]

    def due_s(number: int) -> float:
        return DUE_S + spread_s * number / EVENTS

    dead = simulation.run(scenario).result
    assert dead == []
    readable_s = min(stay.begin for stays in nodes for stay in stays if not isinstance(stay.codec, Old))
    return [(when - START).total_seconds() - max(due_s(int(id)), readable_s) for id, when in came.items()]


def mix(old: int, new: int, *, begin: float = 0) -> list[list[Stay]]:
    """Old nodes from the start, and new ones that join at `begin`."""
    return [[Stay(Old())]] * old + [[Stay(New(), begin)]] * new


@pytest.mark.parametrize(("old", "new"), [(1, 1), (3, 1), (2, 2), (1, 3), (7, 1), (5, 3)])
@pytest.mark.parametrize("spread_s", [0, 20])
def test_a_mix_of_old_and_new_nodes(old: int, new: int, spread_s: float) -> None:
    for seed in range(2):
        assert max(deploy(seed, mix(old, new), spread_s=spread_s)) < LATE_MAX_S


@pytest.mark.once
@pytest.mark.parametrize(("old", "new"), [(1, 1), (3, 1), (7, 1), (2, 2)])
def test_the_first_that_can_read_them_joins_in_the_fifth_minute(old: int, new: int) -> None:
    assert max(deploy(0, mix(old, new, begin=300), spread_s=1)) < LATE_MAX_S


@pytest.mark.once
@pytest.mark.parametrize("max_events", [1, 8])
def test_while_handlers_keep_the_nodes_full(max_events: int) -> None:
    """A node whose room comes back claims at once, whether or not it is its turn (D8)."""
    work_s = 0.2 / EVENTS * max_events
    assert max(deploy(0, mix(7, 1, begin=20), work_s=work_s, max_events=max_events)) < LATE_MAX_S


def test_old_nodes_are_replaced_one_by_one() -> None:
    """As many members as ever, but some of them have joined since the last refusal."""
    nodes = [[Stay(Old(), 0, 30.0 * number), Stay(New(), 30.0 * number + 0.5)] for number in range(1, 5)]
    assert max(deploy(0, nodes, spread_s=40)) < LATE_MAX_S
