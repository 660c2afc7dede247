"""What the original dtimer's own tests promise: a burst is shared, and single events go round (rules D6, D8, N2)."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from dtimer import DTimer, Event, Post
from dtimer.backends.redis import RedisBackend
from support.processes import node_processes
from support.servers import Server
from support.waiting import POLL_S, until
from support.worlds import NAMESPACE, World

NODES = [f"n{number}" for number in range(8)]
SINGLES = 30


async def test_of_eight_full_nodes_each_gets_one_of_eight_events(world: World) -> None:
    """Each has room for one, and holds it until all are out: an event never waits for a full node (rule D8)."""
    gate = asyncio.Event()

    async def hold(event: Event) -> None:
        while not gate.is_set():
            await world.sleep(5)

    nodes = [await world.node(name, hold, max_events=1) for name in NODES]
    await world.timer().post_many(Post(payload=number, delay=100, id=str(number)) for number in range(8))
    await world.until(lambda: sum(len(node.events) for node in nodes) >= 8)
    gate.set()

    assert [len(node.events) for node in nodes] == [1] * 8
    assert Counter(id for node in nodes for id in node.ids) == Counter(map(str, range(8)))
    await world.until(lambda: all(node.timer.counters.claims for node in nodes))
    assert await world.nothing_is_kept()


async def test_thirty_single_events_go_round_three_nodes(world: World) -> None:
    """Ten each, in the order of the ring (rule D6)."""
    nodes = [await world.node(name) for name in NODES[:3]]
    timer = world.timer()
    takers: list[str] = []
    for number in range(SINGLES):
        await timer.post(number, 5)
        await world.taken(number + 1, *nodes)
        takers += [node.id for node in nodes if len(node.events) > takers.count(node.id)]
        await world.passes(5)

    assert takers == NODES[:3] * (SINGLES // 3)
    assert [len(node.events) for node in nodes] == [SINGLES // 3] * 3


@pytest.mark.once
@pytest.mark.any_server
async def test_of_eight_full_processes_each_gets_one_of_eight_events(server: Server) -> None:
    """The same where the store alone connects the nodes."""
    async with (
        node_processes(server.url, NAMESPACE, NODES, 1) as nodes,
        RedisBackend.from_url(server.url, NAMESPACE) as backend,
    ):
        await DTimer(backend).post_many(Post(payload={"hold": True}, delay=100, id=str(n)) for n in range(8))
        await until(lambda: sum(len(node.got) for node in nodes) >= 8)
        for node in nodes:
            node.go()

        assert [len(node.got) for node in nodes] == [1] * 8
        assert sorted(said["id"] for node in nodes for said in node.got) == [str(n) for n in range(8)]
        assert not [error for node in nodes for error in node.errors]


@pytest.mark.once
@pytest.mark.any_server
async def test_thirty_single_events_go_round_three_processes(server: Server) -> None:
    """The same where the store alone connects the nodes; which is first in the ring is up to their joins."""
    async with (
        node_processes(server.url, NAMESPACE, NODES[:3]) as nodes,
        RedisBackend.from_url(server.url, NAMESPACE) as backend,
    ):
        ring = [member.node for member in (await backend.inspect()).value.ring]
        timer = DTimer(backend)
        takers: list[str] = []
        for number in range(SINGLES):
            await timer.post({}, 5)
            while len(takers) == number:
                await asyncio.sleep(POLL_S)
                takers += [node.id for node in nodes if len(node.got) > takers.count(node.id)]
            # More than two round trips apart (rule D6).
            await asyncio.sleep(0.01)

    assert takers == ring * (SINGLES // 3)
