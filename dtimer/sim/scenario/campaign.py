"""Many seeds, over several processes of the real machine; each seed's run is the same wherever it is run."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.queues import SimpleQueue
from typing import Final

from attrs import field, frozen

from dtimer.sim.checks.violation import Violation
from dtimer.sim.faulty.world import World
from dtimer.sim.scenario.options import HOUR_S, Options
from dtimer.sim.scenario.runner import Outcome, run_seed

LOOK_S: Final = 0.1


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
) -> Iterator[SeedReport]:
    """The report of each seed, in the order in which they are done.

    Args:
        jobs: so many processes; 1 runs them here.
    """
    if jobs == 1 or len(seeds) == 1:
        board = _Board(on_progress)
        for seed in seeds:
            report = report_of(run_seed(options, seed, on_progress=board.hear_of(seed)))
            board.done(report)
            yield report
        return
    # Spawned, not forked: the caller may have threads, a progress bar's for one.
    context = multiprocessing.get_context("spawn")
    mailbox: SimpleQueue[tuple[int, float, int, int]] = context.SimpleQueue()
    board = _Board(on_progress)
    with ProcessPoolExecutor(jobs, context, _begin, (mailbox,)) as pool:
        waiting: set[Future[SeedReport]] = {pool.submit(_run, options, seed) for seed in seeds}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=LOOK_S, return_when=FIRST_COMPLETED)
                while not mailbox.empty():
                    board.heard(*mailbox.get())
                for future in done:
                    report = future.result()
                    board.done(report)
                    yield report
        finally:
            for future in waiting:
                future.cancel()


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


_mailbox: SimpleQueue[tuple[int, float, int, int]] | None = None


def _begin(mailbox: SimpleQueue[tuple[int, float, int, int]]) -> None:
    global _mailbox  # noqa: PLW0603  # a process of the pool has no other way to be handed a queue
    _mailbox = mailbox
    # Ctrl-C is for the process that asked; it ends the others.

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(options: Options, seed: int) -> SeedReport:
    mailbox = _mailbox
    assert mailbox is not None, "_begin() comes first"

    def tell(now_s: float, world: World) -> None:
        mailbox.put((seed, *_seen(now_s, world)))

    return report_of(run_seed(options, seed, on_progress=tell))


def cores() -> int:
    """So many processes keep this machine busy."""
    return os.cpu_count() or 1
