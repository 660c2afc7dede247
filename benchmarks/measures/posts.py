"""How many timers a process posts a second: one caller, 64 callers, batches of 500."""

from __future__ import annotations

from typing import Final

from benchmarks.bench import FAR_MS, Bench, post
from benchmarks.process import number

TURNS: Final = {"one": 5, "callers": 4, "batch": 4}
"""In a round, for each way to post. A machine's speed changes by a quarter from one second to the next, most of all for
a lone caller, which mostly wakes up: many short turns side by side say more than a long one."""


def measure(bench: Bench) -> None:
    for how, turns in TURNS.items():
        figure = f"post.{how}"
        num = bench.sizes.posts_one if how == "one" else bench.sizes.posts_many
        for _, peer in bench.in_turn((peer for peer in bench.peers if how != "batch" or peer.batches), turns):
            with bench.attempt(figure, peer.key):
                bench.server.flush()
                with bench.process(peer) as process:
                    # Half as many first: a service posts for days, and some compilers take thousands to get going.
                    post(process, how, num // 2, first=10 * num)
                    reply = post(process, how, num, spread_ms=FAR_MS)
                bench.figures.add(figure, peer.key, num / number(reply, "seconds"))
                bench.figures.add(f"{figure}.cpu_us", peer.key, number(reply, "cpu_s") * 1e6 / num)
