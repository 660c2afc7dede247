"""``dtimer migrate-partitions``: an operator's way to another number of partitions."""

from __future__ import annotations

import asyncio
import sys

from dtimer import DTimerError
from dtimer.backends.redis.repartition import Migrated, client_for, migrate_partitions


def run_migration(url: str, *, namespace: str, to: int, cluster: bool, sentinel: str | None) -> int:
    """Do it, and say what was done; the exit status."""
    try:
        migrated = asyncio.run(_migrate(url, namespace, to, cluster, sentinel))
    except DTimerError as error:
        print(error, file=sys.stderr)
        return 2
    if migrated.before is None:
        print(f"namespace {namespace!r} does not exist; its first use decides about the number of partitions")
    elif migrated.before == migrated.after:
        print(f"namespace {namespace!r} is in {migrated.after} partitions already")
    else:
        print(
            f"namespace {namespace!r}: from {migrated.before} to {migrated.after} partitions; "
            f"moved {migrated.events} events and {migrated.dead_letters} dead letters, the others stayed"
        )
    return 0


async def _migrate(url: str, namespace: str, to: int, cluster: bool, sentinel: str | None) -> Migrated:
    return await migrate_partitions(client_for(url, cluster=cluster, service=sentinel), namespace, partitions=to)
