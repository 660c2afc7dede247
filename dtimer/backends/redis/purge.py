"""Removes a namespace that is not used any more, with all its partitions. Nothing else removes one."""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import InvalidResponse

from dtimer import _validation
from dtimer.backends.redis.backend import RedisBackend
from dtimer.backends.redis.connector import Connector
from dtimer.backends.redis.keys import Keys
from dtimer.backends.redis.pool import REQUEST_TIMEOUT_DEFAULT_S
from dtimer.backends.redis.wire.resp import as_int
from dtimer.errors import OutcomeUnknown, SchemaMismatch, StoreCorrupt, StoreRefused
from dtimer.limits import NAMESPACE_DEFAULT, PARTITIONS_MAX
from dtimer.protocol.values import Inspection

OPERATION: Final = "purge"
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


@frozen
class Remains:
    """What a namespace holds.

    Attributes:
        partitions: their number, as it is stored.
        inspection: of all together; None if this version cannot read the namespace.
    """

    partitions: str
    inspection: Inspection | None


async def remains(client: Redis | RedisCluster, namespace: str = NAMESPACE_DEFAULT) -> Remains | None:
    """What would be removed; None for a namespace that does not exist. Changes nothing.

    Raises:
        InvalidArgument: before any I/O.
        BackendError: it could not be looked at.
    """
    keys = Keys(_validation.name(namespace, "namespace"))
    servers = Connector(client, request_timeout_s=REQUEST_TIMEOUT_DEFAULT_S)
    try:
        route = await servers.route(OPERATION, keys.prefix)
        if not as_int(await route.request(OPERATION, b"EXISTS", keys.all[0])):
            return None
        stored = await route.request(OPERATION, b"HGET", keys.all[0], b"partitions")
    except StoreCorrupt:
        return Remains("", None)  # what stands there is of another type
    except InvalidResponse as error:
        raise OutcomeUnknown(OPERATION, f"the server's reply is none that was asked for: {error}") from error
    finally:
        await servers.close()
    number = stored.decode("ascii", "replace") if isinstance(stored, bytes) else "1"
    if not (_NUMBER.fullmatch(number) and 1 <= int(number) <= PARTITIONS_MAX):
        return Remains(number, None)  # a migration was interrupted, or something else wrote it
    backend = RedisBackend(client, namespace, partitions=int(number))
    try:
        return Remains(number, (await backend.inspect()).value)
    except (SchemaMismatch, StoreCorrupt):
        return Remains(number, None)
    finally:
        await backend.close()


async def remove(client: Redis | RedisCluster, namespace: str = NAMESPACE_DEFAULT) -> None:
    """Remove every key of the namespace, with all events and dead letters; those of earlier numbers of partitions, too.

    Raises:
        InvalidArgument: before any I/O.
        StoreRefused: nodes are joined, which would create it again; nothing was removed.
        BackendError: it was interrupted, and can be called again.
    """
    found = await remains(client, namespace)
    if found is not None and found.inspection is not None and found.inspection.ring:
        names = ", ".join(sorted(member.node for member in found.inspection.ring))
        raise StoreRefused(OPERATION, f"nodes are joined, or have died less than 100 s ago: {names}")
    servers = Connector(client, request_timeout_s=REQUEST_TIMEOUT_DEFAULT_S)
    try:
        # The first goes last: until then it knows the number of all.
        for place in reversed(range(PARTITIONS_MAX)):
            keys = Keys(namespace, place)
            route = await servers.route(OPERATION, keys.prefix)
            await route.request(OPERATION, b"DEL", *keys.all)
    finally:
        await servers.close()
