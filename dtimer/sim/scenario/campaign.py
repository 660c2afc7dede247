"""Many seeds, over several processes of the real machine; each seed's run is the same wherever it is run."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue
from threading import Thread
from typing import Final, TypeAlias

from attrs import field, frozen

from dtimer.sim.checks.violation import Violation
from dtimer.sim.faulty.world import World
from dtimer.sim.scenario.options import HOUR_S, Options
from dtimer.sim.scenario.runner import Outcome, run_seed

PROGRESS_EVERY_S: Final = 0.1
"""So often is looked how far the processes are, besides when a seed is done."""

_Seen: TypeAlias = tuple[int, float, int, int]
"""How far a seed is: what :meth:`_Board.heard` is told."""


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
        BrokenProcessPool: a process has died.
    """
    if jobs == 1 or len(seeds) == 1:
        board = _Board(on_progress)
        for seed in seeds:
            report = report_of(run_seed(options, seed, on_progress=board.hear_of(seed)))
            board.done(report)
            yield report
        return
    board = _Board(on_progress)
    # Spawned, not forked: the caller may have threads, a progress bar's for one.
    context = multiprocessing.get_context("spawn")
    progress: SimpleQueue[_Seen] = context.SimpleQueue()
    alive, life = context.Pipe(duplex=False)
    begin = partial(_begin, progress, alive)  # pyright: ignore[reportArgumentType]  # of another type on Windows
    pool = ProcessPoolExecutor(min(jobs, len(seeds)), context, initializer=begin)
    todo = iter(seeds)
    done: dict[int, SeedReport] = {}
    try:
        running = {pool.submit(_report, options, seed) for seed in islice(todo, jobs)}
        for seed in seeds:
            while seed not in done:
                ended, running = wait(running, PROGRESS_EVERY_S, FIRST_COMPLETED)
                while not progress.empty():
                    board.heard(*progress.get())
                for future in ended:
                    report = future.result()
                    done[report.seed] = report
                    board.done(report)
                running |= {pool.submit(_report, options, seed) for seed in islice(todo, len(ended))}
            yield done.pop(seed)
    finally:
        life.close()
        pool.shutdown()


_progress: SimpleQueue[_Seen] | None = None
"""Where a process of the pool says how far its seed is."""


def _begin(progress: SimpleQueue[_Seen], alive: Connection) -> None:
    """Prepare a process of the pool, which ends at once when the other end of `alive` is closed.

    That is at the end of :func:`run_seeds`, or when its process was killed. A pool itself waits for what is running.
    """
    global _progress  # noqa: PLW0603  # a pool has no other place for what a process is started with
    _progress = progress
    # Ctrl-C is for the process that asked; it ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with, args=(alive,), daemon=True).start()


def _end_with(alive: Connection) -> None:
    alive.poll(None)
    os._exit(1)


def _report(options: Options, seed: int) -> SeedReport:
    """Run a seed in a process of the pool."""
    progress = _progress
    assert progress is not None, "_begin has set it"

    def tell(now_s: float, world: World) -> None:
        progress.put((seed, *_seen(now_s, world)))

    try:
        return report_of(run_seed(options, seed, on_progress=tell))
    except Exception as error:
        error.add_note(f"raised in the run of seed {seed}")
        raise


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
