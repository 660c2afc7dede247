"""``dtimer doctor``: what a node would warn of when it joins, and whether the namespace can be reached at all."""

from __future__ import annotations

import asyncio

from dtimer.backends.redis import RedisBackend
from dtimer.backends.redis.repartition import client_for
from dtimer.errors import BackendError, InvalidArgument, StoreDenied


def run_doctor(url: str, *, namespace: str, partitions: int, cluster: bool, sentinel: str | None) -> int:
    """Print what is found; the exit status is 0 if nothing is, 1 if something is, 2 if nothing could be looked at."""
    try:
        client = client_for(url, cluster=cluster, service=sentinel)
        backend = RedisBackend(client, namespace, partitions=partitions)
    except InvalidArgument as error:
        print(error)
        return 2
    return asyncio.run(_examine(backend))


async def _examine(backend: RedisBackend) -> int:
    try:
        await backend.open()
        found = await backend.examine()
    except StoreDenied as error:
        print(f"permissions: {error}")
        return 2
    except BackendError as error:
        print(error)
        return 2
    finally:
        await backend.close()
    for finding in found:
        print(f"{finding.risk.value}: {finding.detail}")
    if not found:
        print(f"nothing found: namespace {backend.namespace!r} can be reached, and no setting puts its events at risk")
    return 1 if found else 0
