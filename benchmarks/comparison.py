"""Two builds of ours, measured in alternation: by how much one differs from the other, and how sure that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from attrs import frozen

ROUNDS_MIN: Final = 12
"""With fewer there is no verdict."""
TOLERATED: Final = 0.05
TAIL: Final = 0.025
"""Of either side of an interval of 95 %."""


@frozen
class Line:
    """A figure, and which way is better."""

    what: str
    figure: str
    unit: str
    better: Literal["more", "less"]


LINES: Final = (
    Line("posts, one caller", "post.one", "/s", "more"),
    Line("posts, 64 callers", "post.callers", "/s", "more"),
    Line("posts, batches of 500", "post.batch", "/s", "more"),
    Line("due at once, max_events 8", "drain.8", "/s", "more"),
    Line("due at once, max_events 100", "drain.100", "/s", "more"),
    Line("due at once, max_events 256", "drain.256", "/s", "more"),
    Line("lateness at 500/s, p50", "late.500.p50", "ms", "less"),
    Line("lateness at 500/s, p99", "late.500.p99", "ms", "less"),
    Line("lateness at 2,000/s, p50", "late.2000.p50", "ms", "less"),
    Line("lateness at 2,000/s, p99", "late.2000.p99", "ms", "less"),
    Line("lateness, quiet, p50", "late.quiet.p50", "ms", "less"),
    Line("lateness, quiet, p99", "late.quiet.p99", "ms", "less"),
    Line("Redis work for a timer's life", "work.cpu_us", "us", "less"),
    Line("memory of a pending timer", "memory", "bytes", "less"),
    Line("idle, 1 node", "idle.1.calls", "calls/s", "less"),
    Line("idle, 50 nodes", "idle.50.calls", "calls/s", "less"),
    Line("a simulated day, CPU", "sim.day.cpu_s", "s", "less"),
    Line("a simulated day, memory", "sim.day.peak_mib", "MiB", "less"),
    Line("a unit test over a week, CPU", "sim.test.cpu_ms", "ms", "less"),
    Line("a simulated idle node-hour, CPU", "sim.idle.cpu_s", "s", "less"),
)


@frozen
class Compared:
    """A line as it was measured.

    Attributes:
        rounds: in which both sides have a figure.
        ratio: the median of today's to the other's, round by round.
        interval: of that median, with 95 % confidence; None with too few rounds for one.
        worse: None with fewer than `ROUNDS_MIN` rounds.
    """

    line: Line
    rounds: int
    ratio: float
    interval: tuple[float, float] | None
    worse: bool | None

    @property
    def said(self) -> str:
        if self.worse is None:
            return f"too few rounds: {self.rounds} of {ROUNDS_MIN}"
        return "WORSE" if self.worse else "no worse"


def compare(line: Line, ratios: Sequence[float]) -> Compared:
    """Judge a line: worse is what lies below 0.95 with its whole interval, or above 1.05 where less is better."""
    assert ratios, "there is something to compare"
    interval = interval_of_median(ratios)
    worse = None
    if interval is not None and len(ratios) >= ROUNDS_MIN:
        low, high = interval
        worse = high < 1 - TOLERATED if line.better == "more" else low > 1 + TOLERATED
    return Compared(line, len(ratios), statistics.median(ratios), interval, worse)


def comparison(ratios: Mapping[str, Sequence[float]]) -> list[Compared]:
    """All lines that were measured."""
    return [compare(line, found) for line in LINES if (found := ratios.get(line.figure))]


def interval_of_median(values: Sequence[float]) -> tuple[float, float] | None:
    """Two of the values, between which the median of all possible ones lies with a confidence of at least 95 %.

    It holds for any distribution: each value is below the median as a coin falls, so the k-th least is above it with
    the probability that fewer than k of n coins fall so. None if not even the least and the most are enough, which
    takes six values.
    """
    ordered = sorted(values)
    num = len(ordered)
    rank, tail = 0, 0.0
    while rank < num and (tail := tail + math.comb(num, rank) / 2**num) <= TAIL:
        rank += 1
    return (ordered[rank - 1], ordered[num - rank]) if rank else None
