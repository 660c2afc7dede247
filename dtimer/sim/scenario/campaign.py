"""Many seeds, over several processes of the real machine; each seed's run is the same wherever it is run."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeAlias, cast

from attrs import field, frozen

from dtimer.sim.checks.violation import Violation
from dtimer.sim.faulty.world import World
from dtimer.sim.scenario.options import HOUR_S, Options
from dtimer.sim.scenario.runner import Outcome, run_seed

_Worker: TypeAlias = "Connection[Any, Any]"
"""Takes seeds, and gives reports and, meanwhile, what :meth:`_Board.heard` is told."""


@frozen(kw_only=True)
class SeedReport:
    """What came of one seed, small enough to be sent between processes.

    Attributes:
        counts: as :attr:`dtimer.sim.Run.counts`.
        case_json: of a run with violations, spelled out; else empty.
        hours: of virtual time, draining included.
    """

    seed: int
    violations: tuple[Violation, ...]
    counts: Mapping[str, int] = field(repr=False)
    digest: str
    hours: float
    case_json: str = field(default="", repr=False)

    @property
    def counted(self) -> bool:
        """A run in which nothing went wrong, or nothing had to be done again, shows nothing."""
        return bool(self.counts.get("faults")) and bool(self.counts.get("retries") or self.counts.get("takeovers"))


@frozen
class Progress:
    """How far all seeds together are.

    Attributes:
        hours: of virtual time.
    """

    seeds: int
    hours: float
    faults: int
    delivered: int


def report_of(outcome: Outcome) -> SeedReport:
    return SeedReport(
        seed=outcome.case.seed,
        violations=outcome.violations,
        counts=outcome.run.counts,
        digest=outcome.run.digest,
        hours=outcome.run.duration_us / 1e6 / HOUR_S,
        case_json=outcome.case.to_json() if outcome.violations else "",
    )


def run_seeds(
    options: Options, seeds: Sequence[int], *, jobs: int, on_progress: Callable[[Progress], None]
) -> Generator[SeedReport]:
    """The report of each seed, in their order, so that the first that fails is the same however many work at it.

    Args:
        jobs: so many processes; 1 runs them here.

    Raises:
        EOFError: a process has died.
    """
    if jobs == 1 or len(seeds) == 1:
        board = _Board(on_progress)
        for seed in seeds:
            report = report_of(run_seed(options, seed, on_progress=board.hear_of(seed)))
            board.done(report)
            yield report
        return
    board = _Board(on_progress)
    done: dict[int, SeedReport] = {}
    todo = deque(seeds)
    with _workers(options, min(jobs, len(seeds))) as workers:
        for worker in workers:
            worker.send(todo.popleft())
        for seed in seeds:
            while seed not in done:
                for ready in wait(workers):
                    worker = cast("_Worker", ready)
                    match worker.recv():
                        case SeedReport() as report:
                            done[report.seed] = report
                            board.done(report)
                            if todo:
                                worker.send(todo.popleft())
                        case BaseException() as error:
                            raise error
                        case heard:
                            board.heard(*heard)
            yield done.pop(seed)


@contextmanager
def _workers(options: Options, count: int) -> Generator[list[_Worker]]:
    """Connections to so many processes, which end with the block. Nothing is shared that could be left behind."""
    # Spawned, not forked: the caller may have threads, a progress bar's for one.
    context = multiprocessing.get_context("spawn")
    processes: list[SpawnProcess] = []
    connections: list[_Worker] = []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(options, theirs), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            connections.append(ours)  # pyright: ignore[reportArgumentType]  # a pipe is no other on Windows, to us
        yield connections
    finally:
        for process, connection in zip(processes, connections, strict=True):
            connection.close()
            process.terminate()
        for process in processes:
            process.join()


def _work(options: Options, boss: _Worker) -> None:
    """A process's whole life: a seed comes, its report goes, until there is nobody any more who could send one."""
    # Ctrl-C is for the process that asked; it ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            seed: int = boss.recv()
            try:
                report = report_of(run_seed(options, seed, on_progress=_teller(seed, boss)))
            except Exception as error:
                error.add_note(f"raised in the run of seed {seed}")
                boss.send(error)
            else:
                boss.send(report)


def _teller(seed: int, boss: _Worker) -> Callable[[float, World], None]:
    return lambda now_s, world: boss.send((seed, *_seen(now_s, world)))


class _Board:
    """Adds up what is heard of the seeds that run and what those that are done have reported."""

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self._on_progress = on_progress
        self._running: dict[int, tuple[float, int, int]] = {}
        self._done: Counter[str] = Counter()
        self._hours = 0.0

    def hear_of(self, seed: int) -> Callable[[float, World], None]:
        return lambda now_s, world: self.heard(seed, *_seen(now_s, world))

    def heard(self, seed: int, hours: float, faults: int, delivered: int) -> None:
        self._running[seed] = (hours, faults, delivered)
        self._tell()

    def done(self, report: SeedReport) -> None:
        self._running.pop(report.seed, None)
        self._hours += report.hours
        self._done += Counter(
            seeds=1, faults=report.counts.get("faults", 0), delivered=report.counts.get("delivered", 0)
        )
        self._tell()

    def _tell(self) -> None:
        hours, faults, delivered = (sum(each) for each in zip((0, 0, 0), *self._running.values(), strict=True))
        progress = Progress(
            self._done["seeds"],
            self._hours + hours,
            self._done["faults"] + int(faults),
            self._done["delivered"] + int(delivered),
        )
        self._on_progress(progress)


def _seen(now_s: float, world: World) -> tuple[float, int, int]:
    return now_s / HOUR_S, world.counts.get("faults", 0), world.counts.get("delivered", 0)


def cores() -> int:
    """So many processes keep this machine busy."""
    return os.cpu_count() or 1
