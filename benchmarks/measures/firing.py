"""What fired, and whether all of it may be believed: a broken run must not make a figure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from benchmarks.process import Broken, PeerProcess, number

EARLY_MAX_US: Final = 1_000
"""Most peers reckon in whole milliseconds."""
STUCK_S: Final = 10.0
POLL_S: Final = 0.05
AFTERWARDS_S: Final = 0.3
"""Confirms are still on their way when the last handler has begun, and so would be a second delivery."""


def wait_for(nodes: Sequence[PeerProcess], num: int) -> None:
    """Until so many have fired.

    Raises:
        Broken: nothing has fired for long, and some are missing.
    """
    seen = -1.0
    deadline_s = 0.0
    while (now := sum(number(node.ask("count"), "num") for node in nodes)) < num:
        if now > seen:
            seen, deadline_s = now, time.monotonic() + STUCK_S
        if time.monotonic() > deadline_s:
            raise Broken(f"{num - now:.0f} of {num} did not fire")
        time.sleep(POLL_S)
    time.sleep(AFTERWARDS_S)


def checked(parts: Sequence[object], expected: range) -> list[float]:
    """The lateness of all in us, sorted.

    Args:
        parts: the fires that each process reports.
        expected: the numbers of the timers that were due.

    Raises:
        Broken: one was lost, early, or fired twice, or fired without being due.
    """
    seen: set[int] = set()
    late_us: list[float] = []
    for fires in parts:
        assert isinstance(fires, list)
        for n, us in fires:
            if n in seen:
                raise Broken(f"timer {n} fired twice")
            seen.add(n)
            late_us.append(us)
    if missing := len(expected) - len(seen.intersection(expected)):
        raise Broken(f"{missing} of {len(expected)} did not fire")
    if strange := len(seen) - len(expected):
        raise Broken(f"{strange} fired that were not due")
    late_us.sort()
    if late_us and late_us[0] < -EARLY_MAX_US:
        raise Broken(f"one fired {-late_us[0] / 1000:.1f} ms early")
    return late_us
