"""How many timers a process posts a second: one caller, 64 callers, batches of 500."""

from __future__ import annotations

from benchmarks.bench import FAR_MS, Bench, post
from benchmarks.process import number


def measure(bench: Bench) -> None:
    for how in ("one", "callers", "batch"):
        figure = f"post.{how}"
        num = bench.sizes.posts_one if how == "one" else bench.sizes.posts_many
        peers = [peer for peer in bench.peers if how != "batch" or peer.batches]
        for _, peer in bench.in_turn(peers, bench.sizes.turns):
            with bench.attempt(figure, peer.key):
                bench.server.flush()
                with bench.process(peer) as process:
                    # Half as many first: a service posts for days, and some compilers take thousands to get going.
                    post(process, how, num // 2, first=10 * num)
                    reply = post(process, how, num, spread_ms=FAR_MS)
                bench.figures.add(figure, peer.key, num / number(reply, "seconds"))
                bench.figures.add(f"{figure}.cpu_us", peer.key, number(reply, "cpu_s") * 1e6 / num)
