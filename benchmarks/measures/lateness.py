"""From the due time to the start of the handler, under a steady load and on a quiet system."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from benchmarks.bench import Bench
from benchmarks.catalogue import Peer
from benchmarks.measures.firing import checked, wait_for
from benchmarks.process import TooSlow, number

QUIET_RATE: Final = 2
RATES: Final = (500, 2_000)
DELAY_MIN_MS: Final = 500
BEHIND_MAX: Final = 1.15
"""A poster that takes this much longer has not kept the rate up."""


def measure(bench: Bench) -> None:
    for rate in (*RATES, QUIET_RATE):
        seconds = bench.sizes.quiet_s if rate == QUIET_RATE else bench.sizes.pace_s
        figure = "late.quiet" if rate == QUIET_RATE else f"late.{rate}"
        # The goals are times, so that one rate is enough to see the others by.
        peers = bench.peers if rate == RATES[0] else bench.compared(*(peer.key for peer in bench.peers))
        for number_, peer in bench.in_turn(peers):
            with bench.attempt(figure, peer.key):
                late_ms = [us / 1000 for us in _late_us(bench, peer, rate, seconds, number_)]
                bench.figures.add(f"{figure}.p50", peer.key, statistics.median(late_ms))
                bench.figures.add(f"{figure}.p99", peer.key, percentile(late_ms, 0.99))
                bench.figures.add(f"{figure}.max", peer.key, late_ms[-1])
                bench.figures.lateness_ms.setdefault(figure, {}).setdefault(peer.key, []).extend(late_ms)


def _late_us(bench: Bench, peer: Peer, rate: int, seconds: float, seed: int) -> list[float]:
    bench.server.flush()
    with bench.process(peer) as node, bench.process(peer) as poster:
        node.ask("work", workers=1)
        reply = poster.ask(
            "pace",
            rate=rate,
            seconds=seconds,
            delay_min_ms=DELAY_MIN_MS,
            delay_max_ms=bench.sizes.delay_max_ms,
            seed=seed,
        )
        if number(reply, "seconds") > seconds * BEHIND_MAX + 0.5:
            raise TooSlow(f"posting for {seconds:.0f} s took {number(reply, 'seconds'):.1f} s")
        num = int(number(reply, "num"))
        wait_for([node], num)
        late_us = checked([node.ask("fires")["fires"]], range(num))
        node.ask("rest")
    return late_us


def percentile(ordered: Sequence[float], part: float) -> float:
    """The smallest value that so large a part of them does not exceed."""
    return ordered[max(0, -(-int(len(ordered) * part * 1000) // 1000) - 1)]
