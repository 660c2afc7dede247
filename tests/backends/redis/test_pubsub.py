"""Hearing wake-ups and pulses, and noticing that nothing is heard any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from dtimer.backends.redis.pool import Pool, connection_settings
from dtimer.backends.redis.pubsub import Channels, read_pulse, read_wakeup, subscribe
from dtimer.errors import StoreDenied, StoreUnreachable
from dtimer.protocol.values import Malformed, Message, Pulse, Wakeup
from support.proxy import Proxy
from support.servers import Server, StartServer
from support.waiting import until

CHANNELS = Channels(node="{dt}:e1:n:node-1", pulse="{dt}:e1:p")
SHORT_S = 0.2


def connections(target: Server | Proxy, **options: Any) -> Pool:
    return Pool(connection_settings(Redis(host=target.host, port=target.port, **options)))


# --- texts --------------------------------------------------------------------------------------------


def test_a_wakeup_says_when_to_come() -> None:
    """In times of the store's clock, never as an interval (rule T1)."""
    assert read_wakeup(b"1 30 20 7") == Wakeup(due_us=30, at_us=20, seq=7)
    assert read_wakeup(b"1 " + b"9" * 17 + b" 0 007") == Wakeup(due_us=10**17 - 1, at_us=0, seq=7)


def test_a_pulse_says_who_looked() -> None:
    """So a node knows whether it hears its own (rule W1)."""
    assert read_pulse(b"1 node_1.a-B 20 7") == Pulse(node="node_1.a-B", at_us=20, seq=7)


NEITHER = [
    b"",
    b"1",
    b"1 30 20",
    b"1 30 20 7 8",
    b"2 30 20 7",
    b"1  30 20 7",
    b" 1 30 20 7",
    b"1 30 20 7\n",
    b"1 30 20 -7",
    b"1 30 20 7.0",
    b"1 30 20 1e3",
    b"1 30 20 " + b"9" * 18,
    b"1 30 20 \xd9\xa7",
    b"\xff\x00",
]


@pytest.mark.parametrize("raw", [*NEITHER, b"1 node-1 20 7"])
def test_anything_else_is_no_wakeup(raw: bytes) -> None:
    """Anybody may publish anything; it is reported, and changes nothing."""
    assert read_wakeup(raw) == Malformed(raw)


@pytest.mark.parametrize("raw", [*NEITHER, b"1 n:1 20 7", b"1 " + b"n" * 65 + b" 20 7"])
def test_anything_else_is_no_pulse(raw: bytes) -> None:
    """As above."""
    assert read_pulse(raw) == Malformed(raw)


def test_little_is_kept_of_a_large_message() -> None:
    """It may be half a gibibyte."""
    assert read_wakeup(b"x" * 10_000) == Malformed(b"x" * 256)


# --- hearing ------------------------------------------------------------------------------------------


async def test_what_is_published_after_entry_is_heard_in_order(server: Server) -> None:
    """Entry waits for the server's confirmation, so nothing said afterwards is missed."""
    with server.client() as client:
        async with subscribe(connections(server), CHANNELS) as messages:
            client.publish(CHANNELS.node, "1 30 20 7")
            client.publish(CHANNELS.pulse, "1 node-2 21 8")
            client.publish(CHANNELS.node, "nonsense")
            client.publish("{dt}:e1:n:node-2", "1 1 1 1")
            client.publish(CHANNELS.pulse, "1 30 20 9")

            heard: list[Message] = [await anext(messages) for _ in range(4)]

    assert heard == [
        Wakeup(due_us=30, at_us=20, seq=7),
        Pulse(node="node-2", at_us=21, seq=8),
        Malformed(b"nonsense"),
        Pulse(node="30", at_us=20, seq=9),
    ]


async def test_a_large_message_does_not_disturb_the_next(server: Server) -> None:
    """It comes in many pieces."""
    with server.client() as client:
        async with subscribe(connections(server), CHANNELS) as messages:
            client.publish(CHANNELS.node, b"x" * (1 << 20))
            client.publish(CHANNELS.node, "1 30 20 7")

            assert await anext(messages) == Malformed(b"x" * 256)
            assert await anext(messages) == Wakeup(due_us=30, at_us=20, seq=7)


async def test_a_wait_that_was_given_up_loses_nothing(server: Server) -> None:
    """A node waits with a timeout, over and over."""
    with server.client() as client:
        async with subscribe(connections(server), CHANNELS) as messages:
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(messages), timeout=0.01)
            client.publish(CHANNELS.node, "1 30 20 7")

            assert await anext(messages) == Wakeup(due_us=30, at_us=20, seq=7)


async def test_leaving_ends_the_subscription_and_its_connection(server: Server) -> None:
    """The store counts listeners; a ghost would be told to come (rule N3)."""
    with server.client() as client:
        async with subscribe(connections(server, client_name="ours"), CHANNELS):
            assert client.pubsub_numsub(CHANNELS.node, CHANNELS.pulse) == [
                (CHANNELS.node.encode(), 1),
                (CHANNELS.pulse.encode(), 1),
            ]

        await until(lambda: client.pubsub_numsub(CHANNELS.node) == [(CHANNELS.node.encode(), 0)])
        assert not any(other["name"] == "ours" for other in client.client_list())


async def test_leaving_wakes_whoever_still_waits(server: Server) -> None:
    """No task may be left waiting on a closed connection."""
    async with subscribe(connections(server), CHANNELS) as messages:
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)

    with pytest.raises(StoreUnreachable):
        await waiting
    with pytest.raises(StoreUnreachable):
        await anext(messages)


# --- not hearing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_server_that_goes_is_noticed_at_once(private_server: StartServer, how: str) -> None:
    """And stays noticed: the subscription never comes back by itself, what was said meanwhile would be missing (N4)."""
    server = private_server()
    async with subscribe(connections(server), CHANNELS) as messages:
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        getattr(server, how)()
        with pytest.raises(StoreUnreachable, match="wakeups"):
            await waiting

        server.start()

        with pytest.raises(StoreUnreachable, match="wakeups"):
            await anext(messages)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_is_cut_is_noticed_at_once(server: Server, reset: bool) -> None:
    """Whether it ends or is reset."""
    async with Proxy(server.port) as proxy, subscribe(connections(proxy), CHANNELS) as messages:
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        proxy.cut(reset=reset)

        with pytest.raises(StoreUnreachable):
            await waiting


async def test_what_came_before_the_end_is_still_heard(server: Server) -> None:
    """It was said while somebody listened."""
    with server.client() as client:
        async with Proxy(server.port) as proxy, subscribe(connections(proxy), CHANNELS) as messages:
            with client.pipeline() as both:  # in one piece, so that the proxy has passed on both or none
                both.publish(CHANNELS.node, "1 30 20 7")
                both.publish(CHANNELS.node, "1 30 20 8")
                both.execute()
            assert await anext(messages) == Wakeup(due_us=30, at_us=20, seq=7)
            proxy.cut()
            await until(lambda: not proxy.num_open)

            assert await anext(messages) == Wakeup(due_us=30, at_us=20, seq=8)
            with pytest.raises(StoreUnreachable):
                await anext(messages)


async def test_nobody_there_is_unreachable(private_server: StartServer) -> None:
    """On entry."""
    server = private_server()
    server.kill()

    with pytest.raises(StoreUnreachable, match="wakeups"):
        async with subscribe(connections(server), CHANNELS):
            pass


async def test_a_silent_server_is_unreachable(private_server: StartServer) -> None:
    """Entry is bounded; it would wait for the confirmation for ever."""
    server = private_server()
    server.pause()

    with pytest.raises(StoreUnreachable, match="wakeups"):
        async with subscribe(connections(server), CHANNELS, timeout_s=SHORT_S):
            pass


async def test_a_network_that_stalls_at_the_subscription_is_unreachable(server: Server) -> None:
    """The confirmation counts, not the connection."""
    async with Proxy(server.port) as proxy:
        proxy.stall(lambda sent: b"SUBSCRIBE" in sent)

        with pytest.raises(StoreUnreachable, match="wakeups"):
            async with subscribe(connections(proxy), CHANNELS, timeout_s=SHORT_S):
                pass

        proxy.pass_on()
        await until(lambda: not proxy.num_open)


@pytest.mark.parametrize("channels", [[], [f"&{CHANNELS.node}"], [f"&{CHANNELS.pulse}"]])
async def test_a_forbidden_channel_is_denied(server: Server, channels: list[str]) -> None:
    """Also when it is one of the two; a matter of configuration, to be said clearly."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "deaf", "reset", "on", ">pw", "+@all", "resetchannels", *channels)

    with pytest.raises(StoreDenied, match="wakeups"):
        async with subscribe(connections(server, username="deaf", password="pw"), CHANNELS):
            pass


async def test_what_the_listener_raises_is_his_own(server: Server) -> None:
    """The errors of the body are not the subscription's."""
    with pytest.raises(TimeoutError, match="mine"):
        async with subscribe(connections(server), CHANNELS):
            raise TimeoutError("mine")


async def test_cancelling_the_entry_leaves_no_connection(server: Server) -> None:
    """At whatever point it comes."""
    with server.client() as client:
        for turns in range(12):

            async def listen() -> None:
                async with subscribe(connections(server, client_name="ours"), CHANNELS):
                    await asyncio.Event().wait()

            task = asyncio.create_task(listen())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        await until(lambda: not any(other["name"] == "ours" for other in client.client_list()))
