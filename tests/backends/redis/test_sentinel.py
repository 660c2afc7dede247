"""Sentinel: nodes find the master wherever it is, and come back by themselves when it is another one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis, Sentinel
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from dtimer import DTimer, StoreLostWrites, StoreRestarted, StoreUnreachable
from dtimer.backends.redis import RedisBackend
from dtimer.backends.redis.config import ConnectionSettings, SentinelSettings, client_settings
from dtimer.backends.redis.pool import Pool
from dtimer.backends.redis.sentinel import SentinelMaster
from support.proxy import Proxy
from support.sentinel import SERVICE, Watched, watched
from support.servers import HOST, Binary, Server, server_binaries
from support.steady_load import Load, under_load
from support.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.once

BACK_WITHIN_S = 6.0
"""From the promotion until a node is a full member again; what is promised is the longest pause, 2 s, and a connect.
Sentinels themselves end the connections to a former master, which must not be what helps: after 8 s and more."""
FAILOVER_S = 60.0
"""In which sentinels of which each takes 1.5 s to see that a master is down have made another, although they write to a
slow disk before each vote, and may need several elections, 8 s apart."""


def some_servers() -> list[Binary]:
    """The newest program found and the oldest: each takes five processes and some seconds."""
    found = server_binaries()
    return list(dict.fromkeys([*found[:1], *found[-1:]]))


@pytest.fixture(scope="module", params=some_servers(), ids=lambda binary: binary.name)
def setup(request: pytest.FixtureRequest) -> Iterator[Watched]:
    with watched(request.param) as setup:
        yield setup


@pytest.fixture
async def backend(setup: Watched) -> AsyncIterator[RedisBackend]:
    setup.heal()
    with setup.master.client() as client:
        client.flushall()
    backend = setup.backend()
    yield backend
    await backend.close()


# --- what is taken from the application's client ------------------------------------------------------


def test_addresses_and_credentials_are_taken() -> None:
    """Of the sentinels and of the master; nothing else."""
    manager = Sentinel(
        [("one", 1), ("two", 2)], 1, sentinel_kwargs={"password": "s"}, force_master_ip="tunnel", password="m"
    )

    settings = client_settings(manager.master_for("x", db=2, username="u", decode_responses=True))

    assert isinstance(settings, SentinelSettings)
    assert (settings.service, settings.min_other_sentinels, settings.host_forced) == ("x", 1, "tunnel")
    assert [str(sentinel) for sentinel in settings.sentinels] == ["one:1", "two:2"]
    assert all(sentinel.connection().password == "s" for sentinel in settings.sentinels)
    connection = settings.master.at("h", 3).connection()
    assert type(connection) is Connection
    assert (connection.host, connection.port, connection.db) == ("h", 3, 2)
    assert (connection.username, connection.password) == ("u", "m")
    assert not connection.encoder.decode_responses
    assert connection.retry.get_retries() == 0


def test_tls_settings_are_taken() -> None:
    manager = Sentinel([("one", 1)], sentinel_kwargs={"ssl": True, "ssl_ca_certs": "sca"})

    settings = client_settings(manager.master_for("x", ssl=True, ssl_ca_certs="mca", ssl_cert_reqs="none"))

    assert isinstance(settings, SentinelSettings)
    sentinel, master = settings.sentinels[0].connection(), settings.master.at("h", 3).connection()
    assert isinstance(sentinel, SSLConnection)
    assert isinstance(master, SSLConnection)
    assert (sentinel.ca_certs, master.ca_certs, master.cert_reqs) == ("sca", "mca", ssl.CERT_NONE)


# --- finding the master ---------------------------------------------------------------------------------


def place(setup: Watched, *addresses: tuple[str, int], service: str = SERVICE, **options: Any) -> SentinelMaster:
    client = Sentinel([*addresses, *setup.addresses], **options).master_for(service)
    settings = client_settings(client)
    assert isinstance(settings, SentinelSettings)
    return SentinelMaster(settings)


async def test_sentinels_that_are_no_use_are_passed_over(setup: Watched) -> None:
    """One that is gone, one that is something else, one that is silent; wherever in the list they stand."""
    async with Proxy(setup.sentinels[0].port) as silent:
        silent.stall()
        master = place(setup, (HOST, 1), (HOST, setup.master.port), (HOST, silent.port))

        for _ in range(4):
            assert (await master.locate()).arguments["port"] == setup.master.port


async def test_a_sentinel_that_sees_too_few_others_is_not_believed(setup: Watched) -> None:
    """It may be cut off from the rest, with the old master."""
    with pytest.raises(RedisConnectionError, match="only 2 other"):
        await place(setup, min_other_sentinels=3).locate()


async def test_an_unknown_service_is_unreachable_and_named(setup: Watched) -> None:
    """It is said which one, and by whom."""
    backend = RedisBackend(Sentinel(setup.addresses).master_for("nobodys"))
    async with asyncio.timeout(TIMEOUT_S):
        with pytest.raises(StoreUnreachable, match=r"nobodys.*No such master"):
            await backend.open()
    await backend.close()


async def test_a_replica_is_not_taken_for_the_master(setup: Watched, backend: RedisBackend) -> None:
    """A sentinel that has not heard of a failover names what is a replica by now: nothing is sent there."""
    named = await place(setup).locate()

    class Stale:
        async def locate(self) -> ConnectionSettings:
            return named.at(HOST, setup.replica.port)

    connections = Pool(Stale())
    with pytest.raises(StoreUnreachable, match="is no master"):
        await connections.request("peek", b"GET", "k")
    await connections.close()


# --- failing over -----------------------------------------------------------------------------------------


async def full_member(load: Load, server: Server) -> None:
    """The store can reach it by an announcement, and it takes what is due: all on this server."""
    with server.client() as client:

        def listens() -> bool:
            epoch = client.hget("{dt}:meta", "epoch")
            name = epoch.decode() if isinstance(epoch, bytes) else ""
            channel = f"{{dt}}:{name}:n:{load.timer.node_id}"
            return bool(
                client.pubsub_numsub(channel)[0][1] == 1
                and client.zscore("{dt}:ring", str(load.timer.node_id)) is not None
            )

        await until(listens, timeout_s=BACK_WITHIN_S)
        ahead = len(load.acknowledged)
        await until(lambda: len(load.acknowledged) > ahead + 5, timeout_s=BACK_WITHIN_S)
        later = load.acknowledged[ahead + 2 :]
        await until(lambda: not load.missing(later), timeout_s=BACK_WITHIN_S)


def replicated(setup: Watched, load: Load) -> list[str]:
    """What has been acknowledged up to now and is on the replica for certain."""
    acknowledged = list(load.acknowledged)
    with setup.master.client() as client:
        client.incr("probe")  # WAIT is about this connection's own last write; what others wrote came before it
        assert client.wait(1, 5_000) == 1
    return acknowledged


async def test_a_node_follows_a_master_that_was_moved_by_command(setup: Watched, backend: RedisBackend) -> None:
    """The old one lives on as a replica, with all connections standing: requests are refused there, and lead to the
    new one; and so does the subscription, or the new one's announcements would reach nobody (N3)."""
    async with under_load(lambda: DTimer(backend, node_id="n")) as load:
        await until(lambda: len(load.delivered) > 20)
        old = setup.master

        await asyncio.to_thread(setup.fail_over)

        new = setup.master
        assert new is not old
        await full_member(load, new)
        with old.client() as client:
            await until(lambda: not client.pubsub_channels("{dt}:*"))


async def test_nothing_replicated_is_lost_when_the_master_dies(setup: Watched, backend: RedisBackend) -> None:
    """F12, F13 of any store: what only the dead one had is gone, all else is delivered, and nodes are back."""
    async with under_load(lambda: DTimer(backend, node_id="n")) as load:
        await until(lambda: len(load.delivered) > 20)
        old = setup.master
        safe = replicated(setup, load)
        old.kill()
        await until(lambda: setup.master_port() != old.port, timeout_s=FAILOVER_S)

        await full_member(load, setup.master)
        await until(lambda: not load.missing(safe), timeout_s=BACK_WITHIN_S)

    assert all(error.operation == "post" for error in load.failed.values())


async def test_lost_writes_are_noticed_and_reported(setup: Watched, backend: RedisBackend) -> None:
    """O1: a replica that lacks the last acknowledged writes becomes the master, and its history goes back."""
    async with DTimer(backend, node_id="n") as timer:
        reports: list[Exception] = []
        timer.on("error", reports.append)
        await timer.post("on both", 3_600_000, id="kept")
        old = setup.master
        only_on_the_master(setup)
        for number in range(20):
            await timer.post("on the master only", 3_600_000, id=f"lost-{number}")
        old.kill()
        await until(lambda: setup.master_port() != old.port, timeout_s=FAILOVER_S)

        await until(lambda: any(isinstance(report, StoreLostWrites) for report in reports), timeout_s=BACK_WITHIN_S)

        assert timer.counters.lost_writes == 1
        assert [entry.id for entry in await timer.upcoming()] == ["kept"]
        await until(lambda: timer.counters.rejoins >= 1)
        taken: list[str] = []
        timer.on("event", lambda event: taken.append(event.id))
        await timer.post("now", 0, id="new")
        await until(lambda: taken == ["new"])


def wait_for_the_replica(setup: Watched) -> None:
    """It has all that was written so far: that it is connected says less."""
    with setup.master.client() as client:
        client.incr("probe")
        assert client.wait(1, 5_000) == 1


def only_on_the_master(setup: Watched) -> None:
    """What is written from now on; what was before is on both."""
    wait_for_the_replica(setup)
    with setup.replica.client() as client:
        client.replicaof(HOST, 1)  # no server answers there, so it stays a replica


async def test_a_failover_tells_whose_calls_are_lost(setup: Watched, backend: RedisBackend) -> None:
    """O2: a single one, whose number its own next call has again; another timer hears that it has lost nothing."""
    other = setup.backend()
    told: dict[str, list[Exception]] = {"loser": [], "other": []}
    loser, spared = DTimer(backend), DTimer(other)
    loser.on("error", told["loser"].append)
    spared.on("error", told["other"].append)
    await loser.post("on both", 3_600_000, id="kept")
    await spared.post("on both", 3_600_000, id="other")
    only_on_the_master(setup)
    await loser.post("on the master only", 3_600_000, id="lost")
    old = setup.master
    old.kill()
    await until(lambda: setup.master_port() != old.port, timeout_s=FAILOVER_S)

    await loser.post("on the new one", 3_600_000, id="new", repeat_within=BACK_WITHIN_S)
    await spared.post("on the new one", 3_600_000, id="newer", repeat_within=BACK_WITHIN_S)

    (report,) = told["loser"]
    assert isinstance(report, StoreLostWrites)
    assert [(call.operation, call.ids) for call in report.calls] == [("post", ("lost",))]
    assert [type(each) for each in told["other"]] == [StoreRestarted]
    assert {entry.id for entry in await spared.upcoming()} == {"kept", "other", "new", "newer"}
    await other.close()


async def test_a_failover_that_loses_nothing_is_not_said_to(setup: Watched, backend: RedisBackend) -> None:
    """O2: there and back again, so that the first server answers once more, as another one."""
    timer = DTimer(backend)
    told: list[Exception] = []
    timer.on("error", told.append)
    for turn in range(2):
        await timer.post("kept", 3_600_000, id=f"kept-{turn}", repeat_within=BACK_WITHIN_S)
        await asyncio.to_thread(setup.heal)
        wait_for_the_replica(setup)
        await asyncio.to_thread(setup.fail_over)
    await timer.post("kept", 3_600_000, id="last", repeat_within=BACK_WITHIN_S)

    assert [type(each) for each in told] == [StoreRestarted] * 2
    assert {entry.id for entry in await timer.upcoming()} == {"kept-0", "kept-1", "last"}


async def test_without_sentinels_nothing_can_be_reached() -> None:
    """And the error says what was tried."""
    backend = RedisBackend(Sentinel([(HOST, 1)]).master_for("x"))
    async with asyncio.timeout(TIMEOUT_S):
        with pytest.raises(StoreUnreachable, match=r"no sentinel names a master 'x' \(127.0.0.1:1: "):
            await backend.open()
    await backend.close()


async def test_the_applications_clients_are_neither_used_nor_closed(setup: Watched, backend: RedisBackend) -> None:
    """As for a single server."""
    manager = Sentinel(setup.addresses)
    client: Redis = manager.master_for(SERVICE)
    async with RedisBackend(client, "other") as other:
        assert (await other.inspect()).value.live == 0
    assert await client.ping()
    await client.aclose()
    await manager.aclose()
