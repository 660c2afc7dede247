"""Two processes that take timers against one, and how they share the work."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.catalogue import ORIGINAL
from benchmarks.measures.draining import drain

COMPARED = (ORIGINAL, "bullmq")


def measure(bench: Bench) -> None:
    for round_, peer in bench.in_turn(bench.compared(*COMPARED)):
        for workers in (1, 2) if round_ % 2 == 0 else (2, 1):
            with bench.attempt(f"nodes.{workers}", peer.key):
                drained = drain(bench, peer, bench.sizes.drain, workers=workers)
                bench.figures.add(f"nodes.{workers}", peer.key, drained.rate)
                if workers > 1:
                    bench.figures.add(f"nodes.{workers}.share", peer.key, min(drained.shares) / drained.num)
