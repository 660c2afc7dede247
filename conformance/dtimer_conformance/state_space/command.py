"""Explores the small worlds and prints what there was; the status is 1 if a rule is broken somewhere."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from dtimer_conformance.state_space.alphabets import ALPHABETS
from dtimer_conformance.state_space.explorer import Explored, explore
from dtimer_conformance.state_space.moves import Alphabet


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="worlds", description="Takes the state machine through all programs of a few moves, and judges each step."
    )
    parser.add_argument("names", nargs="*", metavar="ALPHABET", help=f"all unless given: {', '.join(ALPHABETS)}")
    parser.add_argument(
        "--depth", type=int, metavar="N", help="the number of moves, in place of what each alphabet says"
    )
    parser.add_argument("--short", action="store_true", help="the depths of the tests")
    parsed = parser.parse_args(arguments)
    unknown = [name for name in parsed.names if name not in ALPHABETS]
    if unknown:
        parser.error(f"unknown alphabet {unknown[0]!r}: say one of {', '.join(ALPHABETS)}")
    chosen = [ALPHABETS[name] for name in parsed.names] or [*ALPHABETS.values()]
    explored = [_explored(alphabet, parsed.depth, short=parsed.short) for alphabet in chosen]
    states, transitions = sum(sum(each.states) for each in explored), sum(each.transitions for each in explored)
    print(f"{len(explored)} worlds: {states:,} states, {transitions:,} transitions")
    return 1 if any(each.found for each in explored) else 0


def _explored(alphabet: Alphabet, depth: int | None, *, short: bool) -> Explored:
    print(f"{alphabet.name}: {alphabet.about}", flush=True)
    began_s = time.process_time()

    def progress(moves: int, states: int, transitions: int) -> None:
        seconds = time.process_time() - began_s
        print(f"  {moves:2} moves: {states:9,} new states, {transitions:10,} transitions, {seconds:6.1f} s", flush=True)

    explored = explore(alphabet, depth or (alphabet.short_depth if short else alphabet.depth), progress=progress)
    print(
        f"  {'closed: no state is left out' if explored.closed else explored.found or 'as the rules say'}", flush=True
    )
    return explored
