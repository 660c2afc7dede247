"""What a system with nothing to do asks of the server: 10,000 far timers, one worker, and 50."""

from __future__ import annotations

import time
from typing import Final

from benchmarks.bench import Bench, best_how, post
from benchmarks.catalogue import ORIGINAL, Peer

FAR_NUM: Final = 10_000
MANY: Final = 50
SETTLE_S: Final = 1.0


def measure(bench: Bench) -> None:
    everybody = bench.compared(*(peer.key for peer in bench.peers))
    for workers, peers in ((1, everybody), (MANY, bench.compared(ORIGINAL))):
        for _, peer in bench.in_turn(peers, rounds=bench.sizes.steady_rounds):
            with bench.attempt(f"idle.{workers}", peer.key):
                _watch(bench, peer, workers)


def _watch(bench: Bench, peer: Peer, workers: int) -> None:
    seconds = bench.sizes.idle_s
    bench.server.flush()
    with bench.process(peer) as poster:
        post(poster, best_how(peer), FAR_NUM)
    with bench.process(peer) as node:
        node.ask("work", workers=workers)
        time.sleep(SETTLE_S)
        before = bench.server.work()
        time.sleep(seconds)
        done = bench.server.work() - before
        calls = bench.server.client_calls(lambda: time.sleep(seconds))
        node.ask("rest")
    figure = f"idle.{workers}"
    bench.figures.add(f"{figure}.calls", peer.key, sum(calls.values()) / seconds)
    bench.figures.add(f"{figure}.commands", peer.key, done.commands / seconds)
    bench.figures.add(f"{figure}.cpu_ms", peer.key, done.cpu_us / 1000 / seconds)
