"""One command, one reply, never resent; and a failure tells whether it may have been applied."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.sentinel import Sentinel

from dtimer.backends.redis.config import client_settings
from dtimer.backends.redis.pool import (
    CONNECTIONS_MAX,
    Pool,
    Reply,
    connection_settings,
)
from dtimer.errors import (
    BackendClosed,
    BackendError,
    InvalidArgument,
    OutcomeUnknown,
    StoreDenied,
    StoreReadOnly,
    StoreRefused,
    StoreUnreachable,
)
from support.proxy import Proxy
from support.servers import Server, StartServer
from support.waiting import until

SHORT_S = 1.0
"""A request timeout for tests in which it strikes, but not before: a busy host stalls for a while."""

# --- what is taken from the application's client ------------------------------------------------------


def test_address_and_credentials_are_taken() -> None:
    """Nobody has to state them twice."""
    client = Redis(host="h", port=1, db=2, username="u", password="p", client_name="n")

    settings = connection_settings(client)

    connection = settings.connection()
    assert isinstance(connection, Connection)
    assert (connection.host, connection.port, connection.db) == ("h", 1, 2)
    assert (connection.username, connection.password, connection.client_name) == ("u", "p", "n")
    assert "p" not in repr(settings).replace("dtimer", "").split("'")  # no password where people look


def test_a_unix_socket_is_taken() -> None:
    """It has a path instead of host and port."""
    connection = connection_settings(Redis(unix_socket_path="/s", db=1)).connection()

    assert isinstance(connection, UnixDomainSocketConnection)
    assert (connection.path, connection.db) == ("/s", 1)


def test_tls_settings_are_taken() -> None:
    """All of them: one that is missing would be a hole, or no connection."""
    client = Redis.from_url("rediss://h:1", ssl_ca_certs="ca", ssl_certfile="c", ssl_keyfile="k", ssl_cert_reqs="none")

    connection = connection_settings(client).connection()

    assert isinstance(connection, SSLConnection)
    assert (connection.ca_certs, connection.certfile, connection.keyfile) == ("ca", "c", "k")
    assert connection.cert_reqs == ssl.CERT_NONE


def test_nothing_else_is_taken() -> None:
    """The application's retries would apply a request twice, its timeouts and decoding are for other things (F1)."""
    pool = ConnectionPool(
        host="h",
        retry_on_timeout=True,
        retry_on_error=[OSError],
        socket_timeout=1,
        socket_connect_timeout=1,
        health_check_interval=1,
        decode_responses=True,
        encoding="latin-1",
        protocol=3,
        max_connections=1,
        redis_connect_func=print,
    )

    connection = connection_settings(Redis(connection_pool=pool)).connection()

    assert connection.retry.get_retries() == 0
    assert connection.retry_on_error == []
    assert connection.socket_timeout is None
    assert connection.socket_connect_timeout is None
    assert connection.health_check_interval == 0
    assert not connection.encoder.decode_responses
    assert connection.encoder.encoding == "utf-8"
    assert connection.protocol == 2
    assert connection.redis_connect_func is None
    assert connection.maint_notifications_config is None


REFUSED: dict[str, Callable[[], Any]] = {
    "sentinel's replicas": lambda: Sentinel([("h", 1)]).replica_for("m"),
    "a sentinel itself": lambda: Sentinel([("h", 1)]),
    "synchronous cluster": lambda: object.__new__(redis.RedisCluster),
    "synchronous": lambda: redis.Redis(host="h"),
    "url": lambda: "redis://h",
}


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED)
async def test_other_clients_are_refused_by_name(make: Callable[[], Any]) -> None:
    """Rather than to fail on the first request, or to talk to one server of many."""
    with pytest.raises(InvalidArgument, match="client"):
        client_settings(make())


# --- requests -----------------------------------------------------------------------------------------

Connect = Callable[..., Pool]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connections to whatever has a host and a port, closed when the test ends."""
    opened = []

    def connect(target: Server | Proxy, *, request_timeout_s: float = 5.0, **options: Any) -> Pool:
        settings = connection_settings(Redis(host=target.host, port=target.port, **options))
        opened.append(Pool(settings, request_timeout_s=request_timeout_s))
        return opened[-1]

    yield connect
    for connections in opened:
        await connections.close()


async def failing(request: Awaitable[Reply]) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await request
    return caught.value


async def test_a_request_brings_its_reply(server: Server, connect: Connect) -> None:
    """Bytes, text and numbers go in, large ones too; integers, bytes, lists and None come out."""
    connections = connect(server)
    large = bytes(range(256)) * 4096

    assert await connections.request("post", b"SET", "k", large) == b"OK"
    assert await connections.request("post", b"GET", "k") == large
    assert await connections.request("post", b"EVAL", "return {1, ARGV[1], {}, false}", 0, "é") == [
        1,
        "é".encode(),
        [],
        None,
    ]
    assert await connections.request("post", b"INCRBY", "n", -5) == -5


async def test_one_connection_serves_one_request_after_the_other(server: Server, connect: Connect) -> None:
    """Connecting costs several round trips."""
    async with Proxy(server.port) as proxy:
        connections = connect(proxy)

        for _ in range(10):
            await connections.request("peek", b"GET", "k")

        assert proxy.num_accepted == 1


async def test_an_error_reply_leaves_the_connection_in_use(server: Server, connect: Connect) -> None:
    """It is in order: request and reply were whole."""
    async with Proxy(server.port) as proxy:
        connections = connect(proxy)

        assert type(await failing(connections.request("peek", b"NOSUCHCOMMAND"))) is StoreRefused
        assert await connections.request("peek", b"ECHO", "next") == b"next"

        assert proxy.num_accepted == 1


async def test_many_requests_wait_for_few_connections(server: Server, connect: Connect) -> None:
    """redis-py's own pool raises instead when it has none left."""
    async with Proxy(server.port) as proxy:
        connections = connect(proxy)

        replies = await asyncio.gather(*(connections.request("peek", b"ECHO", n) for n in range(500)))

        assert replies == [b"%d" % n for n in range(500)]
        assert proxy.num_accepted == CONNECTIONS_MAX


async def test_a_lost_reply_is_an_unknown_outcome_and_the_request_is_not_resent(
    server: Server, connect: Connect
) -> None:
    """redis-py's default client would send it up to eleven times, and report success (rule F1)."""
    async with Proxy(server.port) as proxy:
        connections = connect(proxy)
        await connections.request("peek", b"PING")
        proxy.drop_reply_and_cut()

        error = await failing(connections.request("claim", b"INCR", "counter"))

        assert type(error) is OutcomeUnknown
        assert (error.operation, error.safe_to_repeat) == ("claim", False)
        assert await connections.request("peek", b"GET", "counter") == b"1"
        assert server.num_calls("incr") == 1


async def test_a_lost_connection_attempt_is_not_a_lost_request(server: Server, connect: Connect) -> None:
    """The server is heard once before anything is sent that matters."""
    async with Proxy(server.port) as proxy:
        connections = connect(proxy)
        proxy.drop_reply_and_cut()

        error = await failing(connections.request("claim", b"INCR", "counter"))

        assert type(error) is StoreUnreachable
        assert error.safe_to_repeat
        assert server.num_calls("incr") == 0


async def test_nobody_there_is_unreachable(private_server: StartServer, connect: Connect) -> None:
    """And when somebody is there again, the next request finds him."""
    server = private_server()
    connections = connect(server)
    server.kill()

    assert type(await failing(connections.request("claim", b"PING"))) is StoreUnreachable
    server.start()
    assert await connections.request("claim", b"PING") == b"PONG"


async def test_a_silent_server_times_out_as_unknown(private_server: StartServer, connect: Connect) -> None:
    """It has the request in its buffer, and may yet execute it."""
    server = private_server()
    connections = connect(server, request_timeout_s=SHORT_S)
    await connections.request("claim", b"PING")
    server.pause()

    assert type(await failing(connections.request("claim", b"INCR", "counter"))) is OutcomeUnknown

    server.resume()
    assert await connections.request("claim", b"ECHO", "mine") == b"mine"


async def test_a_silent_server_times_out_as_unreachable_on_a_new_connection(
    private_server: StartServer, connect: Connect
) -> None:
    """The kernel accepts for it, so the connection alone proves nothing."""
    server = private_server()
    connections = connect(server, request_timeout_s=SHORT_S)
    server.pause()

    assert type(await failing(connections.request("claim", b"INCR", "counter"))) is StoreUnreachable

    server.resume()
    assert await connections.request("claim", b"GET", "counter") is None


async def test_waiting_for_a_connection_is_bounded(server: Server, connect: Connect) -> None:
    """A caller over the cap has sent nothing when its time is up."""
    async with Proxy(server.port) as proxy:
        connections = connect(proxy, request_timeout_s=SHORT_S)
        await asyncio.gather(*(connections.request("claim", b"PING") for _ in range(CONNECTIONS_MAX)))
        proxy.stall()

        errors = await asyncio.gather(
            *(failing(connections.request("claim", b"PING")) for _ in range(CONNECTIONS_MAX + 1))
        )

        assert [type(error) for error in errors] == [OutcomeUnknown] * CONNECTIONS_MAX + [StoreUnreachable]


async def test_a_large_request_into_a_stalled_network_times_out_as_not_sent(server: Server, connect: Connect) -> None:
    """Part of it has left; and what has not will not arrive later, so the server never has all of it."""
    async with Proxy(server.port) as proxy:
        connections = connect(proxy, request_timeout_s=SHORT_S)
        await connections.request("post", b"PING")
        proxy.stall()

        assert type(await failing(connections.request("post", b"SET", "k", bytes(1 << 25)))) is StoreUnreachable

        proxy.pass_on()
        assert await connections.request("post", b"EXISTS", "k") == 0


async def test_a_cancelled_request_does_not_leave_its_reply_to_the_next(server: Server, connect: Connect) -> None:
    """The next caller would take it for its own."""
    async with Proxy(server.port) as proxy:
        connections = connect(proxy)
        await connections.request("claim", b"PING")
        proxy.stall()
        request = asyncio.create_task(connections.request("claim", b"ECHO", "stale"))
        await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        proxy.pass_on()

        assert await connections.request("claim", b"ECHO", "mine") == b"mine"
        assert proxy.num_accepted == 2


async def test_cancelling_at_any_point_leaves_all_in_order(server: Server, connect: Connect) -> None:
    """Waiting, connecting, sending, reading: no slot may be lost, no reply mixed up."""
    connections = connect(server)
    for turns in range(40):
        requests = [asyncio.create_task(connections.request("claim", b"ECHO", n)) for n in range(CONNECTIONS_MAX + 4)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for request in requests[::2]:
            request.cancel()
        replies = await asyncio.gather(*requests, return_exceptions=True)
        for n, reply in enumerate(replies):
            assert reply == b"%d" % n or (n % 2 == 0 and isinstance(reply, asyncio.CancelledError))

    replies = await asyncio.gather(*(connections.request("claim", b"ECHO", n) for n in range(2 * CONNECTIONS_MAX)))
    assert replies == [b"%d" % n for n in range(2 * CONNECTIONS_MAX)]


async def test_an_idle_connection_that_the_server_closed_is_noticed_before_sending(
    server: Server, connect: Connect
) -> None:
    """Servers close idle clients. The event loop has had no turn to see it here; the kernel knows."""
    connections = connect(server)
    await asyncio.gather(*(connections.request("claim", b"PING") for _ in range(5)))
    with server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)

    assert await connections.request("claim", b"INCR", "counter") == 1


async def test_an_idle_connection_that_was_reset_is_noticed_before_sending(server: Server, connect: Connect) -> None:
    """A reset, unlike an end, is no end of file to asyncio."""
    async with Proxy(server.port) as proxy:
        connections = connect(proxy)
        await connections.request("claim", b"PING")
        proxy.cut(reset=True)
        await until(lambda: not proxy.num_open)

        assert await connections.request("claim", b"INCR", "counter") == 1


async def test_a_restart_of_the_server_between_requests_goes_unnoticed(
    private_server: StartServer, connect: Connect
) -> None:
    """All idle connections are stale then, and each is replaced."""
    server = private_server()
    connections = connect(server)
    await asyncio.gather(*(connections.request("claim", b"PING") for _ in range(5)))

    server.restart()

    assert await asyncio.gather(*(connections.request("claim", b"PING") for _ in range(5))) == [b"PONG"] * 5


async def test_a_server_that_became_a_replica_is_left(private_server: StartServer, connect: Connect) -> None:
    """A name or a sentinel leads to another one by now, which only connecting anew finds out."""
    server = private_server()
    async with Proxy(server.port) as proxy:
        connections = connect(proxy)
        await asyncio.gather(*(connections.request("claim", b"PING") for _ in range(3)))
        with server.client() as client:
            client.replicaof("127.0.0.1", 1)

        assert type(await failing(connections.request("claim", b"INCR", "counter"))) is StoreReadOnly
        await until(lambda: not proxy.num_open)

        await connections.request("claim", b"PING")
        assert proxy.num_accepted == 4


async def test_a_silent_server_costs_one_request_not_one_for_each_connection(
    private_server: StartServer, connect: Connect
) -> None:
    """After a failover the old server may never answer again; requests that are sent there are in doubt."""
    server = private_server()
    connections = connect(server, request_timeout_s=SHORT_S)
    await asyncio.gather(*(connections.request("claim", b"PING") for _ in range(3)))
    server.pause()

    assert type(await failing(connections.request("claim", b"INCR", "counter"))) is OutcomeUnknown
    assert type(await failing(connections.request("claim", b"INCR", "counter"))) is StoreUnreachable

    server.resume()


async def test_bytes_that_nobody_asked_for_end_a_connection(server: Server, connect: Connect) -> None:
    """They would be read as the next reply."""
    async with Proxy(server.port) as proxy:
        connections = connect(proxy)
        await connections.request("claim", b"PING")
        proxy.say(b"+stray\r\n")

        assert await connections.request("claim", b"ECHO", "mine") == b"mine"
        assert proxy.num_accepted == 2


@pytest.mark.parametrize("by_socket", [False, True], ids=["tcp", "unix"])
async def test_a_wrong_password_is_denied(private_server: StartServer, tmp_path: Path, by_socket: bool) -> None:
    """On a unix socket, redis-py wraps it as if the connection had failed."""
    path = tmp_path / "socket"
    server = private_server(requirepass="right", unixsocket=str(path))
    address: dict[str, Any] = {"unix_socket_path": str(path)} if by_socket else {"port": server.port}

    for password, outcome in (("wrong", StoreDenied), ("right", None)):
        connections = Pool(connection_settings(Redis(**address, password=password, db=1)))
        if outcome is None:
            assert await connections.request("open", b"PING") == b"PONG"
        else:
            assert type(await failing(connections.request("open", b"PING"))) is outcome
        await connections.close()


async def test_a_user_who_may_not_ping_can_work(server: Server, connect: Connect) -> None:
    """A strict ACL grants the scripts, and nothing else."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "strict", "on", ">pw", "~*", "-@all", "+get")
    connections = connect(server, username="strict", password="pw")

    assert await connections.request("peek", b"GET", "k") is None


# --- the end ------------------------------------------------------------------------------------------


async def test_after_close_nothing_is_sent(server: Server, connect: Connect) -> None:
    """Closing twice is harmless, and leaves nothing open on the server."""
    connections = connect(server)
    await asyncio.gather(*(connections.request("claim", b"CLIENT", "SETNAME", "ours") for _ in range(3)))

    await connections.close()
    await connections.close()

    assert type(await failing(connections.request("claim", b"PING"))) is BackendClosed
    with server.client() as client:
        await until(lambda: not any(other["name"] == "ours" for other in client.client_list()))


async def test_closing_waits_for_requests_under_way(server: Server, connect: Connect) -> None:
    """Their outcome would be unknown otherwise, for no reason. Those that wait for a connection are turned away."""
    async with Proxy(server.port) as proxy:
        connections = connect(proxy)
        await asyncio.gather(*(connections.request("claim", b"PING") for _ in range(CONNECTIONS_MAX)))
        proxy.stall()
        requests = [asyncio.create_task(connections.request("claim", b"PING")) for _ in range(CONNECTIONS_MAX + 1)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(connections.close())
        await asyncio.sleep(0)
        assert not closing.done()

        proxy.pass_on()
        await closing

        assert [await request for request in requests[:-1]] == [b"PONG"] * CONNECTIONS_MAX
        assert type(await failing(requests[-1])) is BackendClosed
