"""What is to be reached, as data; every report reads it from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from attrs import frozen

from benchmarks.catalogue import ORIGINAL, OURS

Median = Callable[[str, str], float | None]

ALL: Final = "the fastest peer"
PYTHON: Final = "the fastest in Python"
ASYNCIO: Final = "the fastest asyncio peer"
THE_ORIGINAL: Final = "dtimer 0.3.3 (Node)"


@frozen
class Goal:
    """One line of the table.

    Attributes:
        figure: ours.
        sense: whether the limit must be reached or may not be passed.
        against: the limit is a multiple of this one's figure, unless it is empty.
        base: the limit is a multiple of this other figure of ours, unless it is empty.
        unit: of the figures.
    """

    what: str
    figure: str
    sense: Literal["at least", "at most"]
    limit: float
    unit: str
    against: str = ""
    base: str = ""

    @property
    def is_ratio(self) -> bool:
        return bool(self.against or self.base)

    @property
    def said(self) -> str:
        """The goal in words."""
        if self.against:
            return f"{self.sense} {self.limit:g} x {self.against}"
        if self.base:
            return f"{self.sense} {self.limit:g} x the other"
        return f"{self.sense} {self.limit:g} {self.unit}"


@frozen
class Verdict:
    """A goal and what was measured.

    Attributes:
        theirs: what it is compared with, `who` by name.
        ratio: ours to theirs; None if the goal is none, or something was not measured.
        reached: None if it cannot be told.
    """

    goal: Goal
    ours: float | None
    theirs: float | None
    who: str
    ratio: float | None
    reached: bool | None


GOALS: Final = (
    Goal("posts, one caller", "post.one", "at least", 1.1, "/s", against=ASYNCIO),
    Goal("posts, 64 callers", "post.callers", "at least", 2, "/s", against=ALL),
    Goal("posts, batches of 500", "post.batch", "at least", 4, "/s", against=ALL),
    Goal("due at once, 100 handlers at a time", "drain.100", "at least", 2, "/s", against=ALL),
    Goal("due at once, 100 handlers at a time", "drain.100", "at least", 12, "/s", against=PYTHON),
    Goal("due at once, max_events 256", "drain.256", "at least", 2, "/s", against=THE_ORIGINAL),
    Goal("due at once, max_events 8", "drain.8", "at least", 2.5, "/s", against=THE_ORIGINAL),
    Goal("lateness at 500/s, p50", "late.500.p50", "at most", 1, "ms"),
    Goal("lateness at 500/s, p99", "late.500.p99", "at most", 5, "ms"),
    Goal("lateness at 2,000/s, p50", "late.2000.p50", "at most", 2, "ms"),
    Goal("lateness at 2,000/s, p99", "late.2000.p99", "at most", 10, "ms"),
    Goal("lateness, quiet, p50", "late.quiet.p50", "at most", 2, "ms"),
    Goal("lateness, quiet, p99", "late.quiet.p99", "at most", 4, "ms"),
    Goal("Redis work for a timer's life", "work.cpu_us", "at most", 20, "us"),
    Goal("commands for a timer's life", "work.commands", "at most", 2, "commands"),
    Goal("memory of a pending timer", "memory", "at most", 440, "bytes"),
    Goal("idle, 1 node", "idle.1.calls", "at most", 2 + 0.1, "calls/s"),
    Goal("idle, 50 nodes", "idle.50.calls", "at most", 2 + 0.1 * 50, "calls/s"),
    Goal(
        "1 million pending against 10,000",
        "backlog.1000000.life_us", "at most", 1.5, "us", base="backlog.10000.life_us",
    ),
    Goal(
        "10 million pending against 10,000",
        "backlog.10000000.life_us", "at most", 2.5, "us", base="backlog.10000.life_us",
    ),
    Goal("two processes against one", "nodes.2", "at least", 1, "/s", base="nodes.1"),
    Goal("two processes, the smaller share", "nodes.2.share", "at least", 0.25, "of all"),
)  # fmt: skip


def judge(goal: Goal, median: Median, runtimes: Mapping[str, str]) -> Verdict:
    """Compare a goal with what was measured.

    Args:
        median: of a figure, for a subject.
        runtimes: of all peers by key: ``python`` or ``node``.
    """
    ours = median(goal.figure, OURS)
    theirs, who = None, ""
    if goal.base:
        theirs, who = median(goal.base, OURS), goal.base
    elif goal.against:
        allowed = [key for key, runtime in runtimes.items() if _is_meant(goal.against, key, runtime)]
        measured = {key: value for key in allowed if (value := median(goal.figure, key)) is not None}
        if measured:
            who = max(measured, key=lambda key: measured[key])
            theirs = measured[who]
    value = ours
    ratio = None
    if goal.is_ratio:
        value = ratio = None if ours is None or not theirs else ours / theirs
    reached = None
    if value is not None:
        reached = value >= goal.limit if goal.sense == "at least" else value <= goal.limit
    return Verdict(goal, ours, theirs, who, ratio, reached)


def _is_meant(against: str, key: str, runtime: str) -> bool:
    if key == OURS:
        return False
    if against == THE_ORIGINAL:
        return key == ORIGINAL
    return against == ALL or runtime == "python"
