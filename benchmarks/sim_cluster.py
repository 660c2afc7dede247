"""How fast a simulated cluster is: lives of timers a second, the CPU of idle nodes, a whole day, and memory.

A life is post, claim, handler and confirm, through real `DTimer` nodes. All figures are of this process's CPU time,
the best of several tries, so that other load on the host matters less.

    python benchmarks/sim_cluster.py            # all
    python benchmarks/sim_cluster.py burst day  # some

``make bench ARGS="--against COMMIT --only simulator"`` runs single turns of it (``--turn``) with the package of either
build. So what a turn imports is public, and its names are as old as the commits that it is compared with.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

from dtimer import DTimer, Event, JsonValue
from dtimer.sim import Host, SimBackend, Simulation, World

TRIES: Final = 3
TIMERS_AN_HOUR: Final = 100_000 / 24
AHEAD_MS_AN_HOUR: Final = 1_800_000 / 24
"""In a whole day up to half an hour, so that some thousand are waiting."""
UNIT_TESTS: Final = 20
"""In a turn; two more come first, which import what is imported at first use."""


class Cluster:
    """Nodes that confirm whatever they get."""

    def __init__(self, nodes: int, *, record: bool, max_events: int = 8) -> None:
        self.simulation = Simulation(seed=1, nodes=nodes, record=record)
        self.handled = 0

        @self.simulation.node
        async def program(host: Host) -> None:
            timer = DTimer(host.backend(), node_id=host.name, max_events=max_events)

            @timer.on("event")
            async def handle(event: Event[JsonValue]) -> None:
                async with event:
                    self.handled += 1

            async with timer:
                await host.forever()

    async def drain(self, world: World, total: int, *, every_s: float = 0.1) -> None:
        await world.until(lambda: self.handled == total, every_s=every_s)
        await asyncio.sleep(2)
        inspection = world.inspect()
        assert inspection is not None
        assert not inspection.live


def lives_in_bursts(total: int = 20_000) -> float:
    """Lives a second: 3 nodes with room for 512, bursts of 2,000 posts, nothing recorded."""
    cluster = Cluster(3, record=False, max_events=512)

    async def scenario(world: World) -> None:
        timer = DTimer(world.backend())

        async def post(number: int) -> None:
            await timer.post({"n": number}, delay=1_000, max_retries=1)

        for first in range(0, total, 2_000):
            await asyncio.gather(*(post(first + number) for number in range(2_000)))
        await cluster.drain(world, total)

    return total / cpu_s(lambda: cluster.simulation.run(scenario))


def lives_one_by_one(*, record: bool = False, checked: bool = False, total: int = 5_000) -> float:
    """Lives a second: 3 nodes, one event every 10 ms; with the checkers of `dtimer sim`, if wanted."""
    from dtimer.sim.checks.court import Court

    cluster = Cluster(3, record=record)
    court = Court(checked=checked)

    async def scenario(world: World) -> None:
        court.open(world)
        timer = DTimer(world.backend())
        for number in range(total):
            await timer.post({"n": number}, delay=5, max_retries=1)
            await asyncio.sleep(0.01)
        await cluster.drain(world, total)

    return total / cpu_s(lambda: cluster.simulation.run(scenario))


def idle_node_hour(nodes: int = 5, hours: float = 1) -> float:
    """CPU seconds an hour of one of 5 nodes, at the pace of production."""
    cluster = Cluster(nodes, record=False)

    async def scenario(world: World) -> None:
        timer = DTimer(world.backend())
        await timer.post({}, delay=1e10)
        await asyncio.sleep(3_600 * hours)

    return cpu_s(lambda: cluster.simulation.run(scenario)) / nodes / hours


def day(*, record: bool, hours: float = 24) -> tuple[float, int, int]:
    """CPU seconds of a day of 5 nodes; and the peak of memory in MiB, after a tenth and after all."""
    cluster = Cluster(5, record=record)
    timers = round(hours * TIMERS_AN_HOUR)
    gap_s = hours * 3_600 / timers
    ahead_ms = round(hours * AHEAD_MS_AN_HOUR)
    peaks: list[int] = []

    async def scenario(world: World) -> None:
        timer = DTimer(world.backend())
        for number in range(timers):
            await timer.post({"n": number}, delay=number * 7_919 % ahead_ms, max_retries=1)
            await asyncio.sleep(gap_s)
            if number in {timers // 10, timers - 1}:
                peaks.append(peak_mib())
        await cluster.drain(world, timers, every_s=60)

    seconds = cpu_s(lambda: cluster.simulation.run(scenario))
    return seconds, peaks[0], peaks[1]


async def unit_test() -> None:
    """A test of an application: one timer, and a week."""
    got: list[JsonValue] = []
    async with SimBackend() as sim, DTimer(backend=sim) as timer:

        @timer.on("event")
        async def handle(event: Event[JsonValue]) -> None:
            async with event:
                got.append(event.payload)

        await timer.post({"cart": 7}, delay=timedelta(days=7), max_retries=1)
        await sim.advance(timedelta(days=7))
    assert got == [{"cart": 7}]


def unit_tests(count: int) -> float:
    """CPU milliseconds of one unit test over a week, each in an event loop of its own, as plugins for pytest do it."""

    def run(times: int) -> None:
        for _ in range(times):
            asyncio.run(unit_test())

    run(2)
    return cpu_s(lambda: run(count)) / count * 1_000


def peak_mib() -> int:
    """The most memory that this process has had."""
    try:
        # What getrusage() says counts what the process was that started this one.
        fields = Path("/proc/self/status").read_text().split()
        return int(fields[fields.index("VmHWM:") + 1]) >> 10
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def cpu_s(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def turn(what: str, hours: float) -> dict[str, float]:
    """One turn of one part: its CPU, and the most memory."""
    if what == "day":
        cpu = day(record=False, hours=hours)[0] / hours * 24
    elif what == "test":
        cpu = unit_tests(UNIT_TESTS)
    else:
        cpu = idle_node_hour(hours=hours)
    return {"cpu": cpu, "peak_mib": peak_mib()}


def main(wanted: list[str]) -> None:
    print(f"Python {platform.python_version()}, {platform.machine()}")
    if not wanted or "burst" in wanted:
        best = max(lives_in_bursts() for _ in range(TRIES))
        print(f"lives in bursts, not recorded:        {best:>9,.0f} a second")
    if not wanted or "single" in wanted:
        for what, how in (("", {}), (", recorded", {"record": True}), (", all checkers on", {"checked": True})):
            best = max(lives_one_by_one(**how) for _ in range(TRIES))
            print(f"{'lives one by one' + what + ':':37} {best:>9,.0f} a second")
    if not wanted or "test" in wanted:
        least = min(unit_tests(UNIT_TESTS) for _ in range(TRIES))
        print(f"a unit test over a week:              {least:>9.2f} ms")
    if not wanted or "idle" in wanted:
        least = min(idle_node_hour() for _ in range(TRIES))
        print(f"an idle node, one hour:               {least:>9.3f} s")
    if not wanted or "day" in wanted:
        for record in (False, True):
            seconds, early, late = day(record=record)
            what = f"a day, 5 nodes, 100,000 timers{', recorded' if record else ''}:"
            print(f"{what:42} {seconds:>5.1f} s; at most {early} MiB early, {late} MiB in the end")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="burst, single, test, idle, day; all unless given")
    parser.add_argument("--turn", choices=("day", "test", "idle"), help="print one figure of this part, as JSON")
    parser.add_argument("--hours", type=float, default=24.0, help="of the day, or of idling, in a turn")
    arguments = parser.parse_args()
    if arguments.turn:
        json.dump(turn(arguments.turn, arguments.hours), sys.stdout)
    else:
        main(arguments.parts)
