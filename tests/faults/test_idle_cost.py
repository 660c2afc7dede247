"""What a namespace at rest costs its server, and how late events are in health (W1, D7)."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from typing import Final

import pytest

from dtimer.limits import POLL_MAX_US, SECOND_US
from support.bounds import LATE_MS
from support.figures import Figure
from support.processes import START_TIMEOUT_S, NodeProcess, node_process
from support.servers import Server, StartServer
from support.waiting import until
from support.worlds import NAMESPACE, RedisWorld, lateness_ms

NODES: Final = (1, 4, 50)
MEASURED_S: Final = 10.0
CALLS_PER_S: Final = 2.0
"""For the namespace; beyond that each node may call once in `POLL_MAX_US`, as its sign of life."""
NOISE_FACTOR: Final = 2.0
"""On a busy host a pulse takes longer to be heard, and more nodes look before they hear it. If none heeded pulses, each
would make more than one call a second."""

FROM_CLIENTS: Final = {"evalsha", "eval", "ping", "subscribe"}
FROM_THE_TEST: Final = {"info", "client|list"}


def calls(server: Server) -> tuple[int, int]:
    """What nodes have asked for, and what their scripts have done inside, by the server's own count."""
    with server.client() as client:
        stats = client.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}
    asked = sum(number for name, number in counts.items() if name in FROM_CLIENTS)
    return asked, sum(counts.values()) - asked - sum(counts.get(name, 0) for name in FROM_THE_TEST)


@pytest.mark.once
async def test_a_namespace_at_rest_costs_two_calls_a_second_and_a_sign_of_life_for_each_node(
    one_private_server: StartServer, figure: Figure
) -> None:
    """Rule W1: whatever the number of nodes; each has two connections, and none does anything else."""
    async with AsyncExitStack() as stack:
        servers: dict[int, Server] = {}
        processes: list[NodeProcess] = []
        for number in NODES:
            server = servers[number] = one_private_server()
            names = [f"n{index}" for index in range(number)]
            processes += [
                await stack.enter_async_context(
                    node_process(server.url, NAMESPACE, ",".join(names[first : first + 10]))
                )
                for first in range(0, number, 10)
            ]
        await until(lambda: all(process.ready for process in processes), timeout_s=START_TIMEOUT_S)
        before = {number: calls(server) for number, server in servers.items()}
        started = time.monotonic()
        await asyncio.sleep(MEASURED_S)
        elapsed_s = time.monotonic() - started
        for number, server in servers.items():
            asked, inside = ((now - then) / elapsed_s for now, then in zip(calls(server), before[number], strict=True))
            with server.client() as client:
                own = client.client_id()
                connections = [entry for entry in client.client_list() if int(entry["id"]) != own]
            figure(nodes=number, calls_per_s=asked, inside_per_s=inside)

            # A window of ten seconds has one sign of life of each node, at most.
            assert asked <= NOISE_FACTOR * (CALLS_PER_S + number * SECOND_US / POLL_MAX_US)
            assert asked > 0.5
            # One for calls and one for wake-ups; the look at the settings may have opened one more.
            assert sum(int(entry["sub"]) == 2 for entry in connections) == number
            assert number <= sum(int(entry["sub"]) == 0 for entry in connections) <= 2 * number
        assert not any(process.errors for process in processes)


@pytest.mark.once
async def test_events_in_health_are_on_time(one_world: RedisWorld, figure: Figure) -> None:
    """Rule D7: a measure, which the documentation quotes; only what is broken fails here."""
    nodes = [await one_world.node(name) for name in "abc"]
    timer = one_world.timer()
    for number in range(200):
        await timer.post(number, 20, id=str(number))
        await asyncio.sleep(0.01)
    await one_world.taken(200, *nodes)
    late = sorted(lateness_ms(event) for node in nodes for event in node.events)
    figure(p50_ms=statistics.median(late), p99_ms=late[197], max_ms=late[-1])

    assert late[0] >= 0
    assert late[-1] < LATE_MS
