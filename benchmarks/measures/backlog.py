"""What many pending timers cost those that come and go: ours, in batches of 100.

All backlogs stand on the server side by side, each in a namespace of its own, so that they can take turns.
"""

from __future__ import annotations

from typing import Final

from benchmarks.bench import Bench, post
from benchmarks.measures.draining import drain
from benchmarks.process import number

DAY_MS: Final = 86_400_000
LOAD_NUM: Final = 20_000
BATCH: Final = 100
PART: Final = 10
"""So small a part of the posts of other measures is enough here."""


def measure(bench: Bench) -> None:
    ours = bench.ours.with_slots(BATCH)
    num = max(2_000, bench.sizes.posts_many // PART)
    with bench.attempt("backlog", "loading"):
        bench.server.flush()
        for backlog in bench.sizes.backlogs:
            with bench.process(ours, f"backlog-{backlog}") as process:
                for first in range(0, backlog, LOAD_NUM):
                    part = min(LOAD_NUM, backlog - first)
                    post(process, "batch", part, due_ms=None, first=first, spread_ms=30 * DAY_MS)
    for round_ in range(bench.sizes.rounds):
        for backlog in bench.sizes.backlogs:
            figure = f"backlog.{backlog}"
            with bench.attempt(figure, ours.key):
                namespace = f"backlog-{backlog}"
                with bench.process(ours, namespace) as process:
                    post(process, "batch", BATCH, first=2_000_000_000, spread_ms=30 * DAY_MS)
                    before = bench.server.work()
                    first = 3_000_000_000 + round_ * num
                    reply = post(process, "batch", num, first=first, spread_ms=30 * DAY_MS, batch=BATCH)
                    posted = bench.server.work() - before
                post_s = number(reply, "seconds")
                drained = drain(
                    bench, ours, num, namespace=namespace, flush=False, expected_s=post_s + 0.2, batch=BATCH
                )
                post_us = post_s * 1e6 / num
                drain_us = drained.seconds * 1e6 / num
                bench.figures.add(f"{figure}.post_us", ours.key, post_us)
                bench.figures.add(f"{figure}.drain_us", ours.key, drain_us)
                bench.figures.add(f"{figure}.life_us", ours.key, post_us + drain_us)
                bench.figures.add(f"{figure}.redis_us", ours.key, (posted.cpu_us + drained.fired.cpu_us) / num)
