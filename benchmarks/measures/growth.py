"""What a poll and an announcement cost as namespaces grow on one server, and nodes in one namespace: ours."""

from __future__ import annotations

import time
from typing import Final

from attrs import evolve

from benchmarks.bench import Bench, post
from benchmarks.process import number

POSTS_NUM: Final = 300
SETTLE_S: Final = 1.0
JOIN_TIMEOUT_S: Final = 600.0


def measure(bench: Bench) -> None:
    for kind, counts in (("namespaces", bench.sizes.namespaces), ("nodes", bench.sizes.nodes)):
        for count in counts:
            with bench.attempt(f"{kind}.{count}", bench.ours.key):
                _watch(bench, kind, count)


def _watch(bench: Bench, kind: str, count: int) -> None:
    ours = evolve(bench.ours, settings={**bench.ours.settings, "apart": float(kind == "namespaces")})
    seconds = bench.sizes.idle_s / 2
    bench.server.flush()
    with bench.process(ours) as nodes, bench.process(ours) as poster:
        nodes.ask("work", workers=count, timeout_s=JOIN_TIMEOUT_S)
        post(poster, "one", 10, step_ms=1_000)
        time.sleep(SETTLE_S)
        before = bench.server.work()
        time.sleep(seconds)
        idle = bench.server.work() - before
        # Each is due before all others, so each must be announced.
        before = bench.server.work()
        reply = post(poster, "one", POSTS_NUM, first=100, step_ms=-1_000, spread_ms=0)
        announcing = bench.server.work() - before
        nodes.ask("rest", timeout_s=JOIN_TIMEOUT_S)
    figures, key = bench.figures, ours.key
    polls = max(1, idle.by_command.get("evalsha", 0))
    figures.add(f"{kind}.{count}.calls", key, idle.by_command.get("evalsha", 0) / seconds)
    figures.add(f"{kind}.{count}.cpu_ms", key, idle.cpu_us / 1000 / seconds)
    figures.add(f"{kind}.{count}.poll_us", key, idle.script_us / polls)
    figures.add(f"{kind}.{count}.publish_us", key, announcing.publish_us / max(1, announcing.by_command["publish"]))
    figures.add(f"{kind}.{count}.post_us", key, number(reply, "seconds") * 1e6 / POSTS_NUM)
