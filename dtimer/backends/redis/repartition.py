"""Moves a namespace into another number of partitions, while it is not in use.

Theory of operation
-------------------
From beginning to end every partition stores ``from>to`` as the number of partitions, which no operation accepts.
So no client changes anything meanwhile, and plain commands can do it, step by step and across servers.
The names of a partition's keys do not depend on the number, so only events that belong to another partition by the
new number move. Each is copied with its time, record and state, then removed where it was, the queue's entry last.
An interruption leaves the mark, and events that are in one place, or in two with equal contents:
the migration can be begun again, and then ends as if it had not been interrupted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from attrs import frozen
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import InvalidResponse

from dtimer import _validation
from dtimer.backends.redis.connector import Connector
from dtimer.backends.redis.keys import Keys
from dtimer.backends.redis.partition import RedisPartition
from dtimer.backends.redis.parts import CLOCK_RESET_MARK, Part, require_no_nodes, skew_us, text
from dtimer.backends.redis.pool import REQUEST_TIMEOUT_DEFAULT_S, Reply
from dtimer.backends.redis.urls import client_of, cluster_client_of, sentinel_client_of
from dtimer.backends.redis.wire.resp import ReplyTooLarge, as_bytes, as_list
from dtimer.errors import OutcomeUnknown, PartitionsMismatch, StoreCorrupt, StoreRefused
from dtimer.limits import NAMESPACE_DEFAULT
from dtimer.protocol.partitioning import partition_of
from dtimer.runtime import AsyncioRuntime

OPERATION: Final = "migrate_partitions"
BATCH_MAX_ITEMS: Final = 64
"""Events moved at a time: 64 MiB at most, if payloads are within their default limit."""


@frozen
class Migrated:
    """What a migration did.

    Attributes:
        before: the number of partitions; None for a namespace that does not exist: there was nothing to do.
        events: live events that were moved to another partition; those that stayed are not counted.
        dead_letters: dead letters that were moved to another partition.
    """

    before: int | None
    after: int
    events: int = 0
    dead_letters: int = 0


async def migrate_partitions(
    client: Redis | RedisCluster, namespace: str = NAMESPACE_DEFAULT, *, partitions: int
) -> Migrated:
    """Move the namespace into this number of partitions. No node may be joined; posts are refused meanwhile.

    Safe to call again after it was interrupted, and the only thing that can be done with the namespace then.

    Raises:
        InvalidArgument: before any I/O.
        StoreRefused: nodes are joined, or the clock has to be reset first (rule T2); nothing has been changed.
        PartitionsMismatch: another migration was interrupted, and must be finished first.
        BackendError: it was interrupted.
    """
    to = _validation.partitions(partitions)
    name = _validation.name(namespace, "namespace")
    servers = Connector(client, request_timeout_s=REQUEST_TIMEOUT_DEFAULT_S)
    try:
        return await _Migration(servers, name, to).run()
    except (InvalidResponse, ValueError, LookupError) as error:
        raise OutcomeUnknown(OPERATION, f"the server's reply is none that was asked for: {error}") from error
    finally:
        await servers.close()


def client_for(url: str, *, cluster: bool = False, service: str | None = None) -> Redis | RedisCluster:
    """A client for a URL: of one server, of a server of a cluster, or of a sentinel that watches over `service`."""
    if cluster:
        return cluster_client_of(url)
    return client_of(url) if service is None else sentinel_client_of(url, service)


_EARLIER: Final = re.compile(rb"\xff\d+\Z")
"""The suffix of the name of an earlier dead letter of an id; see lua/lib/letters.lua."""


class _Migration:
    def __init__(self, servers: Connector, namespace: str, to: int) -> None:
        self._connector = servers
        self._namespace = namespace
        self._to = to

    async def run(self) -> Migrated:
        first = await self._part(0)
        stored = await _stored(first)
        if stored is None:
            return Migrated(None, self._to)
        _require_no_reset(stored)
        number, _, target = stored.partition(">")
        before = int(number)
        if target and target != str(self._to):
            problem = f"a migration from {number} to {target} partitions was interrupted; finish that first"
            raise PartitionsMismatch(OPERATION, problem)
        if stored == str(self._to):
            return Migrated(before, self._to)
        parts = [await self._part(place) for place in range(max(before, self._to))]
        for part in parts[:before]:
            _require_no_reset(await _stored(part))
        if not target:
            await require_no_nodes(parts[:before])
            await _require_right_clocks(parts[:before])
        mark = f"{before}>{self._to}"
        for place, part in enumerate(parts):
            await self._mark(place, part, mark, {str(before), str(self._to)} if place < before else None)
        try:
            # A node may have joined in between.
            await require_no_nodes(parts[:before])
        except StoreRefused:
            if not target:
                for part in reversed(parts[:before]):
                    await _set_number(part, before)
            raise
        events = letters = 0
        for place in range(before):
            events += await self._move(place, parts, "queue", ("records", "states"))
            letters += await self._move(place, parts, "buried", ("letters",))
        for part in parts[self._to :]:
            # Its meta stays, with a number that refuses clients which still use the old one.
            await part.do(b"DEL", *(key for name, key in part.keys.items() if name != "meta"))
            await _set_number(part, self._to)
        # The first goes last: until then its mark tells that there is something to finish.
        for part in reversed(parts[: self._to]):
            await part.forget_nodes()
            await _set_number(part, self._to)
        return Migrated(before, self._to, events, letters)

    async def _part(self, place: int) -> Part:
        return await Part.at(self._connector, OPERATION, self._namespace, place)

    async def _mark(self, place: int, part: Part, mark: str, known: set[str] | None) -> None:
        """Set the mark, with which no operation is accepted; a partition that was never used is made, with the mark.

        Args:
            known: the numbers that it may have; None if it is out of use, and so may have any of an earlier time.
        """
        marked = RedisPartition(self._connector, Keys(self._namespace, place), AsyncioRuntime(), num_partitions=mark)
        try:
            await marked.open()
        except PartitionsMismatch as error:
            stored = await _stored(part)
            if known is not None and stored not in known:
                problem = f"partition {place} is one of {stored}; this is not the namespace that it was"
                raise StoreCorrupt(OPERATION, problem) from error
            await part.do(b"HSET", part.keys["meta"], "partitions", mark)

    async def _move(self, place: int, parts: Sequence[Part], queue: str, hashes: Sequence[str]) -> int:
        """Move the entries that do not belong to this partition any more; returns how many were moved."""
        source = parts[place]
        stay = moved = 0
        while True:
            entries = as_list(
                await source.do(b"ZRANGE", source.keys[queue], stay, stay + BATCH_MAX_ITEMS - 1, "WITHSCORES")
            )
            if not entries:
                return moved
            groups: dict[int, list[tuple[bytes, bytes]]] = {}
            for id, score in zip(map(as_bytes, entries[::2]), map(as_bytes, entries[1::2]), strict=True):
                groups.setdefault(partition_of(text(_EARLIER.sub(b"", id)), self._to), []).append((id, score))
            stay += len(groups.pop(place, []))
            for target, group in groups.items():
                await _copy(source, parts[target], queue, hashes, group)
                ids = [id for id, _ in group]
                for name in hashes:
                    await source.do(b"HDEL", source.keys[name], *ids)
                await source.do(b"ZREM", source.keys[queue], *ids)
                moved += len(group)


def _require_no_reset(stored: str | None) -> None:
    """
    Raises:
        StoreRefused: all that can be done with the namespace is to finish a reset of its clock.
    """
    if stored is not None and stored.startswith(CLOCK_RESET_MARK):
        problem = (
            "the clock of the namespace is being reset; if that was interrupted, run dtimer clock-reset again first"
        )
        raise StoreRefused(OPERATION, problem)


async def _require_right_clocks(parts: Sequence[Part]) -> None:
    """Times are moved as they are, so one clock's must be those of another.

    Raises:
        StoreRefused: one of them is ahead of its server's, as a new partition's would not be.
    """
    ahead_us = max([await skew_us(part) for part in parts])
    if ahead_us > 0:
        ahead = timedelta(microseconds=ahead_us)
        problem = f"the clock of the namespace is {ahead} ahead of the server's; run dtimer clock-reset first"
        raise StoreRefused(OPERATION, problem)


async def _copy(
    source: Part, target: Part, queue: str, hashes: Sequence[str], group: Sequence[tuple[bytes, bytes]]
) -> None:
    for name in hashes:
        values = await _values(source, source.keys[name], [id for id, _ in group])
        # What is missing here was moved before an interruption, or never was.
        fields = [(id, value) for (id, _), value in zip(group, values, strict=True) if isinstance(value, bytes)]
        if fields:
            await target.do(b"HSET", target.keys[name], *(part for field in fields for part in field))
    await target.do(b"ZADD", target.keys[queue], *(part for id, score in group for part in (score, id)))


async def _values(part: Part, key: str, ids: Sequence[bytes]) -> list[Reply]:
    """In as many replies as it takes: a few large events may be more than one can have."""
    try:
        return as_list(await part.do(b"HMGET", key, *ids))
    except OutcomeUnknown as error:
        if len(ids) == 1 or not isinstance(error.__cause__, ReplyTooLarge):
            raise
    half = len(ids) // 2
    return await _values(part, key, ids[:half]) + await _values(part, key, ids[half:])


async def _stored(part: Part) -> str | None:
    """The number of partitions that is stored; None if the partition does not exist."""
    schema, number = as_list(await part.do(b"HMGET", part.keys["meta"], "schema", "partitions"))
    if schema is None:
        return None
    return "1" if number is None else text(number)


async def _set_number(part: Part, number: int) -> None:
    if number == 1:
        await part.do(b"HDEL", part.keys["meta"], "partitions")
    else:
        await part.do(b"HSET", part.keys["meta"], "partitions", number)
