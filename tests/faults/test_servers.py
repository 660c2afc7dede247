"""Servers that forget, refuse, pause or are slow while events are posted and taken (F1, F5, N4, O1, D7)."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import pytest
from redis import Redis as Client

from dtimer import (
    Known,
    NodeDisturbed,
    StoreFull,
    StoreLostWrites,
    StoreNotWritable,
    StoreReadOnly,
)
from support.bounds import LATE_MS, RECONNECT_MS
from support.figures import Figure
from support.load import CONFIRM_TIMEOUT_S, under_load
from support.members import answered, full_member, logged
from support.servers import READY_TIMEOUT_S, Server, StartServer
from support.waiting import until
from support.worlds import RedisWorld

MANY: Final = 20


async def many_times(server: Server, *command: str | int, every_s: float, duration_s: float) -> int:
    """How often it was done."""
    loop = asyncio.get_running_loop()
    end, count = loop.time() + duration_s, 0
    with server.client() as client:
        while loop.time() < end:
            client.execute_command(*command)
            count += 1
            await asyncio.sleep(every_s)
    return count


async def test_scripts_that_are_forgotten_all_the_time_are_sent_again(
    one_world: RedisWorld, one_server: Server
) -> None:
    """Rule F1: that a script is unknown says that nothing ran; nobody notices anything."""
    async with under_load(one_world) as load:
        flushing = asyncio.create_task(many_times(one_server, "SCRIPT", "FLUSH", every_s=0.05, duration_s=2))
        await load.lasts(2)
        await load.drained()

        load.judge()
        assert await flushing > 10
        assert one_server.num_calls("eval") > 10
        assert not load.refused
        assert not load.unknown
        assert not any(node.errors for node in load.nodes)


async def test_connections_killed_all_the_time_lose_nothing(one_world: RedisWorld, one_server: Server) -> None:
    """Rules F1, F2 and N4: commands and subscriptions alike, ten times a second. A claim whose reply is lost costs its
    events the confirm timeout; a post whose reply is lost says that nobody knows."""
    async with under_load(one_world) as load:
        kill = ("CLIENT", "KILL", "TYPE")
        killing = [
            asyncio.create_task(many_times(one_server, *kill, kind, every_s=0.1, duration_s=2))
            for kind in ("normal", "pubsub")
        ]
        await load.lasts(2)
        await asyncio.gather(*killing)
        await load.drained()

        load.judge()
        assert not load.refused
        assert all(NodeDisturbed in node.error_types() for node in load.nodes)


@pytest.mark.once
async def test_many_nodes_outlive_the_loss_of_everything_and_besiege_nobody(
    one_world: RedisWorld, one_server: Server, figure: Figure
) -> None:
    """Rules O1 and N4: each of twenty nodes finds out by itself, reports it once, and is a member again; the server has
    to do with each of them a few times, not all the time."""
    async with under_load(one_world, MANY) as load:
        await load.timer.post("gone", 60_000, id="gone")
        before = [answered(node) for node in load.nodes]
        one_server.flush()
        looker = one_world.backend()
        members = [full_member(one_server, looker, node, since=n) for node, n in zip(load.nodes, before, strict=True)]
        back_ms = 1_000 * max(await asyncio.gather(*members))
        claims = sum(node.timer.counters.claims for node in load.nodes) - sum(before)
        joins = sum(node.timer.counters.rejoins for node in load.nodes)
        figure(back_ms=back_ms, claims=claims, joins=joins)
        await load.lasts(0.5)
        await load.drained()

        load.judge()
        assert back_ms < LATE_MS
        assert all(node.error_types() == [StoreLostWrites] for node in load.nodes)
        assert MANY <= joins <= 2 * MANY
        assert claims <= 6 * MANY


async def test_a_full_server_refuses_what_is_new_and_ends_what_it_has(
    one_private_server: StartServer, figure: Figure
) -> None:
    """Rule F5: posts are refused, applied not at all, and say so; everything acknowledged comes in time and is
    confirmed; with room again, posts work at once."""
    server = one_private_server()
    async with RedisWorld(server) as world, under_load(world) as load:
        await load.lasts(0.5)
        with server.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
            await load.lasts(1)
            await load.answered()
            client.config_set("maxmemory", 0)
        refused = set(load.refused)
        await load.lasts(0.5)
        await load.drained()
        figure(worst_lateness_ms=load.worst_ms(), refused=len(refused))

        load.judge()
        assert refused
        assert set(load.refused) == refused
        assert {type(error) for error in load.refused.values()} == {StoreFull}
        assert not load.unknown
        assert not any(node.errors for node in load.nodes)


async def test_a_node_can_join_a_full_server_and_empty_it(one_private_server: StartServer) -> None:
    """Rule F5: whoever answers a full store by starting his program anew is let in."""
    server = one_private_server()
    async with RedisWorld(server) as world:
        await world.timer().post("p", 0, id="e", max_retries=1)
        with server.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
        node = await world.node()
        await until(lambda: node.events)

        assert await node.events[0].confirm()
        await node.timer.leave()
        assert await world.nothing_is_kept()


@pytest.mark.once
async def test_a_replica_refuses_and_its_nodes_wait_for_its_promotion(
    one_private_server: StartServer, caplog: pytest.LogCaptureFixture, figure: Figure
) -> None:
    """Rules F1 and N4: posts are tried again inside until the promotion, since nothing was applied; then everything
    comes, late by the outage and a pause between two attempts."""
    server = one_private_server()
    async with RedisWorld(server) as world, under_load(world) as load:
        await load.lasts(0.5)
        with server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            await load.lasts(1)
            await until(lambda: all(node.errors for node in load.nodes))
            client.execute_command("REPLICAOF", "NO", "ONE")
        await until(lambda: all(node.timer.counters.reconnects for node in load.nodes))
        await load.lasts(0.5)
        await load.drained()
        figure(worst_lateness_ms=load.worst_ms(), refused=len(load.refused))

        load.judge(late_ms=1_000 + RECONNECT_MS + LATE_MS)
        assert not load.refused
        for node in load.nodes:
            # A refused confirm that is not awaited is reported, too; its event comes again.
            assert set(node.error_types()) <= {NodeDisturbed, StoreReadOnly}
            assert node.error_types().count(NodeDisturbed) == 1
        assert len(logged(caplog)) == 2 * len(load.nodes)


@contextmanager
def no_replica(server: Server) -> Generator[None]:
    """The server asks for a replica before it writes, and has none."""
    with server.client() as client:
        client.config_set("min-replicas-to-write", 1)
        yield
        client.config_set("min-replicas-to-write", 0)


@contextmanager
def no_snapshot(server: Server) -> Generator[None]:
    """The server cannot write its snapshot: a folder stands in its place."""
    in_the_way = server.folder / "dump.rdb" / "in the way"
    with server.client() as client:
        client.config_set("save", "3600 1000000")
        (server.folder / "dump.rdb").unlink(missing_ok=True)
        in_the_way.mkdir(parents=True)
        _snapshot(client, "err")
        yield
        shutil.rmtree(server.folder / "dump.rdb")
        _snapshot(client, "ok")


def _snapshot(client: Client, status: str) -> None:
    client.bgsave()
    by = time.monotonic() + READY_TIMEOUT_S
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        assert time.monotonic() < by
        time.sleep(0.005)
    assert client.info("persistence")["rdb_last_bgsave_status"] == status


@pytest.mark.parametrize("writes_stopped", [no_replica, no_snapshot])
async def test_a_server_that_takes_no_writes_for_a_while_is_waited_for(
    one_private_server: StartServer,
    caplog: pytest.LogCaptureFixture,
    figure: Figure,
    writes_stopped: Callable[[Server], AbstractContextManager[None]],
) -> None:
    """Rules F1 and N4: calls are tried again inside, since nothing was applied, and events are late by the time that
    it takes."""
    server = one_private_server()
    async with RedisWorld(server) as world, under_load(world) as load:
        await load.lasts(0.5)
        with writes_stopped(server):
            await load.lasts(1)
            await until(lambda: all(node.errors for node in load.nodes))
        await until(lambda: all(node.timer.counters.reconnects for node in load.nodes))
        await load.lasts(0.5)
        await load.drained()
        figure(worst_lateness_ms=load.worst_ms(), refused=len(load.refused))

        load.judge(late_ms=1_000 + RECONNECT_MS + LATE_MS)
        assert not load.refused
        assert not load.unknown
        for node in load.nodes:
            assert set(node.error_types()) <= {NodeDisturbed, StoreNotWritable}
            assert node.error_types().count(NodeDisturbed) == 1
        assert len(logged(caplog)) == 2 * len(load.nodes)


async def test_a_server_that_takes_no_writes_for_long_says_so(one_private_server: StartServer) -> None:
    """Rule F1: after some seconds, with the server's own words, and that nothing was applied."""
    server = one_private_server()
    async with RedisWorld(server) as world:
        await world.timer().post("p", 60_000)
        with no_replica(server), pytest.raises(StoreNotWritable, match="NOREPLICAS") as caught:
            await world.timer().post("q", 60_000)

        assert caught.value.known is Known.NOT_APPLIED
        assert (await world.inspect()).live == 1


# --- time that stands still ----------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("kind", ["ALL", "WRITE"])
async def test_a_server_that_lets_its_clients_wait_makes_events_late_by_that(
    one_world: RedisWorld, one_server: Server, kind: str, figure: Figure
) -> None:
    """Rule D7: late by the pause, nothing lost, nothing reported: it is shorter than the time limit of a request."""
    async with under_load(one_world) as load:
        await load.lasts(0.3)
        with one_server.client() as client:
            client.execute_command("CLIENT", "PAUSE", 1_000, kind)
        await load.lasts(1.5)
        await load.drained()
        figure(worst_lateness_ms=load.worst_ms(), pause_ms=1_000)

        load.judge(late_ms=1_000 + LATE_MS)
        assert not load.refused
        assert not load.unknown
        assert not any(node.errors for node in load.nodes)


@pytest.mark.once
@pytest.mark.parametrize("request_timeout_s", [5.0, 0.5])
async def test_a_server_that_is_frozen_makes_events_late_by_that(
    one_private_server: StartServer, request_timeout_s: float, figure: Figure
) -> None:
    """Rules D7, F1 and F2: with requests that wait longer than it is frozen nothing else happens. With shorter ones
    outcomes are unknown, and claims that it executes afterwards for nobody cost their events the confirm timeout."""
    server = one_private_server()
    short = request_timeout_s < 1
    async with (
        RedisWorld(server) as world,
        under_load(world, backend=lambda: world.backend(request_timeout=request_timeout_s)) as load,
    ):
        await load.lasts(0.3)
        server.pause()
        await load.lasts(1.5)
        server.resume()
        await load.lasts(0.3)
        await load.drained()
        figure(worst_lateness_ms=load.worst_ms(), pause_ms=1_500, unknown=len(load.unknown))

        load.judge(late_ms=1_500 + RECONNECT_MS + 1_000 * CONFIRM_TIMEOUT_S + LATE_MS)
        assert bool(load.unknown) is short
        assert all(node.error_types() == [NodeDisturbed] * short for node in load.nodes)
