"""Servers that are killed and started again under load, with and without a log on disk (N4, O1, F1)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import dtimer.node.session
from dtimer import DTimer, DTimerError, NodeDisturbed, StoreBusy, StoreLostWrites, StoreRestarted
from dtimer.limits import SECOND_US
from support.bounds import LATE_MS, RECONNECT_MS
from support.figures import Figure
from support.load import Load, under_load
from support.members import answered, full_member, logged
from support.servers import Server, StartServer
from support.waiting import until
from support.worlds import RedisWorld

AWAY_S = 0.5
LOADING_S = 20
EVERYSEC_S = 1.0
"""What `appendfsync everysec` may lose with its host, and no more as a rule."""


def log_file(server: Server) -> Path:
    """The append-only file that is being written."""
    (file,) = [path for path in server.folder.rglob("appendonly*aof") if not path.name.endswith("base.aof")]
    return file


async def restarted(server: Server, away_s: float = AWAY_S) -> None:
    server.kill()
    await asyncio.sleep(away_s)
    server.start()


async def killed_under(load: Load, server: Server) -> None:
    """Kill the server while events are posted and received, start it again, and let all that it has come."""
    await load.lasts(0.7)
    await until(lambda: load.acked)  # without an answer from before, the poster has nothing to compare with
    async with asyncio.TaskGroup() as group:
        group.create_task(load.lasts(AWAY_S))
        await restarted(server)
    await load.lasts(1)
    await load.drained()


async def test_a_kill_of_a_server_with_a_log_loses_nothing(
    one_private_server: StartServer, caplog: pytest.LogCaptureFixture, figure: Figure
) -> None:
    """Rules N4, O1 and F1: every acknowledged event comes, late by the outage at most; posts that nobody answered are
    `OutcomeUnknown`, or were repeated inside."""
    server = one_private_server(appendonly="yes", appendfsync="always")
    async with RedisWorld(server) as world, under_load(world) as load:
        await killed_under(load, server)
        figure(worst_lateness_ms=load.worst_ms(), events=len(load.acked), unknown=len(load.unknown))

        load.judge(late_ms=AWAY_S * 1_000 + RECONNECT_MS + LATE_MS)
        assert not load.refused
        assert {kind for node in load.nodes for kind in node.error_types()} == {NodeDisturbed, StoreRestarted}
        # One line when it goes and one when it is back, for each node, and one for the timer that only posts (O2).
        assert len(logged(caplog)) == 2 * len(load.nodes) + 1


async def test_a_kill_of_a_server_that_syncs_every_second_loses_nothing_untold(
    one_private_server: StartServer, figure: Figure
) -> None:
    """Rules O1 and O2: the kernel keeps what the process has written, but while a slow disk syncs, the server does not
    write: what it acknowledges meanwhile dies with it, for up to 2 s. The poster is told what it has lost then."""
    server = one_private_server(appendonly="yes", appendfsync="everysec")
    told: list[DTimerError] = []
    async with RedisWorld(server) as world, under_load(world) as load:
        load.timer.on("error", told.append)
        await killed_under(load, server)
        named = [id for error in told if isinstance(error, StoreLostWrites) for call in error.calls for id in call.ids]
        rolled_back = [node for node in load.nodes if StoreLostWrites in node.error_types()]
        figure(lost=len(load.lost()), named=len(named), rolled_back=len(rolled_back))

        assert set(load.lost()) <= set(named)
        if not named and not rolled_back:
            load.judge(late_ms=AWAY_S * 1_000 + RECONNECT_MS + LATE_MS)


@pytest.mark.once
async def test_a_lost_second_of_the_log_loses_that_second_and_is_noticed(
    one_private_server: StartServer, figure: Figure
) -> None:
    """Rule O1: what a power failure does to `everysec` is done here by cutting off what was written after a moment.
    Everything acknowledged before comes; the nodes report that writes were lost, and go on."""
    # With `no` the log has at that moment all that was acknowledged, even on a slow disk.
    server = one_private_server(appendonly="yes", appendfsync="no", aof_load_truncated="yes")
    async with RedisWorld(server) as world, under_load(world) as load:
        await load.lasts(0.7)
        synced, kept = log_file(server).stat().st_size, len(load.acked)
        await load.lasts(0.6 * EVERYSEC_S)
        server.kill()
        with log_file(server).open("r+b") as file:
            file.truncate(synced)
        server.start()
        await load.lasts(0.5)
        await load.drained()
        lost = load.lost()
        figure(lost=len(lost), acknowledged=len(load.acked))

        assert not set(lost) & set(load.acked[:kept])
        assert len(lost) <= 0.6 / 0.01 + 10
        for node in load.nodes:
            assert node.error_types().count(StoreLostWrites) == 1
        assert min(event.lateness.total_seconds() for event in load.events) >= 0


@pytest.mark.once
async def test_a_server_without_a_log_comes_back_empty_and_gets_its_nodes_back(
    one_private_server: StartServer, figure: Figure
) -> None:
    """Rules O1 and N4: what was acknowledged before is lost, which is reported once by each node; what is acknowledged
    afterwards comes, and on time."""
    server = one_private_server()
    async with RedisWorld(server) as world, under_load(world) as load:
        await load.timer.post("gone", 5_000, id="gone")
        server.kill()
        before = [answered(node) for node in load.nodes]
        await asyncio.sleep(AWAY_S)
        server.start()
        looker = world.backend()
        coming = [full_member(server, looker, node, since=n) for node, n in zip(load.nodes, before, strict=True)]
        took = await asyncio.gather(*coming)
        figure(back_ms=1_000 * max(took))
        await load.lasts(0.5)
        await load.drained()

        load.judge()
        assert "gone" not in {event.id for event in load.events}
        assert 1_000 * max(took) < RECONNECT_MS + LATE_MS
        for node in load.nodes:
            assert sorted(kind.__name__ for kind in node.error_types()) == ["NodeDisturbed", "StoreLostWrites"]


@pytest.mark.once
async def test_a_server_that_still_loads_its_data_is_waited_for(
    one_private_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule F1: it answers that it is busy, so nothing was applied; posts are repeated inside, and nodes come back.
    The time for repetitions is longer here, since a busy host loads slowly."""
    monkeypatch.setattr(dtimer.node.session, "REPEAT_WITHIN_US", LOADING_S * SECOND_US)
    server = one_private_server(
        appendonly="yes", appendfsync="always", key_load_delay="100", loading_process_events_interval_bytes="1024"
    )
    with server.client() as client, client.pipeline(transaction=False) as ballast:
        for number in range(12_000):
            ballast.set(f"ballast{number}", "x")
        ballast.execute()
    async with RedisWorld(server) as world, under_load(world) as load:
        await load.lasts(0.2)
        await load.drained()
        server.restart()
        with pytest.raises(StoreBusy, match="LOADING"):
            await world.backend().open()
        await load.lasts(0.3)
        await load.drained()

        load.judge(late_ms=LOADING_S * 1_000 + LATE_MS)
        assert not load.refused
        assert not load.unknown


async def test_a_timer_that_only_posts_outlives_a_restart(one_private_server: StartServer) -> None:
    """Rule F1: it has no node to notice anything for it."""
    server = one_private_server(appendonly="yes", appendfsync="always")
    async with RedisWorld(server) as world:
        timer: DTimer = DTimer(world.backend())
        await timer.post("p", 60_000, id="before")
        await restarted(server, 0)
        await timer.post("p", 60_000, id="after")

        assert [entry.id for entry in await timer.upcoming()] == ["before", "after"]
        assert timer.counters.lost_writes == 0
