"""What a store has lost of what it acknowledged is told to each timer, and nothing else is said to be lost (O2)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from dtimer import (
    AcknowledgedCall,
    DTimer,
    DTimerError,
    NodeDisturbed,
    RedisBackend,
    StoreLostWrites,
    StoreRestarted,
)
from support.servers import Server, StartServer
from support.waiting import until
from support.worlds import RedisWorld

HOUR_MS: Final = 3_600_000
TOLD: Final = (StoreLostWrites, StoreRestarted)


def log_file(server: Server) -> Path:
    """The append-only file that is being written."""
    (file,) = [path for path in server.folder.rglob("appendonly*aof") if not path.name.endswith("base.aof")]
    return file


def cut_back(server: Server, size: int) -> None:
    """Kill the server, take what was written since from its log, and start it again."""
    server.kill()
    with log_file(server).open("r+b") as file:
        file.truncate(size)
    server.start()


class Poster:
    """A timer that only posts, with all that it was told."""

    def __init__(self, backend: RedisBackend) -> None:
        self.backend = backend
        self.timer = DTimer(backend)
        self.told: list[DTimerError] = []
        self.timer.on("error", self.told.append)

    async def post(self, *ids: str) -> None:
        for id in ids:
            await self.timer.post(id, HOUR_MS, id=id, repeat_within=20)

    def lost(self) -> list[AcknowledgedCall]:
        return [call for told in self.told if isinstance(told, StoreLostWrites) for call in told.calls]

    def lost_ids(self) -> list[str]:
        return [id for call in self.lost() for id in call.ids]

    def kinds(self) -> list[type[DTimerError]]:
        return [type(told) for told in self.told]


@asynccontextmanager
async def posting(server: Server, **options: Any) -> AsyncIterator[Poster]:
    backend = RedisBackend.from_url(server.url, "dt", **options)
    yield Poster(backend)
    await backend.close()


async def live(poster: Poster) -> set[str]:
    return {entry.id for entry in await poster.timer.upcoming()}


@pytest.mark.parametrize("count", [1, 2, 30])
async def test_a_poster_is_told_which_of_its_posts_a_cut_log_has_lost(
    one_private_server: StartServer, count: int
) -> None:
    """By the first reply that it gets, which may have the very number of what was lost; and by no other."""
    server = one_private_server(appendonly="yes", appendfsync="no")
    async with posting(server) as poster, posting(server) as other:
        await poster.post("kept")
        await other.post("other")
        size = log_file(server).stat().st_size
        lost = [f"lost-{number}" for number in range(count)]
        await poster.post(*lost)
        cut_back(server, size)
        await poster.post("new")

        assert poster.kinds() == [StoreLostWrites]
        assert poster.lost_ids() == lost
        assert {call.operation for call in poster.lost()} == {"post"}
        assert await live(poster) == {"kept", "other", "new"}
        await other.post("another")
        assert other.kinds() == [StoreRestarted]
        await poster.post("newer")
        assert len(poster.told) == len(other.told) == 1
        assert poster.timer.counters.lost_writes == other.timer.counters.store_restarts == 1


async def test_ten_nodes_and_a_poster_are_all_told_of_ten_lost_posts(one_private_server: StartServer) -> None:
    """The nodes' own calls after the restart fill the gap in the numbers before anyone looks."""
    server = one_private_server(appendonly="yes", appendfsync="no")
    async with RedisWorld(server) as world, posting(server) as poster:
        nodes = [await world.node() for _ in range(10)]
        await poster.post("kept")
        size = log_file(server).stat().st_size
        lost = [f"lost-{number}" for number in range(10)]
        await poster.post(*lost)
        cut_back(server, size)
        await until(lambda: all(any(isinstance(told, TOLD) for told in node.errors) for node in nodes))
        await poster.post("new")

        assert poster.kinds() == [StoreLostWrites]
        assert poster.lost_ids() == lost
        for node in nodes:
            assert sum(isinstance(told, TOLD) for told in node.errors) == 1


async def test_each_partition_tells_of_its_own(one_private_server: StartServer) -> None:
    server = one_private_server(appendonly="yes", appendfsync="no")
    async with posting(server, partitions=2) as poster:
        await poster.post("a", "b", "c", "d")
        size = log_file(server).stat().st_size
        await poster.post("e")
        cut_back(server, size)
        await poster.post("f", "g", "h", "i")

        assert sorted(kind.__name__ for kind in poster.kinds()) == ["StoreLostWrites", "StoreRestarted"]
        assert poster.lost_ids() == ["e"]


@pytest.mark.parametrize("how", ["kill with a log that is always on disk", "end with a snapshot"])
async def test_a_restart_that_loses_nothing_is_not_said_to(one_private_server: StartServer, how: str) -> None:
    """Nodes and posters hear that there was one."""
    logged = "log" in how
    server = one_private_server(**{"appendonly": "yes", "appendfsync": "always"} if logged else {})
    async with RedisWorld(server) as world, posting(server) as poster:
        nodes = [await world.node() for _ in range(3)]
        ids = [f"kept-{number}" for number in range(20)]
        for _ in range(3):
            await poster.post(*ids)
            if logged:
                server.kill()
            else:
                with server.client() as client:
                    client.shutdown(save=True)
                server.stop()
            server.start()
        await poster.post("last")

        assert await live(poster) == {*ids, "last"}
        assert poster.kinds() == [StoreRestarted] * 3
        assert "nothing is lost" in str(poster.told[0])
        await until(lambda: all(StoreRestarted in node.error_types() for node in nodes))
        for node in nodes:
            assert set(node.error_types()) == {NodeDisturbed, StoreRestarted}


async def test_where_info_is_denied_what_may_be_lost_is_said(one_private_server: StartServer) -> None:
    """While a connection lasts the server has not been restarted; after that nothing is certain."""
    server = one_private_server(appendonly="yes", appendfsync="always")

    def user() -> None:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "shy", "on", ">secret", "~*", "&*", "+@all", "-info")

    user()
    url = server.url.replace("redis://", "redis://shy:secret@")
    backend = RedisBackend.from_url(url, "dt")
    poster = Poster(backend)
    await poster.post("a", "b")
    with server.client() as client:
        client.client_kill_filter(_type="normal")
    await poster.post("c")
    (first,) = poster.told
    assert isinstance(first, StoreRestarted)
    assert [call.ids for call in first.perhaps_lost] == [("a",), ("b",)]
    assert "INFO" in str(first)

    server.kill()
    server.start()
    user()
    await poster.post("d", "e")
    assert [call.ids for told in poster.told if isinstance(told, StoreRestarted) for call in told.perhaps_lost] == [
        ("a",),
        ("b",),
        ("c",),
    ]
    assert set(poster.kinds()) == {StoreRestarted}
    await backend.close()


async def test_an_old_connection_of_a_server_with_a_new_name_begins_no_branch(one_private_server: StartServer) -> None:
    """A server gets another replication id when it was a replica in between, and its connections may last."""
    server = one_private_server()
    async with posting(server) as poster, posting(server) as other:
        await poster.post("a")
        with server.client() as client:
            client.replicaof("127.0.0.1", 1)
            client.replicaof("NO", "ONE")
        await other.post("b")
        await poster.post("c")
        await other.post("d")

        names = [branch.server for branch in (await other.backend.branches()).value]
        assert len(names) == 2
        assert poster.told == other.told == []
