"""Redis Cluster: nodes find their slots wherever they are, and come back by themselves when they move."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import count

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, SSLConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from typing_extensions import override

from dtimer import DTimer, Event, Post, StoreBusy, StoreRefused, StoreUnreachable
from dtimer.backends.redis import RedisBackend
from dtimer.backends.redis.cluster import Cluster
from dtimer.backends.redis.config import ClusterSettings, client_settings
from dtimer.backends.redis.pool import Unnamed
from dtimer.backends.redis.wire.resp import pack
from dtimer.protocol.partitioning import partition_of
from dtimer.protocol.values import After, Announcement, EventData, NewEvent
from support.guide import more_rights, rights_of_the_guide
from support.redis_cluster import ClusterServer, Six, binaries_for_clusters, running_cluster
from support.servers import HOST, Server, server_binaries
from support.steady_load import Load, under_load
from support.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.once

NUM_PARTITIONS = 6
TAGS = ["dt", *(f"dt:{number}" for number in range(1, NUM_PARTITIONS))]
BACK_WITHIN_S = 6.0
"""From the promotion until a node is a full member again; what is promised is the longest pause, 2 s, and a connect."""
FAILOVER_S = 60.0
"""In which servers of which each takes 1.5 s to see that another is down have promoted its replica, although they write
to a slow disk before each vote, and may need several elections."""


@pytest.fixture(
    scope="module",
    params=[*binaries_for_clusters()] or [None],  # type: ignore[list-item]  # to be skipped for a reason
    ids=lambda binary: getattr(binary, "name", "none"),
)
def six(request: pytest.FixtureRequest) -> Iterator[Six]:
    if request.param is None:
        pytest.skip("no server of Redis 7 or later")
    with running_cluster(request.param) as six:
        yield six


@pytest.fixture
async def backend(six: Six) -> AsyncIterator[RedisBackend]:
    six.heal()
    six.flush()
    backend = six.backend(partitions=NUM_PARTITIONS)
    yield backend
    await backend.close()


def tag(partition: int) -> str:
    return f"{{{TAGS[partition]}}}:"


def channel(owner: ClusterServer, partition: int, node: str) -> str:
    """Where the node is told to come."""
    with owner.client() as client:
        epoch = client.hget(f"{tag(partition)}meta", "epoch")
    name = epoch.decode() if isinstance(epoch, bytes) else ""
    return f"{tag(partition)}{name}:n:{node}"


def listeners(server: ClusterServer, channel: str) -> int:
    """How many hear what is said there: of those that are connected to this server."""
    (_, number) = server.call("PUBSUB", "SHARDNUMSUB", channel)
    return int(number)


async def full_member(six: Six, load: Load) -> None:
    """In every partition's ring, reached by announcements where the partition is now, and taking what is due."""

    def listens() -> bool:
        for partition in range(NUM_PARTITIONS):
            owner = six.owner(tag(partition))
            with owner.client() as client:
                if client.zscore(f"{tag(partition)}ring", "n") is None:
                    return False
            if listeners(owner, channel(owner, partition, "n")) != 1:
                return False
        return True

    await until(listens, timeout_s=BACK_WITHIN_S)
    begin = len(load.acknowledged)
    await until(
        lambda: len({partition_of(id, NUM_PARTITIONS) for id in load.acknowledged[begin:]}) == NUM_PARTITIONS,
        timeout_s=BACK_WITHIN_S,
    )
    later = load.acknowledged[begin:]
    await until(lambda: not load.missing(later), timeout_s=BACK_WITHIN_S)


# --- what is taken from the application's client ------------------------------------------------------


def test_addresses_and_credentials_are_taken() -> None:
    client = RedisCluster(
        startup_nodes=[ClusterNode("one", 1), ClusterNode("two", 2)],
        username="u",
        password="p",
        client_name="n",
        decode_responses=True,
        address_remap=lambda address: ("tunnel", address[1]),
    )

    settings = client_settings(client)

    assert isinstance(settings, ClusterSettings)
    assert sorted(settings.seeds) == [("one", 1), ("two", 2)]
    assert settings.remap is not None
    assert settings.remap(("x", 5)) == ("tunnel", 5)
    connection = settings.server.at("h", 3).connection()
    assert type(connection) is Connection
    assert (connection.host, connection.port) == ("h", 3)
    assert (connection.username, connection.password, connection.client_name) == ("u", "p", "n")
    assert not connection.encoder.decode_responses
    assert connection.retry.get_retries() == 0


def test_tls_settings_are_taken() -> None:
    settings = client_settings(RedisCluster(host="h", ssl=True, ssl_ca_certs="ca", ssl_cert_reqs="none"))

    assert isinstance(settings, ClusterSettings)
    connection = settings.server.at("h", 3).connection()
    assert isinstance(connection, SSLConnection)
    assert (connection.ca_certs, connection.cert_reqs) == ("ca", ssl.CERT_NONE)


# --- finding the servers ----------------------------------------------------------------------------------


def cluster(*seeds: tuple[str, int]) -> Cluster:
    settings = client_settings(RedisCluster(startup_nodes=[ClusterNode(*seed) for seed in seeds]))
    assert isinstance(settings, ClusterSettings)
    return Cluster(settings, request_timeout_s=5.0, unnamed=Unnamed())


async def test_one_server_that_is_up_is_enough(six: Six) -> None:
    known = cluster((HOST, 1), (HOST, 2), (HOST, six.servers[-1].port))

    assert await known.route("{k}").request("post", b"SET", "{k}", "v") == b"OK"
    with six.owner("{k}").client() as client:
        assert client.get("{k}") == b"v"
    await known.close()


async def test_a_cluster_that_is_not_there_is_unreachable() -> None:
    known = cluster((HOST, 1))

    with pytest.raises(StoreUnreachable, match=r"no server of the cluster .*127.0.0.1:1: "):
        await known.route("{k}").request("post", b"SET", "{k}", "v")
    await known.close()


async def test_redirections_are_followed_and_remembered(six: Six) -> None:
    """A stale map costs one request more, once: who redirects has done nothing."""
    six.heal()
    known = cluster((HOST, six.servers[0].port))
    route, slot = known.route("{k}"), key_slot(b"k")
    owner = six.owner("{k}")
    wrong = six.another_master(owner)
    known.moved(slot, (HOST, wrong.port))

    assert await route.request("post", b"SET", "{k}", "v") == b"OK"
    assert await known.owner(slot) == (HOST, owner.port)

    # On the move: what the old server has no more is at the new one, for who asks for it.
    six.begin_to_move(slot, owner, wrong)
    six.move_keys(slot, owner, wrong)
    assert await route.request("peek", b"GET", "{k}") == b"v"
    assert await known.owner(slot) == (HOST, owner.port)
    with pytest.raises(StoreBusy, match="TRYAGAIN"):
        await route.request("peek", b"MGET", "{k}", "{k}2")
    six.end_of_move(slot, wrong)
    assert await route.request("peek", b"GET", "{k}") == b"v"
    assert await known.owner(slot) == (HOST, wrong.port)
    await known.close()


async def test_a_client_for_one_server_is_told_that_it_met_a_cluster(six: Six) -> None:
    """It might work by chance, as long as the slot is there."""
    client = Redis(host=HOST, port=six.another_master(six.owner("{dt}")).port)
    async with asyncio.timeout(TIMEOUT_S):
        backend = RedisBackend(client)
        with pytest.raises(StoreRefused, match=r"MOVED .*RedisCluster client"):
            await backend.open()
        await backend.close()


@pytest.mark.skipif(
    not any(binary.name.startswith("redis-6") for binary in server_binaries()), reason="no server that is old enough"
)
async def test_a_cluster_of_redis_6_is_refused_by_nodes() -> None:
    """It has no sharded pubsub."""
    binary = next(binary for binary in server_binaries() if binary.name.startswith("redis-6"))
    server = LowPort(binary, cluster_enabled="yes")
    server.start()
    try:
        with server.client() as client:
            client.execute_command("CLUSTER ADDSLOTS", *range(16_384))
            await until(lambda: b"cluster_state:ok" in bytes(client.execute_command("CLUSTER  INFO") or b""))
        backend = RedisBackend(RedisCluster(host=HOST, port=server.port))
        with pytest.raises(StoreRefused, match=r"older than Redis 7\.0"):
            await DTimer(backend).join()
        await backend.close()
    finally:
        server.discard()


class LowPort(Server):
    """Its cluster bus has the port that is 10,000 above."""

    @override
    def _try_port(self) -> bool:
        return self.port + 10_000 < 1 << 16 and super()._try_port()


# --- a namespace over all of it ---------------------------------------------------------------------------


async def test_events_go_round_over_all_partitions(six: Six, backend: RedisBackend) -> None:
    """Posted by one, taken by others in turn; messages stay with the server that has the keys."""
    taken: dict[str, list[str]] = {"a": [], "b": []}
    timers = {name: DTimer(backend, node_id=name) for name in taken}
    for name, timer in timers.items():

        async def take(event: Event, name: str = name) -> None:
            async with event:
                taken[name].append(event.id)

        timer.on("event", take)
        await timer.join()
    for partition in range(NUM_PARTITIONS):
        owner = six.owner(tag(partition))
        told_at = channel(owner, partition, "a")
        assert [server for server in six.servers if listeners(server, told_at)] == [owner]
    ids = [f"e{number}" for number in range(120)]
    async with six.backend(partitions=NUM_PARTITIONS) as another:
        posted = await DTimer(another).post_many(
            Post(payload=0, delay=50 + number, id=id, max_retries=2) for number, id in enumerate(ids)
        )
        assert posted == ids

    await until(lambda: len(taken["a"]) + len(taken["b"]) == 120)

    assert sorted(taken["a"] + taken["b"]) == sorted(ids)
    assert taken["a"]
    assert taken["b"]
    for timer in timers.values():
        await timer.leave()
    assert (await backend.inspect()).value.live == 0
    assert not (await backend.inspect()).value.ring
    servers_in_use = {six.owner(tag(partition)).port for partition in range(NUM_PARTITIONS)}
    assert len(servers_in_use) > 1


async def test_an_announcement_is_known_to_have_reached_its_node(six: Six, backend: RedisBackend) -> None:
    """N3: by the servers' own counts, which are those of the shard."""
    timer = DTimer(backend, node_id="n")
    timer.on("event", print)
    async with timer:
        for partition, part in enumerate(backend.partitions):
            ids = (id for id in map(str, count()) if partition_of(id, NUM_PARTITIONS) == partition)
            announced: tuple[Announcement, ...] = ()
            async with asyncio.timeout(TIMEOUT_S):
                # A node whose slots the other partitions' claims hold is passed over for a moment (D8).
                for hour in range(100, 0, -1):
                    event = NewEvent(EventData(id=next(ids), payload=b""), After(3_600_000_000 * hour))
                    if announced := (await part.post([event])).announced:
                        break
                    await asyncio.sleep(0.1)
            assert [(told.node, told.reached) for told in announced] == [("n", True)]


async def test_a_subscription_ends_when_the_server_says_that_the_slot_has_moved(
    six: Six, backend: RedisBackend
) -> None:
    """Nothing is heard there any more; so a node that has nothing to do must not wait for its next call."""
    part, slot = backend.partitions[0], key_slot(TAGS[0].encode())
    epoch = (await part.open()).epoch
    source = six.owner(tag(0))
    async with part.wakeups("n", epoch) as messages:
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.to_thread(six.move, slot, source, six.another_master(source))
        with pytest.raises(StoreUnreachable, match="has moved to another server"):
            await waiting


async def test_a_subscription_ends_when_the_slot_is_known_to_be_elsewhere(six: Six) -> None:
    """A former master serves its subscribers still, as a replica: whom nobody counts."""
    known = cluster((HOST, six.servers[0].port))
    route, slot = known.route("{k}"), key_slot(b"k")
    async with route.listening() as line:
        known.moved(slot, await known.owner(slot))
        assert await line.exchange(pack((b"SSUBSCRIBE", "{k}"))) == [b"ssubscribe", b"{k}", 1]
        reading = asyncio.ensure_future(line.read())
        known.moved(slot, (HOST, 1))
        with pytest.raises(RedisConnectionError):
            await reading
    await known.close()


async def test_a_user_with_the_rights_of_the_guide_can_do_everything(six: Six, backend: RedisBackend) -> None:
    """They are copied into production as they stand."""
    rights = [
        *rights_of_the_guide(),
        *more_rights("a namespace with several partitions"),
        *more_rights("a Redis Cluster"),
    ]
    for server in six.servers:
        server.call("ACL", "SETUSER", "dtimer", *(right.replace("{shop", "{dt") for right in rights))
    user = RedisCluster(host=HOST, port=six.servers[0].port, username="dtimer", password="password")
    taken: list[str] = []
    async with RedisBackend(user, partitions=NUM_PARTITIONS) as strict:
        timer = DTimer(strict)
        timer.on("event", lambda event: taken.append(event.id))
        async with timer:
            slot, source = key_slot(TAGS[0].encode()), six.owner(tag(0))
            await asyncio.to_thread(six.move, slot, source, six.another_master(source))
            await timer.post_many(Post(payload=0, delay=0, id=f"e{number}", max_retries=1) for number in range(60))
            await until(lambda: len(taken) == 60)
            for id in taken:
                await timer.confirm(id)
    assert (await backend.inspect()).value.live == 0


# --- servers and slots that go --------------------------------------------------------------------------


async def test_nothing_replicated_is_lost_when_a_master_dies(six: Six, backend: RedisBackend) -> None:
    async with under_load(lambda: DTimer(backend, node_id="n")) as load:
        await until(lambda: len(load.delivered) > 30)
        old = six.owner(tag(0))
        safe = list(load.acknowledged)
        replica = await six.replica_of(old)
        await until(lambda: _in_step(old))
        old.kill()
        await until(lambda: six.owner(tag(0)) is replica, timeout_s=FAILOVER_S)

        await full_member(six, load)
        await until(lambda: not load.missing(safe), timeout_s=BACK_WITHIN_S)

    assert all(error.operation == "post" for error in load.failed.values())


async def test_a_node_follows_a_master_that_steps_down(six: Six, backend: RedisBackend) -> None:
    """It lives on as a replica, and serves its subscribers still: with messages, but they count for nobody."""
    async with under_load(lambda: DTimer(backend, node_id="n")) as load:
        await until(lambda: len(load.delivered) > 30)
        old = six.owner(tag(0))
        replica = await six.replica_of(old)
        replica.call("CLUSTER", "FAILOVER")
        await until(lambda: six.owner(tag(0)) is replica, timeout_s=FAILOVER_S)

        await full_member(six, load)
        await until(partial(load.have_come, list(load.acknowledged)), timeout_s=BACK_WITHIN_S)

    assert not load.failed


async def test_slots_move_under_load_without_loss(six: Six, backend: RedisBackend) -> None:
    """Calls wait until the move is over; the server ends the subscriptions, and nodes subscribe where the slot is."""
    async with under_load(lambda: DTimer(backend, node_id="n")) as load:
        await until(lambda: len(load.delivered) > 30)
        for partition in (0, 1, 0):
            source = six.owner(tag(partition))
            target = six.another_master(source)
            slot = key_slot(TAGS[partition].encode())
            six.begin_to_move(slot, source, target)
            await asyncio.sleep(0.05)  # long enough for some calls to meet a slot that is in two places
            await asyncio.to_thread(six.move_keys, slot, source, target)
            await asyncio.to_thread(six.end_of_move, slot, target)
            await until(lambda target=target, partition=partition: six.owner(tag(partition)) is target)  # type: ignore[misc]
            await full_member(six, load)
        await until(partial(load.have_come, list(load.acknowledged)), timeout_s=BACK_WITHIN_S)

    assert not load.failed
    assert load.timer.counters.lost_writes == 0


def _in_step(master: ClusterServer) -> bool:
    """The replica has all that the master had when it was asked."""
    with master.client() as client:
        info = client.info("replication")
    return bool(info["slave0"]["offset"] == info["master_repl_offset"])
