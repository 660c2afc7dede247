"""Timers due at once, one node: 100 handlers at a time, tuned, with the default of 8, and ours with `async with event`.

What the server did for them is counted on the way: for ours with the large batches of the tuned run.
"""

from __future__ import annotations

from typing import Final

from benchmarks.bench import Bench
from benchmarks.catalogue import ORIGINAL
from benchmarks.measures.draining import Drained, drain

TUNED: Final = 256
DEFAULT: Final = 8


def measure(bench: Bench) -> None:
    both = [peer for peer in bench.peers if peer.ours or peer.key == ORIGINAL]
    plans = [("100", bench.peers)]
    plans += [(str(num), [peer.with_slots(num) for peer in both]) for num in (TUNED, DEFAULT)]
    plans += [("block", [peer.with_slots(TUNED).told(in_block=1) for peer in both if peer.ours])]
    for name, peers in plans:
        if name not in bench.sizes.drains:
            continue
        for _, peer in bench.in_turn(peers):
            with bench.attempt(f"drain.{name}", peer.key):
                drained = drain(bench, peer, bench.sizes.drain)
                bench.figures.add(f"drain.{name}", peer.key, drained.rate)
                bench.figures.add(f"drain.{name}.first_ms", peer.key, drained.first_ms)
                if name == (str(TUNED) if peer.ours else "100"):
                    _add_work(bench, peer.key, drained)


def _add_work(bench: Bench, key: str, drained: Drained) -> None:
    posted, fired, num = drained.posted, drained.fired, drained.num
    bench.figures.add("work.cpu_us", key, (posted.cpu_us + fired.cpu_us) / num)
    bench.figures.add("work.post_cpu_us", key, posted.cpu_us / num)
    bench.figures.add("work.fire_cpu_us", key, fired.cpu_us / num)
    bench.figures.add("work.script_us", key, (posted.script_us + fired.script_us) / num)
    bench.figures.add("work.commands", key, (posted.commands + fired.commands) / num)
