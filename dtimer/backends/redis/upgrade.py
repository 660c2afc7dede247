"""Giving a namespace of an earlier version the form that this version keeps, while no node is joined.

Theory of operation
-------------------
From beginning to end the schema that every partition keeps is ``1>2``, which no version accepts.
So no client changes anything meanwhile, and it can be done in many short scripts.
Between them the server serves its other clients.
Each script checks the mark, and leaves alone what has the new form already.
Being interrupted anywhere leaves the mark: the upgrade can be run again, and ends as if it had not been interrupted.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from attrs import frozen
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import InvalidResponse

from dtimer import _validation
from dtimer.backends.redis.connector import Connector
from dtimer.backends.redis.keys import Keys
from dtimer.backends.redis.partition import RedisPartition
from dtimer.backends.redis.parts import Part, require_no_nodes, text
from dtimer.backends.redis.pool import REQUEST_TIMEOUT_DEFAULT_S, run_script
from dtimer.backends.redis.scripts import Script, load_script
from dtimer.backends.redis.wire.resp import Argument, Reply, as_int, as_list
from dtimer.errors import OutcomeUnknown, SchemaMismatch, StoreCorrupt, StoreRefused
from dtimer.limits import NAMESPACE_DEFAULT, PARTITIONS_MAX, SCHEMA
from dtimer.runtime import AsyncioRuntime

OPERATION: Final = "upgrade_namespace"
BATCH_MAX_ITEMS: Final = 256
"""Events or dead letters of one script, which takes some milliseconds."""
_EARLIER: Final = SCHEMA - 1
"""The only one that can be upgraded."""
_MARK: Final = f"{_EARLIER}>{SCHEMA}"
_SCHEMA: Final = re.compile(r"(?:(\d{1,9})>)?(\d{1,9})(?:\.\d+)*")
_UPGRADE: Final = load_script("upgrade")
_SET_SCHEMA: Final = load_script("set_schema")


@frozen
class Upgraded:
    """What an upgrade did.

    Attributes:
        before: the schema that the namespace had; None for a namespace that does not exist: there was nothing to do.
        events: live events whose state was rewritten: those that had been delivered.
        dead_letters: dead letters that were rewritten.
    """

    before: str | None
    after: str = str(SCHEMA)
    events: int = 0
    dead_letters: int = 0


async def stored_schema(client: Redis | RedisCluster, namespace: str = NAMESPACE_DEFAULT) -> str | None:
    """The schema of a namespace, ``1>2`` if an upgrade was interrupted; None if there is none. Changes nothing.

    Raises:
        InvalidArgument: before any I/O.
        SchemaMismatch: it cannot be upgraded by this version; the error says why.
        BackendError: it could not be looked at.
    """
    async with _opened(client, namespace) as upgrade:
        return await upgrade.look()


async def upgrade_namespace(client: Redis | RedisCluster, namespace: str = NAMESPACE_DEFAULT) -> Upgraded:
    """Rewrite what an earlier version keeps. No node may be joined; every other call is refused meanwhile (rule F7).

    Safe to call again after it was interrupted, and the only thing that can be done with the namespace then.

    Raises:
        InvalidArgument: before any I/O.
        StoreRefused: nodes are joined; nothing has been changed.
        SchemaMismatch: it cannot be upgraded by this version; nothing has been changed.
        BackendError: it was interrupted.
    """
    async with _opened(client, namespace) as upgrade:
        return await upgrade.run()


@asynccontextmanager
async def _opened(client: Redis | RedisCluster, namespace: str) -> AsyncGenerator[_Upgrade]:
    name = _validation.name(namespace, "namespace")
    servers = Connector(client, request_timeout_s=REQUEST_TIMEOUT_DEFAULT_S)
    try:
        yield _Upgrade(servers, name)
    except (InvalidResponse, ValueError, LookupError) as error:
        raise OutcomeUnknown(OPERATION, f"the server's reply is none that was asked for: {error}") from error
    finally:
        await servers.close()


class _Upgrade:
    def __init__(self, servers: Connector, namespace: str) -> None:
        self._connector = servers
        self._namespace = namespace

    async def look(self) -> str | None:
        """Its schema; None for a namespace that does not exist."""
        return _of_all(await self._found())

    async def run(self) -> Upgraded:
        found = await self._found()
        before = _of_all(found)
        if before is None or not _is_earlier(before):
            return Upgraded(before)
        parts = [part for part, _ in found.values()]
        earlier = [(part, schema) for part, schema in found.values() if _is_earlier(schema)]
        await require_no_nodes(parts)
        for part, schema in earlier:
            await _set(part, schema, _MARK)
        try:
            # A node may have joined in between.
            await require_no_nodes(parts)
        except StoreRefused:
            for part, schema in reversed(earlier):
                await _set(part, _MARK, schema)
            raise
        await self._make_the_others(found)
        events = letters = 0
        for part, _ in earlier:
            await _step(part, "times", 0)
            letters += await _all(part, "letters")
            events += await _all(part, "states")
        # The first goes last: it is the one that tells of the whole namespace.
        for part, _ in reversed(earlier):
            await _set(part, _MARK, str(SCHEMA))
        return Upgraded(before, events=events, dead_letters=letters)

    async def _found(self) -> dict[int, tuple[Part, str]]:
        """The partitions that exist, and their schemas; those of earlier numbers of partitions, too."""
        found: dict[int, tuple[Part, str]] = {}
        for place in range(PARTITIONS_MAX):
            part = await Part.at(self._connector, OPERATION, self._namespace, place)
            schema = await part.do(b"HGET", part.keys["meta"], "schema")
            if schema is not None:
                found[place] = part, text(schema)
        return found

    async def _make_the_others(self, found: dict[int, tuple[Part, str]]) -> None:
        """Partitions that nothing has used yet, lest a client of an earlier version makes them."""
        part, _ = found[min(found)]
        stored = await part.do(b"HGET", part.keys["meta"], "partitions")
        number = "1" if stored is None else text(stored)
        for place in range(max(map(int, number.split(">")))):  # a move into another number may have been interrupted
            if place not in found:
                keys = Keys(self._namespace, place)
                await RedisPartition(self._connector, keys, AsyncioRuntime(), num_partitions=number).open()


def _of_all(found: dict[int, tuple[Part, str]]) -> str | None:
    """The lowest, for partitions are upgraded one after the other; None if there are none.

    Raises:
        SchemaMismatch: one of them is neither ours nor can be upgraded.
    """
    for _, schema in found.values():
        known = _SCHEMA.fullmatch(schema)
        if known is not None and int(known[2]) > SCHEMA:
            problem = f"the namespace has schema {schema}, this is schema {SCHEMA}; upgrade dtimer"
            raise SchemaMismatch(OPERATION, problem)
        if known is None or not (_is_earlier(schema) or (known[1] is None and int(known[2]) == SCHEMA)):
            raise SchemaMismatch(OPERATION, f"the namespace has schema {schema}, which this version cannot upgrade")
    return min((schema for _, schema in found.values()), default=None)


def _is_earlier(schema: str) -> bool:
    return schema == _MARK or schema.partition(".")[0] == str(_EARLIER)


async def _all(part: Part, what: str) -> int:
    """Upgrade all of them, in batches; how many there were."""
    rank = count = 0
    while rank >= 0:
        rank, upgraded = await _step(part, what, rank)
        count += upgraded
    return count


async def _step(part: Part, what: str, rank: int) -> tuple[int, int]:
    reply = await _run(_UPGRADE, part, what, rank, BATCH_MAX_ITEMS)
    following, upgraded = map(as_int, as_list(reply))
    return following, upgraded


async def _set(part: Part, schema: str, new: str) -> None:
    """
    Raises:
        StoreCorrupt: it has another schema meanwhile.
    """
    if schema != new and not as_int(await _run(_SET_SCHEMA, part, schema, new)):
        raise StoreCorrupt(OPERATION, "the namespace was changed meanwhile, by another upgrade for one: run it again")


async def _run(script: Script, part: Part, *args: Argument) -> Reply:
    return await run_script(part.route, script, OPERATION, tuple(part.keys.values()), args)
