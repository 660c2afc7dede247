"""``make bench``: set up, measure in turn, report.

Ours beside its peers, or with ``--against`` beside itself at another commit.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from attrs import evolve

from benchmarks.bench import AGAINST, FULL, QUICK, QUICK_AGAINST, Bench, Measure
from benchmarks.catalogue import OURS, PEERS, Peer
from benchmarks.comparison import comparison
from benchmarks.environments import NotInstalled, commit_command, full_name, node_command, python_command
from benchmarks.measures import (
    backlog,
    calls,
    drains,
    growth,
    idling,
    lateness,
    memory,
    nodes,
    posts,
    raw,
    simulator,
)
from benchmarks.process import Command
from benchmarks.report.html import page
from benchmarks.report.markdown import write_into
from benchmarks.report.text import text
from benchmarks.result import Result, result_of
from benchmarks.server import Server

MEASURES: Final[dict[str, Measure]] = {
    "raw": raw.measure,
    "posts": posts.measure,
    "drains": drains.measure,
    "lateness": lateness.measure,
    "calls": calls.measure,
    "memory": memory.measure,
    "idle": idling.measure,
    "backlog": backlog.measure,
    "nodes": nodes.measure,
    "growth": growth.measure,
    "simulator": simulator.measure,
}

REPORTS: Final = ("--json", "--html", "--markdown")
NOT_QUICK: Final = ("backlog", "growth")
"""They compare small with large, which takes its time."""
COMPARABLE: Final = ("posts", "drains", "lateness", "memory", "idle", "simulator")
"""What two builds are compared by."""
COMPARED: Final = ("posts", "drains", "lateness", "memory")
"""Of those, what is measured unless it is said what is; idling takes as long as all of the others, and the simulator is
another matter than the library on a server."""
NO_COMPARISON: Final = ("peers", "backlogs", "html", "markdown", "read")
"""Options that say nothing when two builds are compared."""
QUICK_PEERS: Final = ("bullmq", "dtimer-node", "saq")
"""The fastest; the others poll, and take longer than a quick look may."""


def main(words: Sequence[str]) -> int:
    arguments = _arguments(words)
    try:
        with ended_in_order():
            result = _result(arguments, words)
    except NotInstalled as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text(result), end="")
    if arguments.json:
        result.write(arguments.json)
    if arguments.html:
        arguments.html.write_text(page(result))
    if arguments.markdown:
        write_into(arguments.markdown, result)
    return 1 if result.broken or any(line.worse for line in comparison(result.ratios)) else 0


def _result(arguments: argparse.Namespace, words: Sequence[str]) -> Result:
    if arguments.read:
        return Result.read(arguments.read)
    return _compared(arguments, words) if arguments.against else _measured(arguments, words)


@contextmanager
def ended_in_order() -> Generator[None]:
    """SIGTERM and SIGHUP end this process as Ctrl-C does: processes are ended and folders removed."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for number, handler in before.items():
            if handler != signal.SIG_IGN:  # as nohup has it
                signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers, one round: a look, not a figure")
    said = f"of {', '.join(MEASURES)}; --quick leaves out {' and '.join(NOT_QUICK)} unless they are named"
    parser.add_argument("--only", type=_names(MEASURES), help=said)
    keys = [peer.key for peer in PEERS]
    said = f"besides ours; --quick has {', '.join(QUICK_PEERS)}; of {', '.join(keys[1:])}"
    parser.add_argument("--peers", type=_names(keys), help=said)
    parser.add_argument("--rounds", type=int, help="how often everybody takes their turn")
    parser.add_argument("--backlogs", type=_numbers, help="pending timers to compare, say 10000,1000000,10000000")
    parser.add_argument("--uvloop", action="store_true", help="for all Python peers, and ours")
    parser.add_argument("--no-orjson", action="store_true", help="for no Python peer, nor ours")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page of plots")
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="renew the tables of a page of the documentation")
    parser.add_argument(
        "--from", type=Path, metavar="FILE", dest="read", help="report what --json wrote; measure nothing"
    )
    said = "ours beside itself at this commit, in alternation, instead of beside peers"
    parser.add_argument("--against", metavar="COMMIT", help=said)
    arguments = parser.parse_args(words)
    if arguments.against is not None:
        if unfit := [name for name in NO_COMPARISON if getattr(arguments, name)]:
            parser.error(f"--against has no use for --{unfit[0].replace('read', 'from')}")
        if unfit := [name for name in arguments.only or () if name not in COMPARABLE]:
            parser.error(f"--against compares {', '.join(COMPARABLE)}, not {unfit[0]}")
    return arguments


def _names(known: Sequence[str] | dict[str, Measure]) -> Callable[[str], list[str]]:
    def parse(value: str) -> list[str]:
        names = value.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def _numbers(value: str) -> tuple[int, ...]:
    return tuple(sorted(int(number.replace("_", "")) for number in value.split(",")))


def _measuring(words: Sequence[str]) -> list[str]:
    """The arguments without those that say where reports go: what was measured does not depend on them."""
    kept: list[str] = []
    waiting = iter(words)
    for word in waiting:
        if word in REPORTS:
            next(waiting, None)
        elif not word.startswith(tuple(f"{option}=" for option in REPORTS)):
            kept.append(word)
    return kept


def _measured(arguments: argparse.Namespace, words: Sequence[str]) -> Result:
    sizes = QUICK if arguments.quick else FULL
    if arguments.rounds:
        sizes = evolve(sizes, rounds=arguments.rounds)
    if arguments.backlogs:
        sizes = evolve(sizes, backlogs=arguments.backlogs)
    wanted = arguments.peers or (QUICK_PEERS if arguments.quick else [peer.key for peer in PEERS])
    flags = _flags(arguments)
    commands: dict[str, Command] = {}
    left_out: dict[str, str] = {}
    for peer in PEERS:
        if peer.key == OURS or peer.key in wanted:
            try:
                commands[peer.key] = _command(peer, flags)
            except NotInstalled as error:
                if peer.key == OURS:
                    raise
                left_out[peer.key] = str(error)
                print(f"{peer.title} is left out: {error}", file=sys.stderr, flush=True)
    parts = arguments.only or [name for name in MEASURES if not (arguments.quick and name in NOT_QUICK)]
    with Server() as server:
        bench = Bench(server, sizes, [peer for peer in PEERS if peer.key in commands], commands)
        _measure(bench, parts)
        return result_of(bench, _measuring(words), arguments.uvloop, left_out)


def _compared(arguments: argparse.Namespace, words: Sequence[str]) -> Result:
    sizes = QUICK_AGAINST if arguments.quick else AGAINST
    if arguments.rounds:
        sizes = evolve(sizes, rounds=arguments.rounds, steady_rounds=arguments.rounds)
    commit = full_name(arguments.against)
    flags = _flags(arguments)
    today = next(peer for peer in PEERS if peer.key == OURS)
    then = evolve(today, key=f"{OURS}@{commit[:10]}", title=f"dtimer at {commit[:10]}", versions={})
    commands = {today.key: _command(today, flags), then.key: commit_command(commit, flags)}
    with Server() as server:
        bench = Bench(server, sizes, [today, then], commands)
        _measure(bench, arguments.only or COMPARED)
        return result_of(bench, _measuring(words), arguments.uvloop, {}, then.key)


def _measure(bench: Bench, parts: Sequence[str]) -> None:
    for name, measure in MEASURES.items():
        if name in parts:
            print(name, file=sys.stderr, flush=True)
            measure(bench)


def _flags(arguments: argparse.Namespace) -> list[str]:
    return [*(["--uvloop"] if arguments.uvloop else []), *(["--no-orjson"] if arguments.no_orjson else [])]


def _command(peer: Peer, flags: Sequence[str]) -> Command:
    if peer.runtime == "node":
        return node_command(peer.key, peer.folder)
    return python_command(peer.key, flags)
