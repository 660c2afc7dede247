"""Nodes whose way to the server a test breaks, and whether they are full members of their namespace again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from dtimer import DTimer
from dtimer.backends.redis import RedisBackend
from dtimer.backends.redis.pool import REQUEST_TIMEOUT_DEFAULT_S
from support.proxy import Proxy
from support.servers import Server
from support.worlds import NAMESPACE, Node, without_blocks

MEMBER_TIMEOUT_S = 30.0
POLL_S = 0.01


@asynccontextmanager
async def behind(
    proxy: Proxy, node_id: str = "n", *, request_timeout: float = REQUEST_TIMEOUT_DEFAULT_S
) -> AsyncIterator[Node]:
    """A joined node whose way to the server a test can break."""
    client = Redis(host=proxy.host, port=proxy.port)
    async with RedisBackend(client, NAMESPACE, request_timeout=request_timeout) as backend:
        node = Node(DTimer(backend, node_id=node_id))
        node.timer.on("event", node.events.append)
        node.timer.on("error", without_blocks(node.errors.append))
        await node.timer.join()
        yield node
        proxy.pass_on()
        await node.timer.leave(drain=False)


@asynccontextmanager
async def beside(server: Server) -> AsyncIterator[RedisBackend]:
    """Another way to the server, that stands."""
    async with RedisBackend.from_url(server.url, NAMESPACE) as backend:
        yield backend


async def full_member(server: Server, backend: RedisBackend, node: Node, *, since: int | None = None) -> float:
    """Return when the node is in the ring, its channel is listened to, and a claim was answered; how long it took.

    Args:
        since: so many claims had been :func:`answered` when its way was broken; now, if not given.
    """
    started = asyncio.get_running_loop().time()
    claims = answered(node) if since is None else since
    async with asyncio.timeout(MEMBER_TIMEOUT_S):
        while answered(node) == claims or not await _listed(server, backend, node):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(POLL_S)
    return asyncio.get_running_loop().time() - started


def answered(node: Node) -> int:
    """Claims that got a reply."""
    return node.timer.counters.claims - node.timer.counters.failed_claims


async def _listed(server: Server, backend: RedisBackend, node: Node) -> bool:
    shown = await backend.inspect()
    with server.client() as client:
        ((_, heard),) = client.pubsub_numsub(f"{{{NAMESPACE}}}:{shown.epoch}:n:{node.id}")
    # An earlier subscription may not have been found dead yet by the server.
    return bool(heard) and any(member.node == node.id and not member.parked for member in shown.value.ring)


def logged(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What dtimer has logged."""
    # What is said of the settings at the first join is no fault, and these servers keep nothing on purpose.
    return [
        record
        for record in caplog.records
        if record.name == "dtimer" and not record.getMessage().startswith("the store may lose events")
    ]
