"""``dtimer sim``: the library's own workload in a faulty world, for many seeds; what fails is reduced and shown."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from attrs import evolve, fields

from dtimer.cli.errors import UsageError
from dtimer.cli.files import check_writable, read
from dtimer.errors import InvalidArgument
from dtimer.safe_repr import printable

if TYPE_CHECKING:
    from dtimer.sim.faulty.faults import Fault
    from dtimer.sim.scenario.campaign import Progress, SeedReport
    from dtimer.sim.scenario.case import Case
    from dtimer.sim.scenario.runner import Outcome
    from dtimer.sim.scenario.steps import Step

T = TypeVar("T")

SEEDS_MAX: Final = 1_000_000
LINES_SHOWN: Final = 60
EVERY_S: Final = 2.0
"""So often a line is said where there is no terminal."""
SHRINK_RUNS_MAX: Final = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", metavar="N", type=int, default=10, help="try so many seeds (default: %(default)s)")
    parser.add_argument("--seed", metavar="S", type=int, help="the first seed; drawn if not given")
    parser.add_argument("--nodes", metavar="K", type=int, default=5, help="nodes of each run (default: %(default)s)")
    parser.add_argument(
        "--hours", metavar="H", type=float, default=1.0, help="virtual hours of each run (default: %(default)s)"
    )
    parser.add_argument(
        "--rate", metavar="R", type=float, default=600.0, help="clients' calls an hour (default: %(default)s)"
    )
    parser.add_argument("--faults", metavar="FILE", help="what goes wrong, as JSON; everything if not given")
    parser.add_argument("--jobs", metavar="N", type=int, help="processes; as many as cores if not given")
    parser.add_argument("--timeline", metavar="FILE", help="draw the first failing run, or the last one, as a page")
    parser.add_argument("--save", metavar="FILE", help="where to write a failing case (default: dtimer-case-SEED.json)")
    parser.add_argument("--replay", metavar="FILE", help="run a saved case, and nothing else")


def run_sim(given: argparse.Namespace) -> int:
    """0 if all is well, 1 if something is not as promised, 2 for bad arguments, 130 after Ctrl-C."""
    try:
        check_writable(given.timeline, given.save)
        if given.replay is not None:
            return _replay(_read_case(given.replay), given)
        return _campaign(given)
    except (UsageError, InvalidArgument) as error:
        print(f"dtimer sim: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


# --- many seeds -----------------------------------------------------------------------------------------------


def _campaign(given: argparse.Namespace) -> int:
    from dtimer.sim.faulty.fault_schedule import Faults
    from dtimer.sim.scenario.campaign import cores, run_seeds
    from dtimer.sim.scenario.case import Case
    from dtimer.sim.scenario.options import Options

    if not 1 <= given.seeds <= SEEDS_MAX:
        raise UsageError(f"--seeds must be from 1 to {SEEDS_MAX:,}, not {given.seeds}")
    jobs = cores() if given.jobs is None else given.jobs
    if jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    if given.seed is not None and given.seed < 0:
        raise UsageError(f"--seed must not be negative, as {given.seed} is")
    options = Options(nodes=given.nodes, hours=given.hours, rate=given.rate)
    if given.faults is not None:
        options = evolve(options, faults=_read_as(Faults.from_json, given.faults))
    first = secrets.randbelow(2**32) if given.seed is None else given.seed
    seeds = range(first, first + given.seeds)
    print(
        f"{given.seeds} seeds from {first}: {given.nodes} nodes, {given.hours:g} h, {given.rate:g} calls an hour",
        flush=True,
    )
    began_s = time.monotonic()
    reports: list[SeedReport] = []
    with (
        _progress(given.seeds, given.seeds * given.hours) as show,
        contextlib.closing(run_seeds(options, seeds, jobs=jobs, on_progress=show)) as coming,
    ):
        for report in coming:
            reports.append(report)
            if report.violations:
                break
    print(_table(reports, given.nodes, time.monotonic() - began_s))
    failed = next((report for report in reports if report.violations), None)
    if failed is not None:
        return _explain(Case.from_json(failed.case_json), given)
    if given.timeline is not None:
        from dtimer.sim.scenario.runner import run_seed

        _draw(run_seed(options, seeds[-1]), given.timeline)
    return 0


def _table(reports: Sequence[SeedReport], nodes: int, real_s: float) -> str:
    counts: Counter[str] = Counter()
    for report in reports:
        counts += Counter(dict(report.counts))
    hours = sum(report.hours for report in reports)
    idle = [report.seed for report in reports if not report.counted and not report.violations]
    faults = [
        (name.removeprefix("fault_").replace("_", " "), count)
        for name, count in counts.items()
        if name.startswith("fault_")
    ]
    speed = hours * 3_600 / max(real_s, 1e-9)
    rows = {
        "seeds": f"{len(reports):,}" + (f", {len(idle):,} of them show nothing: all went well at once" if idle else ""),
        "node-hours": f"{hours * nodes:,.1f} in {real_s:,.1f} s, {speed:,.0f} times as fast as time",
        "calls": f"{counts['calls']:,}, {counts['calls_failed']:,} of them failed",
        "delivered": f"{counts['delivered']:,}, {counts['retries']:,} retries, {counts['takeovers']:,} by another node",
        "ended": f"{counts['ended']:,} exhausted or expired",
        "faults": f"{counts['faults']:,}: " + ", ".join(f"{name} {count:,}" for name, count in sorted(faults)),
        "violations": str(sum(len(report.violations) for report in reports)),
    }
    return "\n".join(f"{name:11} {value}" for name, value in rows.items())


# --- one case -------------------------------------------------------------------------------------------------


def _replay(case: Case, given: argparse.Namespace) -> int:
    from dtimer.sim.scenario.runner import run_case

    outcome = run_case(case)
    _show(outcome)
    if given.timeline is not None:
        _draw(outcome, given.timeline)
    return 1 if outcome.violations else 0


def _explain(case: Case, given: argparse.Namespace) -> int:
    """Reduce a failing case, show it, and say how to see it again."""
    from dtimer.sim.scenario.runner import run_case
    from dtimer.sim.scenario.shrink import Shrinker

    parts = len(case.steps) + len(case.options.faults.script)
    print(f"\nseed {case.seed} fails; reducing its {parts:,} calls and faults", flush=True)
    shrinker = Shrinker(run_case(case, record=False), runs_max=SHRINK_RUNS_MAX)
    small = shrinker.shrink()
    outcome = run_case(small)
    calls, faults = len(small.steps), len(small.options.faults.script)
    print(
        f"enough are {_many(calls, 'call')} and {_many(faults, 'fault')} on {_many(small.options.nodes, 'node')} "
        f"({_many(shrinker.num_runs, 'run')}):\n"
    )
    _show(outcome)
    path = Path(given.save or f"dtimer-case-{case.seed}.json")
    path.write_text(small.to_json(), encoding="utf-8")
    if given.timeline is not None:
        _draw(outcome, given.timeline)
    print(f"\nreplay: dtimer sim --replay {printable(str(path))}")
    return 1


def _show(outcome: Outcome) -> None:
    from dtimer.sim.show.lines import lines

    case = outcome.case
    asked = [(step.at_s, f"  {_spelled(step, step.kind)}") for step in case.steps]
    broken = [(at_s, f"* {_spelled(fault, fault.kind)}") for at_s, fault in case.options.faults.script]
    for at_s, text in sorted(asked + broken)[:LINES_SHOWN]:
        print(f"  {at_s:12.6f} s  {text}")
    shown = list(lines(outcome.run.trace))
    if len(shown) > LINES_SHOWN:
        print(f"\n  the last {LINES_SHOWN} of {len(shown):,} lines:")
    print()
    for line in shown[-LINES_SHOWN:]:
        print(line)
    for violation in outcome.violations:
        print(f"\nVIOLATION {violation}")
    if not outcome.violations:
        print("\nno violation")


def _spelled(part: Step | Fault, kind: str) -> str:
    """A call or a fault with those of its parameters that are not as usual."""
    parameters = [
        f"{each.name}={getattr(part, each.name)!r}"
        for each in fields(type(part))
        if each.name != "at_s" and getattr(part, each.name) != each.default
    ]
    return " ".join([kind, *parameters])


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _draw(outcome: Outcome, path: str) -> None:
    from dtimer.sim.show.timeline import timeline_html

    page = timeline_html(outcome.run.trace, title=f"dtimer sim, seed {outcome.case.seed}")
    Path(path).write_text(page, encoding="utf-8")
    print(f"timeline: {printable(path)}")


def _read_case(path: str) -> Case:
    from dtimer.sim.scenario.case import Case

    return _read_as(Case.from_json, path)


def _read_as(from_json: Callable[[str], T], path: str) -> T:
    """What a file holds; what is wrong with its text is said of the file."""
    text = read(path)
    try:
        return from_json(text)
    except InvalidArgument as error:
        raise UsageError(f"{printable(path)} {error.problem}") from error


# --- progress -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(seeds: int, hours: float) -> Generator[Callable[[Progress], None]]:
    """A bar on a terminal; a line now and then elsewhere, and without the extra ``cli``."""
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), TextColumn("{task.percentage:>3.0f}%  {task.description}"))
            with Bar(*columns) as bar:
                task = bar.add_task("", total=hours)
                yield lambda now: bar.update(task, completed=now.hours, description=_said(now, seeds))
            return
    last_s = time.monotonic()

    def say(now: Progress) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= EVERY_S:
            last_s = time.monotonic()
            print(f"  {_said(now, seeds)}", flush=True)

    yield say


def _said(now: Progress, seeds: int) -> str:
    return (
        f"{now.seeds} of {seeds} seeds, {now.hours:,.1f} virtual hours, "
        f"{now.faults:,} faults, {now.delivered:,} events delivered"
    )
