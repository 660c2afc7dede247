"""How many calls clients make for a timer's life, apart from what scripts do inside."""

from __future__ import annotations

from functools import partial
from typing import Final

from benchmarks.bench import Bench
from benchmarks.measures.draining import drain
from benchmarks.measures.drains import TUNED

WATCHED_NUM: Final = 1_000
POSTING_S: Final = 1.0


def measure(bench: Bench) -> None:
    for known in bench.compared(*(peer.key for peer in bench.peers)):
        peer = known.with_slots(TUNED) if known.ours else known
        with bench.attempt("calls", peer.key):
            bench.server.flush()
            watched = partial(drain, bench, peer, WATCHED_NUM, flush=False, expected_s=POSTING_S)
            calls = bench.server.client_calls(watched)
            bench.figures.add("calls", peer.key, sum(calls.values()) / WATCHED_NUM)
