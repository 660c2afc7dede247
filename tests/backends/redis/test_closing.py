"""Nodes on a real server whose calls are cut short, or whose backend is closed under them."""

from __future__ import annotations

import asyncio

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from dtimer import BackendClosed, DTimer, DTimerError, NodeStopped, RedisBackend, StoreUnreachable
from support.proxy import Proxy
from support.servers import Server, StartServer
from support.waiting import until


def num_subscriptions(server: Server) -> int:
    with Redis(host=server.host, port=server.port) as redis:
        return len([client for client in redis.client_list() if int(client["sub"]) + int(client.get("ssub", 0))])


async def test_a_closed_backend_takes_its_subscription_with_it_and_ends_the_node(server: Server) -> None:
    backend = RedisBackend.from_url(server.url)
    timer = DTimer(backend)
    errors: list[DTimerError] = []
    timer.on("error", errors.append)
    timer.on("event", print)
    await timer.join()
    await until(lambda: num_subscriptions(server) == 1)

    await backend.close()

    await until(lambda: not timer.joined)
    await until(lambda: num_subscriptions(server) == 0)
    assert isinstance(errors[-1], NodeStopped)
    await until(lambda: not [task for task in asyncio.all_tasks() if "node" in task.get_name()])
    await timer.leave()


async def test_a_subscription_that_is_being_made_while_its_backend_is_closed_is_dropped(server: Server) -> None:
    async with Proxy(server.port) as proxy:
        backend = RedisBackend(AsyncRedis(host=proxy.host, port=proxy.port))
        epoch = (await backend.open()).epoch
        proxy.stall()
        before = proxy.num_accepted

        async def listen() -> None:
            async with backend.wakeups("n", epoch):
                raise AssertionError("it hears on a closed backend")

        listening = asyncio.create_task(listen())
        await until(lambda: proxy.num_accepted > before)
        await backend.close()
        proxy.pass_on()

        with pytest.raises(BackendClosed):
            await listening
        await until(lambda: num_subscriptions(server) == 0)


async def test_subscriptions_end_before_the_calls_that_close_waits_for(server: Server) -> None:
    backend = RedisBackend.from_url(server.url)
    epoch = (await backend.open()).epoch
    route = await backend._connector.route("test", "p")
    slow = asyncio.create_task(route.request("test", "BLPOP", "list", 4))
    async with backend.wakeups("n", epoch) as messages:
        closing = asyncio.create_task(backend.close())
        with pytest.raises(StoreUnreachable, match="dropped"):
            await anext(messages)
        assert not slow.done()
        assert not closing.done()
    with Redis(host=server.host, port=server.port) as redis:
        redis.rpush("list", "x")
    await slow
    await closing


async def test_a_leave_that_was_cancelled_while_the_server_was_slow_can_be_followed_by_a_join(
    private_server: StartServer,
) -> None:
    server = private_server()
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend)
        done: list[object] = []
        timer.on("event", lambda event: done.append(event.payload))
        await timer.join()
        with Redis(host=server.host, port=server.port) as redis:
            redis.execute_command("CLIENT", "PAUSE", "800", "ALL")
        try:
            async with asyncio.timeout(0.2):
                await timer.leave()
        except TimeoutError:
            pass
        assert not timer.joined

        await timer.join()
        await timer.post(2, 0)

        await until(lambda: done == [2])
        await timer.leave()
        assert not (await backend.inspect()).value.ring
