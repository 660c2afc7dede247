"""Posts that wait until they are on replicas or on disk, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest
from redis import ResponseError
from redis.asyncio import Redis

from dtimer import DTimer, Durable, InvalidArgument, Known, NotDurable, Post, SimBackend
from dtimer.backends.redis import RedisBackend
from support.servers import HOST, Server, StartServer
from support.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.once

LATER_MS = 1_000_000


@pytest.fixture
def primary(private_server: StartServer) -> Server:
    return private_server(appendonly="yes", appendfsync="everysec")


@pytest.fixture
def replica(private_server: StartServer, primary: Server) -> Iterator[Server]:
    """In step with the primary."""
    server = private_server(appendonly="yes", repl_diskless_sync_delay="0")
    with server.client() as client:
        client.execute_command("REPLICAOF", HOST, primary.port)
    yield server
    server.resume()


async def in_step(replica: Server) -> None:
    def linked() -> bool:
        with replica.client() as client:
            return bool(client.info("replication").get("master_link_status") == "up")

    await until(linked)


def has_waitaof(server: Server) -> bool:
    with server.client() as client:
        try:
            client.execute_command("WAITAOF", 0, 0, 1)
        except ResponseError as error:
            return "unknown command" not in str(error)
    return True


async def test_a_post_is_on_the_replica_when_it_returns(primary: Server, replica: Server) -> None:
    """And so it is there after the primary has died and the replica has been promoted."""
    await in_step(replica)
    async with RedisBackend.from_url(primary.url) as backend:
        timer = DTimer(backend)
        ids = [str(await timer.post(n, LATER_MS, durability=Durable(replicas=1, within=10))) for n in range(20)]
        ids += [
            str(id) for id in await timer.post_many([Post(payload=0, delay=LATER_MS)], durability=Durable(replicas=1))
        ]
        primary.kill()
    with replica.client() as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
    async with RedisBackend.from_url(replica.url) as promoted:
        assert {event.id for event in await DTimer(promoted).upcoming()} == set(ids)


async def test_without_a_replica_it_says_that_it_was_applied_and_no_more(primary: Server) -> None:
    async with RedisBackend.from_url(primary.url) as backend:
        timer = DTimer(backend)
        with pytest.raises(NotDurable, match="0 of 1 replicas have it") as raised:
            await timer.post("p", LATER_MS, id="x", durability=Durable(replicas=1, within=timedelta(milliseconds=50)))

        assert raised.value.known is Known.APPLIED
        assert not raised.value.safe_to_repeat
        assert await timer.peek("x") is not None


async def test_a_replica_that_hangs_holds_up_nobody_else(primary: Server, replica: Server) -> None:
    """Who waits for it waits on a connection of its own."""
    await in_step(replica)
    async with RedisBackend.from_url(primary.url) as backend:
        timer = DTimer(backend)
        replica.pause()
        waiting = [
            asyncio.create_task(timer.post(n, LATER_MS, durability=Durable(replicas=1, within=60))) for n in range(40)
        ]
        async with timer, asyncio.timeout(TIMEOUT_S):
            await timer.post("now", 0, id="now")
            event = await anext(timer.events())
            assert event.id == "now"
            for number in range(50):
                await timer.post(number, LATER_MS)
        assert not any(task.done() for task in waiting)
        replica.resume()
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.gather(*waiting)


async def test_a_post_is_on_disk_when_it_returns(primary: Server) -> None:
    """With a log that is written once a second: what had only been acknowledged might be gone."""
    if not has_waitaof(primary):
        pytest.skip(f"{primary.name} has no WAITAOF: it came with Redis 7.2")
    async with RedisBackend.from_url(primary.url) as backend:
        id = await DTimer(backend).post("p", LATER_MS, durability=Durable(disk=True, within=10))
        primary.kill()
        primary.start()
        assert await DTimer(backend).peek(id) is not None


async def test_a_server_that_cannot_wait_for_the_disk_says_so(private_server: StartServer) -> None:
    """No append-only file, or none of the command; the event is scheduled all the same."""
    async with RedisBackend.from_url(private_server().url) as backend:
        timer = DTimer(backend)
        with pytest.raises(NotDurable, match="cannot wait for that"):
            await timer.post("p", LATER_MS, id="x", durability=Durable(disk=True))
        assert await timer.peek("x") is not None


async def test_the_backend_decides_for_all_posts_that_do_not_say(primary: Server) -> None:
    durable = Durable(replicas=1, within=0.05)
    async with Redis.from_url(primary.url) as redis, RedisBackend(redis, durability=durable) as backend:
        timer = DTimer(backend)
        for post in (timer.post("p", LATER_MS, id="x"), timer.post_many([Post(payload="p", delay=LATER_MS, id="y")])):
            with pytest.raises(NotDurable):
                await post
        assert {event.id for event in await timer.upcoming()} == {"x", "y"}


async def test_the_connection_that_waits_may_break(primary: Server, replica: Server) -> None:
    """What is known then: it was applied."""
    await in_step(replica)
    async with RedisBackend.from_url(primary.url) as backend:
        timer = DTimer(backend)
        replica.pause()
        waiting = asyncio.create_task(timer.post("p", LATER_MS, id="x", durability=Durable(replicas=1, within=60)))
        with primary.client() as client:
            await until(lambda: client.info("clients")["blocked_clients"])
            for entry in client.client_list():
                if entry["cmd"].lower() == "wait":
                    client.execute_command("CLIENT", "KILL", "ID", entry["id"])
        with pytest.raises(NotDurable, match="did not say how far"):
            await waiting
        assert await timer.peek("x") is not None


@pytest.mark.parametrize(
    "given",
    [{}, {"replicas": 0}, {"replicas": -1}, {"replicas": True}, {"replicas": 1.0}, {"replicas": 101}, {"disk": 1},
     {"replicas": 1, "disk": "no"}, {"replicas": 1, "within": 0}, {"replicas": 1, "within": float("nan")}],
    ids=str,
)  # fmt: skip
def test_what_makes_no_sense_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        Durable(**given)  # type: ignore[arg-type]


async def test_a_number_is_no_durability() -> None:
    timer = DTimer(SimBackend())
    with pytest.raises(InvalidArgument, match="durability"):
        await timer.post("p", 0, durability=1)  # type: ignore[arg-type]


async def test_the_simulator_has_nothing_to_wait_for() -> None:
    """So that code which asks for durability is tested as it is."""
    timer = DTimer(SimBackend())
    assert await timer.post("p", 0, id="x", durability=Durable(replicas=2, disk=True)) == "x"
