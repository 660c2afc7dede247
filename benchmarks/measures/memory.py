"""What a pending timer with a payload of 200 bytes takes in the server's memory."""

from __future__ import annotations

from typing import Final

from benchmarks.bench import FAR_MS, Bench, best_how, post

PART_NUM: Final = 20_000


def measure(bench: Bench) -> None:
    for _, peer in bench.in_turn(bench.peers, rounds=bench.sizes.steady_rounds):
        with bench.attempt("memory", peer.key):
            bench.server.flush()
            before = bench.server.memory_bytes()
            with bench.process(peer) as process:
                for first in range(0, bench.sizes.memory, PART_NUM):
                    num = min(PART_NUM, bench.sizes.memory - first)
                    post(process, best_how(peer), num, first=first, spread_ms=FAR_MS)
            bench.server.wait_until_alone()
            bench.figures.add("memory", peer.key, (bench.server.memory_bytes() - before) / bench.sizes.memory)
