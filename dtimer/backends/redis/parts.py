"""The keys of a partition as an operator's command sees them: by plain commands, whatever form they have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import frozen

from dtimer.backends.redis.connector import Connector
from dtimer.backends.redis.keys import NAMES, Keys
from dtimer.backends.redis.pool import Argument, Reply, Route
from dtimer.backends.redis.wire.resp import as_bytes, as_list
from dtimer.errors import StoreRefused

CLOCK_RESET_MARK: Final = "clock-reset "
"""What stands before the number of partitions while the clock is reset."""
_SKEW: Final = 2
"""Its place among the counts of a namespace."""


@frozen
class Part:
    """One set of keys.

    Attributes:
        operation: what errors name.
        keys: by their names without the prefix.
    """

    operation: str
    route: Route
    keys: dict[str, str]

    @classmethod
    async def at(cls, servers: Connector, operation: str, namespace: str, place: int) -> Part:
        keys = Keys(namespace, place)
        return cls(operation, await servers.route(operation, keys.prefix), dict(zip(NAMES, keys.all, strict=True)))

    async def do(self, *command: Argument) -> Reply:
        return await self.route.request(self.operation, *command)

    async def forget_nodes(self) -> None:
        """Remove the ring and all that is known of nodes."""
        await self.do(b"DEL", *(self.keys[name] for name in ("ring", "nodes", "lives")))
        await self.do(b"HSET", self.keys["meta"], "arm", "")


async def require_no_nodes(parts: Iterable[Part]) -> None:
    """
    Raises:
        StoreRefused: nodes are joined; it says which.
    """
    nodes: set[str] = set()
    operation = ""
    for part in parts:
        operation = part.operation
        time = await part.do(b"TIME")
        seconds, microseconds = map(as_bytes, as_list(time))
        now_us = int(seconds) * 1_000_000 + int(microseconds) + await skew_us(part)
        nodes.update(map(text, as_list(await part.do(b"ZRANGEBYSCORE", part.keys["lives"], f"({now_us}", "+inf"))))
    if nodes:
        problem = f"nodes are joined, or have died less than 100 s ago: {', '.join(sorted(nodes))}"
        raise StoreRefused(operation, problem)


async def skew_us(part: Part) -> int:
    """By how much the clock of the namespace is ahead of the server's (rule T2); 0 for a part that does not exist."""
    counts = await part.do(b"HGET", part.keys["meta"], "counts")
    return int(counts.split()[_SKEW]) if isinstance(counts, bytes) else 0


def text(reply: Reply) -> str:
    """Whatever bytes it has."""
    return as_bytes(reply).decode("utf-8", "surrogateescape")
