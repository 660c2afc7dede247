"""What a failure means: error replies and lost connections, as dtimer's errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis._parsers import BaseParser
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from dtimer.backends.redis.errors import Redirected, ScriptMissing, after_sending, before_sending, refusal
from dtimer.backends.redis.pool import Pool, connection_settings
from dtimer.errors import (
    BackendError,
    Known,
    OutcomeUnknown,
    SchemaMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreDenied,
    StoreFull,
    StoreNotWritable,
    StoreReadOnly,
    StoreRefused,
    StoreUnreachable,
)
from support.servers import Server, StartServer
from support.waiting import until

SHA1 = "6b1bf486c81ceb7edf3c093f4c48582e38c0e791"
REDIS_6_2 = f"ERR Error running script (call to f_{SHA1}): @user_script:3: "
REDIS_7 = f" script: {SHA1}, on @user_script:3."

REPLIES: list[tuple[str, type[StoreRefused]]] = [
    ("OOM command not allowed when used memory > 'maxmemory'.", StoreFull),
    (f"OOM command not allowed when used memory > 'maxmemory'.{REDIS_7}", StoreFull),
    (f"{REDIS_6_2}@user_script: 3: -OOM command not allowed when used memory > 'maxmemory'.", StoreFull),
    ("READONLY You can't write against a read only replica.", StoreReadOnly),
    (f"{REDIS_6_2}@user_script: 3: -READONLY You can't write against a read only replica.", StoreReadOnly),
    ("LOADING Redis is loading the dataset in memory", StoreBusy),
    ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", StoreBusy),
    ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", StoreBusy),
    ("TRYAGAIN Multiple keys request during rehashing of slot", StoreBusy),
    ("CLUSTERDOWN The cluster is down", StoreBusy),
    ("ERR max number of clients reached", StoreBusy),
    ("DTCLOCK the clock of the server shows 9000000000000000 us since 1970", StoreBusy),
    ("NOAUTH Authentication required.", StoreDenied),
    ("WRONGPASS invalid username-password pair or user is disabled.", StoreDenied),
    ("ERR invalid password", StoreDenied),
    ("NOPERM this user has no permissions to run the 'evalsha' command or its subcommand", StoreDenied),
    (f"ERR ACL failure in script: User x has no permissions to run the 'get' command{REDIS_7}", StoreDenied),
    (f"{REDIS_6_2}@user_script: 3: The user executing the script can't run this command or subcommand", StoreDenied),
    ("WRONGTYPE Operation against a key holding the wrong kind of value", StoreCorrupt),
    (f"WRONGTYPE Operation against a key holding the wrong kind of value{REDIS_7}", StoreCorrupt),
    (f"{REDIS_6_2}WRONGTYPE Operation against a key holding the wrong kind of value", StoreCorrupt),
    ("DTCORRUPT the queue is no sorted set", StoreCorrupt),
    ("DTSCHEMA 2 is not 1", SchemaMismatch),
    (f"ERR user_script:3: DTSCHEMA 2 is not 1{REDIS_7}", SchemaMismatch),
    (f"{REDIS_6_2}user_script:3: DTSCHEMA 2 is not 1", SchemaMismatch),
    ("NOSCRIPT No matching script. Please use EVAL.", ScriptMissing),
    ("MOVED 3999 127.0.0.1:6381", Redirected),
    ("NOREPLICAS Not enough good replicas to write.", StoreNotWritable),
    (f"{REDIS_6_2}@user_script: 3: -NOREPLICAS Not enough good replicas to write.", StoreNotWritable),
    ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist.", StoreNotWritable),
    (f"{REDIS_6_2}@user_script: 3: -MISCONF Redis is configured to save RDB snapshots.", StoreNotWritable),
    (f"MISCONF Errors writing to the AOF file: No space left on device{REDIS_7}", StoreNotWritable),
    ("BUSYKEY Target key name already exists.", StoreRefused),
    ("ERR unknown command 'EVALSHAX'", StoreRefused),
    (f"{REDIS_6_2}attempt to compare nil with number", StoreRefused),
    ("", StoreRefused),
]


@pytest.mark.parametrize(("reply", "kind"), REPLIES, ids=[reply[:60] for reply, _ in REPLIES])
def test_every_reply_has_one_meaning_on_either_side_of_sending(reply: str, kind: type[StoreRefused]) -> None:
    """redis-py makes connection errors of some replies; an answer is an answer all the same: nothing was applied."""
    error: RedisError = BaseParser.parse_error(reply)

    for meaning in (refusal("post", error), after_sending("post", error), before_sending("post", error)):
        assert type(meaning) is kind
        assert meaning.operation == "post"
        assert meaning.known is Known.NOT_APPLIED


def test_the_whole_reply_is_shown() -> None:
    """redis-py cuts the code off, which is what one searches for."""
    reply = "OOM command not allowed when used memory > 'maxmemory'."

    assert reply in str(refusal("post", BaseParser.parse_error(reply)))


def test_a_long_reply_is_cut() -> None:
    """Replies may quote arguments, and those may be a mebibyte."""
    assert len(str(refusal("post", BaseParser.parse_error("ERR unknown command '" + "x" * 10_000)))) < 1_000


@pytest.mark.parametrize("error", [RedisConnectionError("gone"), OSError(104, "reset"), ValueError("bad protocol")])
def test_no_reply_is_unknown_after_sending_and_nothing_before(error: Exception) -> None:
    """That is the whole difference, whatever went wrong (rule F1)."""
    assert type(after_sending("claim", error)) is OutcomeUnknown
    assert type(before_sending("claim", error)) is StoreUnreachable


# --- what real servers say ----------------------------------------------------------------------------


@asynccontextmanager
async def connected(server: Server, **options: Any) -> AsyncGenerator[Pool]:
    connections = Pool(connection_settings(Redis(host=server.host, port=server.port, **options)))
    try:
        yield connections
    finally:
        await connections.close()


async def failure(connections: Pool, script: str, *keys: str) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await connections.request("claim", b"EVAL", script, len(keys), *keys)
    return caught.value


async def test_a_wrong_type_in_a_script_is_corrupt(server: Server) -> None:
    """A key of the namespace that is not ours (rule F5)."""
    async with connected(server) as connections:
        await connections.request("claim", b"SET", "key", "text")

        assert type(await failure(connections, "return redis.call('ZCARD', KEYS[1])", "key")) is StoreCorrupt


@pytest.mark.parametrize(
    "raised",
    [
        "return redis.error_reply('DTSCHEMA 2 is not 1')",
        "return {err = 'DTSCHEMA 2 is not 1'}",
        "error('DTSCHEMA 2 is not 1')",
    ],
)
async def test_a_script_reports_a_schema_mismatch(server: Server, raised: str) -> None:
    """However Lua raises it (rule F7)."""
    async with connected(server) as connections:
        assert type(await failure(connections, raised)) is SchemaMismatch


async def test_an_unknown_script_is_told_apart(server: Server) -> None:
    """The script layer loads it then."""
    async with connected(server) as connections:
        with pytest.raises(ScriptMissing):
            await connections.request("claim", b"EVALSHA", "0" * 40, 0)


async def test_a_full_server_is_full(private_server: StartServer) -> None:
    """Also when it is a script that would write."""
    server = private_server(maxmemory="1", maxmemory_policy="noeviction")
    async with connected(server) as connections:
        assert type(await failure(connections, "return redis.call('SET', KEYS[1], 'x')", "key")) is StoreFull


async def test_a_replica_is_read_only(private_server: StartServer) -> None:
    """As after a failover that the application has not noticed."""
    server = private_server(replicaof="127.0.0.1 1")
    async with connected(server) as connections:
        assert type(await failure(connections, "return redis.call('SET', KEYS[1], 'x')", "key")) is StoreReadOnly


async def test_a_master_without_its_replicas_takes_no_writes(private_server: StartServer) -> None:
    """It takes them again when a replica is there."""
    server = private_server(min_replicas_to_write="1")
    async with connected(server) as connections:
        assert type(await failure(connections, "return redis.call('SET', KEYS[1], 'x')", "key")) is StoreNotWritable


async def test_a_replica_without_its_master_is_busy(private_server: StartServer) -> None:
    """It will come back."""
    server = private_server(replicaof="127.0.0.1 1", replica_serve_stale_data="no")
    async with connected(server) as connections:
        assert type(await failure(connections, "return redis.call('GET', KEYS[1])", "key")) is StoreBusy


async def test_a_server_that_runs_a_long_script_is_busy(private_server: StartServer) -> None:
    """It answers others after lua-time-limit only."""
    server = private_server(lua_time_limit="1")
    async with connected(server) as connections:
        await connections.request("claim", b"PING")
        endless = asyncio.create_task(failure(connections, "while true do end"))
        with server.client() as client:

            def is_busy() -> bool:
                try:
                    client.ping()
                except RedisError:
                    return True
                return False

            await until(is_busy)

            assert type(await failure(connections, "return 1")) is StoreBusy

            client.script_kill()
        assert type(await endless) is StoreRefused


@pytest.mark.parametrize("password", [None, "wrong"])
async def test_without_the_password_one_is_denied(private_server: StartServer, password: str | None) -> None:
    """A matter of configuration, not of the network."""
    server = private_server(requirepass="right")
    options = {} if password is None else {"password": password}
    async with connected(server, **options) as connections:
        assert type(await failure(connections, "return 1")) is StoreDenied


@pytest.mark.parametrize("permitted", [[], ["+evalsha"], ["+eval"]])
async def test_what_the_acl_forbids_is_denied(server: Server, permitted: list[str]) -> None:
    """Whether it forbids the script or what the script does."""
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "limited", "on", ">pw", "~*", "-@all", *permitted)
    async with connected(server, username="limited", password="pw") as connections:
        assert type(await failure(connections, "return redis.call('GET', KEYS[1])", "key")) is StoreDenied
