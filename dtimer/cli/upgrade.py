"""``dtimer upgrade``: an operator's way from the stored form of an earlier version to that of this one."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing

from dtimer.backends.redis.repartition import client_for
from dtimer.backends.redis.upgrade import Upgraded, stored_schema, upgrade_namespace
from dtimer.cli.asking import agreed
from dtimer.errors import DTimerError
from dtimer.limits import SCHEMA


def run_upgrade(url: str, *, namespace: str, yes: bool, cluster: bool, sentinel: str | None) -> int:
    """Say what there is, ask, and upgrade it; the exit status is 0 if it is as wanted, 1 if it was to stay, else 2."""
    try:
        found = asyncio.run(_look(url, namespace, cluster, sentinel))
        if found is None:
            print(f"namespace {namespace!r} does not exist")
            return 0
        if found.partition(".")[0] == str(SCHEMA):
            print(f"namespace {namespace!r} has schema {found} already")
            return 0
        print(
            f"namespace {namespace!r} has schema {found}, and is to have {SCHEMA}, which earlier versions cannot read"
        )
        if not yes and not agreed("upgrade it?", refused="nothing is upgraded"):
            return 1
        done = asyncio.run(_upgrade(url, namespace, cluster, sentinel))
    except DTimerError as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"upgraded: {done.events} events that had been delivered, and {done.dead_letters} dead letters, were rewritten"
    )
    return 0


async def _look(url: str, namespace: str, cluster: bool, sentinel: str | None) -> str | None:
    async with aclosing(client_for(url, cluster=cluster, service=sentinel)) as client:
        return await stored_schema(client, namespace)


async def _upgrade(url: str, namespace: str, cluster: bool, sentinel: str | None) -> Upgraded:
    async with aclosing(client_for(url, cluster=cluster, service=sentinel)) as client:
        return await upgrade_namespace(client, namespace)
