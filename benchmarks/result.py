"""What a run has found, with all that is needed to read it later."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from attrs import asdict, field, frozen

from benchmarks.bench import Bench, Failure
from benchmarks.catalogue import OURS
from benchmarks.environments import ROOT
from benchmarks.goals import GOALS, Verdict, judge

CURVE_POINTS: Final = 200


@frozen
class Subject:
    """A peer as it was measured."""

    key: str
    title: str
    runtime: str
    said: str
    note: str
    versions: dict[str, str]


@frozen
class Result:
    """One run.

    Attributes:
        command: what to run for the same, reports left out.
        values: for each figure and subject the values of its rounds.
        curves: for each rate and subject the lateness in ms at `CURVE_POINTS` equal steps from the least to the most.
        left_out: peers that could not be set up, and why.
        against: the commit that ours is compared with instead of peers, if it is.
        ratios: for each figure those of ours to that commit's, of the rounds in which both have one.
    """

    made: str
    version: str
    commit: str
    machine: str
    server: str
    command: str
    rounds: int
    uvloop: bool
    subjects: list[Subject]
    values: dict[str, dict[str, list[float]]]
    curves: dict[str, dict[str, list[float]]]
    failures: list[Failure]
    left_out: dict[str, str] = field(factory=dict)
    against: str = ""
    ratios: dict[str, list[float]] = field(factory=dict)

    def median(self, figure: str, subject: str) -> float | None:
        values = self.values.get(figure, {}).get(subject)
        return statistics.median(values) if values else None

    @property
    def conditions(self) -> str:
        """Under which it was measured."""
        rounds = f"{self.rounds} alternating round{'' if self.rounds == 1 else 's'}"
        return f"{self.machine}, {self.server} without persistence, medians of {rounds}"

    def title(self, subject: str) -> str:
        return next((known.title for known in self.subjects if known.key == subject), subject)

    @property
    def verdicts(self) -> list[Verdict]:
        runtimes = {subject.key: subject.runtime for subject in self.subjects}
        return [judge(goal, self.median, runtimes) for goal in GOALS]

    @property
    def broken(self) -> list[Failure]:
        return [failure for failure in self.failures if failure.broken]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        stored = json.loads(path.read_text())
        stored["subjects"] = [Subject(**subject) for subject in stored["subjects"]]
        stored["failures"] = [Failure(**failure) for failure in stored["failures"]]
        return cls(**stored)


def result_of(
    bench: Bench, arguments: Sequence[str], uvloop: bool, left_out: Mapping[str, str], against: str = ""
) -> Result:
    subjects = [
        Subject(peer.key, peer.title, peer.runtime, peer.said, peer.note, dict(peer.versions)) for peer in bench.peers
    ]
    curves = {
        figure: {key: _curve(values) for key, values in by_subject.items()}
        for figure, by_subject in bench.figures.lateness_ms.items()
    }
    return Result(
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=_version(),
        commit=_commit(),
        machine=f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
        server=bench.server.name,
        command=" ".join(["make bench", *([f'ARGS="{" ".join(arguments)}"'] if arguments else [])]),
        rounds=bench.sizes.rounds,
        uvloop=uvloop,
        subjects=subjects,
        values=bench.figures.values,
        curves=curves,
        failures=bench.figures.failures,
        left_out=dict(left_out),
        against=against,
        ratios={figure: bench.figures.ratios(figure, OURS, against) for figure in bench.figures.values if against},
    )


def _curve(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return [round(ordered[last * step // CURVE_POINTS], 3) for step in range(CURVE_POINTS + 1)]


def _version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def _commit() -> str:
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
