"""``dtimer purge``: an operator's way to be rid of a namespace."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

from dtimer.backends.redis.purge import Remains, remains, remove
from dtimer.backends.redis.repartition import client_for
from dtimer.cli.asking import agreed
from dtimer.errors import DTimerError


def run_purge(url: str, *, namespace: str, yes: bool, cluster: bool, sentinel: str | None) -> int:
    """Say what there is, ask, and remove it; the exit status is 0 if nothing is left, 1 if it was to stay, else 2."""
    try:
        found = asyncio.run(_look(url, namespace, cluster, sentinel))
        if found is None:
            print(f"namespace {namespace!r} does not exist")
            return 0
        print(f"namespace {namespace!r}: {_described(found)}")
        if not yes and not agreed("remove all of it, for good?", refused="nothing is removed"):
            return 1
        asyncio.run(_remove(url, namespace, cluster, sentinel))
    except DTimerError as error:
        print(error, file=sys.stderr)
        return 2
    print("removed")
    return 0


def _described(found: Remains) -> str:
    if found.inspection is None:
        return "this version cannot read what is in it, nor tell whether nodes are joined"
    shown = found.inspection
    return (
        f"{shown.live} live events, {shown.dead_letters} dead letters, {len(shown.ring)} nodes, "
        f"in {found.partitions} partitions"
    )


async def _look(url: str, namespace: str, cluster: bool, sentinel: str | None) -> Remains | None:
    async with aclosing(client_for(url, cluster=cluster, service=sentinel)) as client:
        return await remains(client, namespace)


async def _remove(url: str, namespace: str, cluster: bool, sentinel: str | None) -> None:
    async with aclosing(client_for(url, cluster=cluster, service=sentinel)) as client:
        await remove(client, namespace)
