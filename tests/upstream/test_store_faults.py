"""Servers that die, forget, refuse, pause or lie about the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis import Redis as Client

import dtimer.node.session
from dtimer import (
    BackendError,
    CancelOutcome,
    ChangeOutcome,
    ConfirmOutcome,
    DTimer,
    NodeDisturbed,
    Post,
    StoreClockStepped,
    StoreFull,
    StoreLostWrites,
    StoreReadOnly,
    StoreUnreachable,
)
from dtimer.limits import SECOND_US
from support.bounds import LATE_MS
from support.proxy import Proxy
from support.scripts import runs
from support.servers import Server, StartServer
from support.waiting import until
from support.worlds import NAMESPACE, Node, RedisWorld, lateness_ms, without_blocks

pytestmark = [pytest.mark.once, pytest.mark.any_server]

CALLS_PER_S_MAX = 6
"""An idle node makes under two calls a second; the rest is for what it does after a fault."""


@asynccontextmanager
async def real(server: Server, *, proxy: Proxy | None = None) -> AsyncIterator[RedisWorld]:
    async with RedisWorld(server, proxy=proxy) as world:
        yield world


async def comes(world: RedisWorld, *nodes: Node, delay: float = 0) -> float:
    """The lateness in ms of a new event, which one of the nodes is given."""
    taken = sum(len(node.events) for node in nodes)
    await world.timer().post("probe", delay, id="probe")
    await world.until(lambda: sum(len(node.events) for node in nodes) > taken)
    return next(lateness_ms(node.events[-1]) for node in nodes if "probe" in node.ids)


async def calls_per_s(server: Server, seconds: float) -> float:
    """How many scripts the server is asked to run."""
    before, started = server.num_calls("evalsha") + server.num_calls("eval"), time.monotonic()
    await asyncio.sleep(seconds)
    return (server.num_calls("evalsha") + server.num_calls("eval") - before) / (time.monotonic() - started)


# --- a server that dies ------------------------------------------------------------------------------------------


async def test_a_node_outlives_a_server_that_forgets_everything(private_server: StartServer) -> None:
    """What the original dtimer 0.3.3 did (P54): subscribed but not listed and with no timer, it was dead for good.
    Posting during the outage was rejected at once; here it goes on trying for some seconds."""
    server = private_server()
    async with real(server) as world:
        node = await world.node()
        await node.timer.post("lost", 60_000, id="lost")
        server.kill()
        posting = asyncio.create_task(world.timer().post("meanwhile", 0))
        await world.until(lambda: node.errors)
        server.start()
        await posting
        await world.until(lambda: node.events)

        assert [event.payload for event in node.events] == ["meanwhile"]
        assert node.error_types() == [NodeDisturbed, StoreLostWrites]
        assert await comes(world, node, delay=50) < LATE_MS
        assert await node.timer.peek("lost") is None
        assert [member.node for member in (await world.inspect()).ring] == [node.id]


async def test_posting_to_a_dead_server_is_refused_in_the_end(
    private_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the original dtimer 0.3.3 did (P54), as here: it rejected, and nothing was stored."""
    monkeypatch.setattr(dtimer.node.session, "REPEAT_WITHIN_US", SECOND_US // 5)
    server = private_server()
    async with real(server) as world:
        timer = world.timer()
        server.kill()

        with pytest.raises(StoreUnreachable, match="not applied"):
            await timer.post("p", 60_000)

        server.start()
        assert await world.nothing_is_kept()


async def test_nothing_is_lost_with_a_server_that_keeps_a_log(private_server: StartServer) -> None:
    """What the original dtimer 0.3.3 did (P55), as here: nodes, scripts and events were all there after a kill -9."""
    server = private_server(appendonly="yes", appendfsync="always")
    async with real(server) as world:
        nodes = [await world.node(name, confirm_timeout=2) for name in "ab"]
        timer = world.timer()
        await timer.post("tracked", 0, id="tracked", max_retries=1)
        await world.until(lambda: any(node.events for node in nodes))
        # What is under way when the server dies is lost if it is at most once, and counts as a retry if not. So nothing
        # is due by then.
        await timer.post_many(Post(payload=number, delay=1_500 + number, id=str(number)) for number in range(6))
        server.restart()
        await world.until(lambda: sum(len(node.events) for node in nodes) >= 8)
        events = [event for node in nodes for event in node.events]

        assert sorted((event.id, event.num_retries) for event in events) == [
            *((str(number), 0) for number in range(6)),
            ("tracked", 0),
            ("tracked", 1),
        ]
        assert max(map(lateness_ms, events)) < LATE_MS
        assert not any(isinstance(error, StoreLostWrites) for node in nodes for error in node.errors)


# --- a server that is emptied --------------------------------------------------------------------------------------


async def test_an_idle_node_is_idle(server: Server) -> None:
    """What the original dtimer 0.3.3 did (P56): one script and one TIME a second; two nodes of ours share as much."""
    async with real(server) as world:
        nodes = [await world.node(name) for name in "ab"]
        await world.until(lambda: all(node.timer.counters.claims for node in nodes))

        assert await calls_per_s(server, 4) <= 2.5


async def test_an_emptied_server_makes_no_busy_loop_and_gets_its_node_back(server: Server) -> None:
    """What the original dtimer 0.3.3 did (P56): with its list of nodes gone, one idle node made 787 calls a second."""
    async with real(server) as world:
        node = await world.node()
        with server.client() as client:
            client.flushall()
        assert await calls_per_s(server, 1) <= CALLS_PER_S_MAX

        await world.until(lambda: StoreLostWrites in node.error_types())
        assert await comes(world, node) < LATE_MS
        assert await calls_per_s(server, 0.5) <= CALLS_PER_S_MAX


@pytest.mark.parametrize("key", ["ring", "nodes", "lives", "meta", "queue"])
async def test_one_missing_key_makes_no_busy_loop(server: Server, key: str) -> None:
    """What the original dtimer 0.3.3 did (P56): the list of nodes alone was enough."""
    async with real(server) as world:
        node = await world.node()
        with server.client() as client:
            client.delete(f"{{{NAMESPACE}}}:{key}")

        assert await comes(world, node) < LATE_MS
        assert await calls_per_s(server, 0.25) <= 3 * CALLS_PER_S_MAX


async def test_forgotten_scripts_are_sent_again(server: Server) -> None:
    """What the original dtimer 0.3.3 did (P57): calls resolved to the text of the server's error, which is true; post
    stored events that nobody was told of, and the node went round without a word."""
    async with real(server) as world:
        node = await world.node()
        timer = world.timer()

        async def flushed(call: Callable[[], Awaitable[object]]) -> object:
            with server.client() as client:
                client.script_flush()
            return await call()

        assert await flushed(lambda: timer.post("p", 60_000, id="e")) == "e"
        assert await flushed(lambda: timer.change_delay("e", 50_000)) is ChangeOutcome.MOVED
        assert await flushed(lambda: timer.confirm("e")) is ConfirmOutcome.NOT_FOUND
        assert await flushed(lambda: timer.cancel("e")) is CancelOutcome.CANCELLED
        assert await flushed(lambda: comes(world, node, delay=20))
        assert not node.errors


# --- connections that break ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pubsub", "normal"])
async def test_killed_connections_delay_an_event_by_a_second_at_most(server: Server, kind: str) -> None:
    """What the original dtimer 0.3.3 did (P58): 0.5 s late and the node was dropped for good, or 2.7 s late."""
    async with real(server) as world:
        node = await world.node()
        with server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", kind)

        assert await comes(world, node, delay=200) < LATE_MS
        assert await comes(world, node, delay=50) < LATE_MS
        assert [member.node for member in (await world.inspect()).ring] == [node.id]


async def test_a_connection_that_dies_under_a_claim_leaves_a_node_that_goes_on(server: Server) -> None:
    """What the original dtimer 0.3.3 did (P59): one error event, a new connection, and no timer ever again."""
    async with Proxy(server.port) as proxy, real(server, proxy=proxy) as world:
        node = await world.node()
        await world.until(lambda: node.timer.counters.claims)
        await world.timer().post("p", 1_500)  # at most once, so it must not be due when the reply is dropped
        proxy.drop_reply_and_cut(runs("claim"))
        shown = await world.backend().open()
        with server.client() as client:
            channel = f"{{{NAMESPACE}}}:{shown.epoch}:n:{node.id}"
            client.publish(channel, f"1 {shown.at_us} {shown.at_us} {shown.seq + 1}")
        await world.until(lambda: node.errors)
        await world.until(lambda: node.events)

        assert node.error_types() == [NodeDisturbed]
        assert lateness_ms(node.events[0]) < LATE_MS


# --- a server that refuses ---------------------------------------------------------------------------------------


async def unconfirmed(node: Node, world: RedisWorld) -> None:
    """The node is given two events, and confirms neither."""
    await node.timer.post_many(Post(payload="p", delay=0, id=id, max_retries=1) for id in ("c", "x"))
    await world.until(lambda: len(node.events) == 2)


def memory(client: Client, limit: int | str) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", limit)


async def test_a_full_server_refuses_posts_and_lets_everything_else_happen(private_server: StartServer) -> None:
    """What the original dtimer 0.3.3 did (P60): cancelling was rejected too, and deliveries stopped in silence."""
    server = private_server()
    async with real(server) as world:
        node = await world.node()
        await unconfirmed(node, world)
        await node.timer.post("due", 300, id="due")
        with server.client() as client:
            memory(client, 1)

            with pytest.raises(StoreFull, match="not applied"):
                await node.timer.post("p", 60_000, id="refused")
            assert await node.timer.confirm("c") is ConfirmOutcome.CONFIRMED
            assert await node.timer.cancel("x") is CancelOutcome.STOPPED
            await world.until(lambda: "due" in node.ids)

            assert lateness_ms(node.events[-1]) < LATE_MS
            assert await world.nothing_is_kept()
            memory(client, 0)
        assert await comes(world, node) < LATE_MS


async def test_a_replica_refuses_clearly_and_deliveries_go_on_after_its_promotion(
    private_server: StartServer,
) -> None:
    """What the original dtimer 0.3.3 did (P61): cancel and confirm resolved to the text of the server's error, which
    is true; deliveries stopped in silence and went on after the promotion."""
    server = private_server()
    async with real(server) as world:
        node = await world.node()
        await unconfirmed(node, world)
        with server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: node.timer.post("p", 0),
                lambda: node.timer.cancel("x"),
                lambda: node.timer.confirm("c"),
                node.events[1].confirm,
            ]
            # At once, as each is tried for some seconds: a server that only reads may be in the middle of a failover.
            for error in await asyncio.gather(*(call() for call in calls), return_exceptions=True):
                assert isinstance(error, StoreReadOnly)
                assert "not applied" in str(error)
            await world.until(lambda: NodeDisturbed in node.error_types())
            client.execute_command("REPLICAOF", "NO", "ONE")

        assert await comes(world, node) < LATE_MS
        assert await node.timer.confirm("c") is ConfirmOutcome.CONFIRMED


# --- a server that pauses ----------------------------------------------------------------------------------------


async def test_a_server_that_sleeps_makes_events_late_and_loses_none(private_server: StartServer) -> None:
    """What the original dtimer 0.3.3 did (P62), as here: late by the pause, no loss."""
    server = private_server()
    async with real(server) as world:
        node = await world.node()
        await node.timer.post_many(Post(payload=number, delay=100 + number) for number in range(5))
        server.pause()
        await asyncio.sleep(0.5)
        server.resume()
        await world.until(lambda: len(node.events) == 5)

        assert [event.payload for event in node.events] == list(range(5))
        assert max(map(lateness_ms, node.events)) < 500 + LATE_MS


async def test_a_server_that_takes_no_writes_for_a_while_loses_none(private_server: StartServer) -> None:
    """What the original dtimer 0.3.3 did (P62), as here: late by the pause, no loss."""
    server = private_server()
    async with real(server) as world:
        node = await world.node()
        await node.timer.post_many(Post(payload=number, delay=100 + number) for number in range(5))
        with server.client() as client:
            client.execute_command("CLIENT", "PAUSE", "500", "WRITE")
        await world.until(lambda: len(node.events) == 5)

        assert [event.payload for event in node.events] == list(range(5))
        assert max(map(lateness_ms, node.events)) < 500 + LATE_MS
        assert not node.errors


# --- a server whose clock is set ---------------------------------------------------------------------------------


class SteppedClock:
    """The clock of the server's host, in us since 1970, which a test sets."""

    def __init__(self) -> None:
        self.step_us = 0

    def __call__(self) -> int:
        return 1_900_000_000 * SECOND_US + time.monotonic_ns() // 1_000 + self.step_us


async def clocked(world: RedisWorld, clock: SteppedClock) -> Node:
    timer: DTimer = DTimer(world.backend(clock_for_tests=clock), confirm_timeout=0.5)
    node = Node(timer)
    world.keep(timer)
    timer.on("event", node.events.append)
    timer.on("error", without_blocks(node.errors.append))
    await timer.join()
    return node


async def test_a_clock_set_forward_makes_what_was_posted_early_in_real_time(server: Server) -> None:
    """What the original dtimer 0.3.3 did (P63), as here: an event of one minute came after a second."""
    clock = SteppedClock()
    async with real(server) as world:
        node = await clocked(world, clock)
        await node.timer.post("p", 60_000)
        clock.step_us = 3_600 * SECOND_US
        await world.until(lambda: node.events)

        assert node.events[0].payload == "p"


async def test_a_clock_set_back_makes_nothing_late(server: Server) -> None:
    """What the original dtimer 0.3.3 did (P63): set back by 10 s, what was posted before came 10 s late, and a retry
    5 s late after 5 s."""
    clock = SteppedClock()
    async with real(server) as world:
        node = await clocked(world, clock)
        started = time.monotonic()
        await node.timer.post("tracked", 0, id="tracked", max_retries=1)
        await node.timer.post("before", 400, id="before")
        await world.until(lambda: node.events)
        clock.step_us = -3_600 * SECOND_US
        await node.timer.post("after", 200, id="after")
        await world.until(lambda: len(node.events) == 4)

        assert sorted(node.ids) == ["after", "before", "tracked", "tracked"]
        assert (time.monotonic() - started) * 1_000 < 500 + LATE_MS
        assert node.error_types() == [StoreClockStepped]


# --- Redis Cluster, and the cost of a call -------------------------------------------------------------------------


async def test_all_keys_of_a_namespace_are_in_one_slot(private_server: StartServer) -> None:
    """What the original dtimer 0.3.3 did (P64): on a cluster, joining and posting failed with CROSSSLOT."""
    server = private_server(cluster_enabled="yes")
    with server.client() as client:
        _all_slots(client)
        await until(lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True)))
    async with real(server) as world:
        node = await world.node(confirm_timeout=0.2)
        await node.timer.post("p", 0, id="e", max_retries=1, dead_letter=True)
        await world.until(lambda: node.ended)

        assert await node.timer.resend("e", 60_000)
        assert await node.timer.change_delay("e", 0)
        await world.until(lambda: len(node.events) == 3)
        assert await node.timer.confirm("e")
        assert await node.timer.upcoming() == []


def _all_slots(client: Client) -> None:
    """By ranges, since Redis 7; one by one before."""
    try:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    except Exception:
        client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))


async def test_an_operation_is_one_round_trip(server: Server) -> None:
    """What the original dtimer 0.3.3 did (P65): two, one of them only to ask for the time."""
    async with real(server) as world:
        timer = world.timer()
        await timer.post("first", 60_000, id="e")
        before = server.num_calls("evalsha"), server.num_calls("eval")
        for _ in range(5):
            await timer.post("p", 60_000, id="e")
        for call in (timer.peek, timer.cancel):
            await call("e")
        evals = server.num_calls("eval") - before[1]

        # What the server did not know yet came once by its source.
        assert server.num_calls("evalsha") - before[0] == 7
        assert evals <= 2
        assert not server.num_calls("multi")


async def test_an_error_says_which_call_it_was(private_server: StartServer) -> None:
    """What the original dtimer 0.3.3 did (P57, P61): an error was an answer."""
    server = private_server()
    async with real(server) as world:
        timer = world.timer()
        with server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", "1")

        with pytest.raises(BackendError) as caught:
            await timer.cancel("e")

        assert caught.value.operation == "cancel"
