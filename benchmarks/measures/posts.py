"""How many timers a process posts a second: one caller, 64 callers, batches of 500."""

from __future__ import annotations

from benchmarks.bench import FAR_MS, WARM_UP_NUM, Bench, post
from benchmarks.process import number

HOWS = ("one", "callers", "batch")


def measure(bench: Bench) -> None:
    for how in HOWS:
        figure = f"post.{how}"
        num = bench.sizes.posts_one if how == "one" else bench.sizes.posts_many
        for _, peer in bench.in_turn(peer for peer in bench.peers if how != "batch" or peer.batches):
            with bench.attempt(figure, peer.key):
                bench.server.flush()
                with bench.process(peer) as process:
                    post(process, how, WARM_UP_NUM, first=10 * num)
                    reply = post(process, how, num, spread_ms=FAR_MS)
                bench.figures.add(figure, peer.key, num / number(reply, "seconds"))
                bench.figures.add(f"{figure}.cpu_us", peer.key, number(reply, "cpu_s") * 1e6 / num)
