"""``dtimer clock-reset``: an operator's way to put a namespace's clock right after the server's was wrong."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from datetime import timedelta

from dtimer.backends.redis.clock_reset import Clocks, look, reset_clock
from dtimer.backends.redis.repartition import client_for
from dtimer.cli.asking import agreed
from dtimer.errors import DTimerError
from dtimer.protocol.values import ClockReset


def run_clock_reset(url: str, *, namespace: str, yes: bool, cluster: bool, sentinel: str | None) -> int:
    """Say what there is, ask, and do it; the exit status is 0 if the clock is right, 1 if it was to stay, else 2."""
    try:
        found = asyncio.run(_look(url, namespace, cluster, sentinel))
        if found is None:
            print(f"namespace {namespace!r} does not exist")
            return 0
        if not found.skew_us:
            print(f"namespace {namespace!r}: its clock is the server's")
            return 0
        ahead = timedelta(microseconds=found.skew_us)
        print(f"namespace {namespace!r}: its clock is {ahead} ahead of the server's, in {found.partitions} partitions")
        if found.interrupted:
            print("an earlier reset was interrupted; this one goes on from there")
        if not yes:
            print("Is the server's clock right now? No node may be joined, and calls are refused for some moments.")
            if not agreed("reset the namespace's clock to it?", refused="nothing is changed"):
                return 1
        done = asyncio.run(_reset(url, namespace, cluster, sentinel))
    except DTimerError as error:
        print(error, file=sys.stderr)
        return 2
    if done is not None:
        print(f"reset: the times of {done.events} live events and {done.dead_letters} dead letters were put right")
    return 0


async def _look(url: str, namespace: str, cluster: bool, sentinel: str | None) -> Clocks | None:
    async with aclosing(client_for(url, cluster=cluster, service=sentinel)) as client:
        return await look(client, namespace)


async def _reset(url: str, namespace: str, cluster: bool, sentinel: str | None) -> ClockReset | None:
    async with aclosing(client_for(url, cluster=cluster, service=sentinel)) as client:
        return await reset_clock(client, namespace)
