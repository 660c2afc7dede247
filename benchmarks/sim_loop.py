"""How many bare ``asyncio.sleep`` a second the simulator's event loop gets through: ``python benchmarks/sim_loop.py``.

Seconds of processor time, so that other work on the host does not count. The best of several rounds, as the rest of
what is measured is disturbance. The loops of asyncio's own do the same with sleeps that end at once, for comparison.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from dtimer.sim.loop import SimLoop

Program = Callable[[int], Coroutine[Any, Any, None]]


async def sleep_alone(sleeps: int) -> None:
    for _ in range(sleeps):
        await asyncio.sleep(1)


async def _sleep(sleeps: int, period_s: float) -> None:
    for _ in range(sleeps):
        await asyncio.sleep(period_s)


async def sleep_in_three(sleeps: int) -> None:
    """Three tasks with periods of their own."""
    async with asyncio.TaskGroup() as group:
        for period_s in (1.0, 1.1, 1.3):
            group.create_task(_sleep(sleeps // 3, period_s))


async def sleep_in_a_thousand(sleeps: int) -> None:
    """A thousand tasks whose deadlines are always equal."""
    async with asyncio.TaskGroup() as group:
        for _ in range(1_000):
            group.create_task(_sleep(sleeps // 1_000, 1.0))


async def sleep_in_five_processes(sleeps: int) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    tasks = [loop.process(f"n{number}").create_task(_sleep(sleeps // 10, 1.0)) for number in range(5) for _ in range(2)]
    await asyncio.gather(*tasks)


async def turn(sleeps: int) -> None:
    """No timers: the cost of a turn."""
    for _ in range(sleeps):
        await asyncio.sleep(0)


PROGRAMS: Final[dict[str, Program]] = {
    "1 task": sleep_alone,
    "3 tasks": sleep_in_three,
    "1,000 tasks, equal deadlines": sleep_in_a_thousand,
    "5 processes, equal deadlines": sleep_in_five_processes,
    "sleep(0)": turn,
}


def simulate(program: Program, sleeps: int) -> None:
    SimLoop(1).run(program(sleeps))


def rate(run: Callable[[], object], sleeps: int, rounds: int) -> int:
    """Sleeps a second of processor time, in the best of some rounds."""
    times: list[float] = []
    for _ in range(rounds):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return round(sleeps / min(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sleeps", type=int, default=60_000, help="in each round (default: 60,000)")
    parser.add_argument("--rounds", type=int, default=5, help="the best one counts (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rates = {
        name: rate(partial(simulate, program, options.sleeps), options.sleeps, options.rounds)
        for name, program in PROGRAMS.items()
    }
    rates["asyncio's own loop, sleep(0)"] = rate(
        lambda: asyncio.run(turn(options.sleeps)), options.sleeps, options.rounds
    )
    if options.json:
        print(json.dumps({"python": platform.python_version(), "unit": "sleeps/s of processor time", "rates": rates}))
        return
    print(f"Python {platform.python_version()}, sleeps a second of processor time, best of {options.rounds} rounds")
    for name, sleeps_per_second in rates.items():
        print(f"{name:<32}{sleeps_per_second:>12,}")


if __name__ == "__main__":
    main()
