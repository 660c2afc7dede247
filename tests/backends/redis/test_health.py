"""What is said of a server's settings is true of the server, and is said once."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import pytest

from dtimer import DTimer, Risk, StoreDenied
from dtimer.backends.redis import RedisBackend
from support.guide import rights_of_the_guide
from support.servers import HOST, Server, StartServer
from support.waiting import TIMEOUT_S, until


@pytest.mark.parametrize(
    ("settings", "risks"),
    [
        ({}, [Risk.NO_PERSISTENCE]),
        ({"appendonly": "yes"}, []),
        ({"save": "3600 1"}, []),
        ({"appendonly": "yes", "maxmemory_policy": "allkeys-lru"}, [Risk.EVICTION]),
        ({"appendonly": "yes", "maxmemory_policy": "volatile-ttl"}, []),
        ({"maxmemory_policy": "allkeys-random"}, [Risk.EVICTION, Risk.NO_PERSISTENCE]),
    ],
    ids=str,
)
async def test_the_findings(private_server: StartServer, settings: dict[str, str], risks: list[Risk]) -> None:
    async with RedisBackend.from_url(private_server(**settings).url) as backend:
        assert [finding.risk for finding in await backend.examine()] == risks


async def test_a_volatile_policy_really_leaves_our_keys_alone_and_the_others_do_not(
    private_server: StartServer,
) -> None:
    """The ground for the distinction."""
    server = private_server(maxmemory_policy="volatile-lru")
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend)
        await timer.post("x", 1_000_000, id="x")
        with server.client() as admin:
            admin.config_set("maxmemory", 1)
            assert await timer.peek("x") is not None
            admin.config_set("maxmemory-policy", "allkeys-lru")
            admin.ping()
            await until(lambda: not admin.keys("*"))


async def test_a_node_warns_once_when_it_joins(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async with RedisBackend.from_url(server.url) as backend:
        timer = DTimer(backend)
        for _ in range(2):
            async with timer:
                pass

    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "append-only" in warnings[0]


async def test_a_user_who_may_not_look_works_all_the_same(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with server.client() as admin:
        admin.execute_command("ACL", "SETUSER", "shop", *rights_of_the_guide())
        url = f"redis://shop:password@{HOST}:{server.port}/0"
        async with RedisBackend.from_url(url, namespace="shop") as backend:
            async with DTimer(backend) as timer, asyncio.timeout(TIMEOUT_S):
                await timer.post("x", 0)
                await anext(timer.events())
            with pytest.raises(StoreDenied):
                await backend.examine()
            admin.execute_command("ACL", "SETUSER", "shop", "+info")
            assert await backend.examine() == ()  # whether snapshots are taken it may not ask
            admin.execute_command("ACL", "SETUSER", "shop", "+config|get")
            assert [finding.risk for finding in await backend.examine()] == [Risk.NO_PERSISTENCE]
        admin.execute_command("ACL", "DELUSER", "shop")
    assert caplog.records == []


async def test_our_own_server_is_as_it_was_asked_for() -> None:
    async with RedisBackend.embedded() as backend:
        assert await backend.examine() == ()


@pytest.mark.once
@pytest.mark.any_server
def test_the_doctor_says_it_on_the_command_line(private_server: StartServer) -> None:
    server = private_server(maxmemory_policy="allkeys-lru", appendonly="yes")

    sick = _doctor(server.url)
    with server.client() as admin:
        admin.config_set("maxmemory-policy", "noeviction")
    well = _doctor(server.url, "--namespace", "shop")
    server.kill()
    gone = _doctor(server.url)

    assert (sick.returncode, well.returncode, gone.returncode) == (1, 0, 2)
    assert sick.stdout.startswith("eviction: maxmemory-policy is allkeys-lru")
    assert "'shop'" in well.stdout
    assert str(server.port) in gone.stdout


@pytest.mark.once
@pytest.mark.any_server
async def test_the_doctor_looks_at_a_namespace_in_several_partitions(private_server: StartServer) -> None:
    """It is asked with the number that the nodes are given, and refuses another one as they do."""
    server = private_server(appendonly="yes")
    async with RedisBackend.from_url(server.url, partitions=3):
        pass

    right, wrong, none = (_doctor(server.url, "--partitions", number) for number in ("3", "2", "0"))

    assert (right.returncode, wrong.returncode, none.returncode) == (0, 2, 2)
    assert "is in 3 partitions, not in 2" in wrong.stdout
    assert none.stdout.startswith("partitions ")


def _doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "dtimer", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
