"""What the server can do at all, without any library's rules."""

from __future__ import annotations

from attrs import evolve

from benchmarks.bench import Bench
from benchmarks.catalogue import OURS
from benchmarks.process import PeerProcess


def measure(bench: Bench) -> None:
    command = bench.commands[OURS]
    *start, _ = [word for word in command.words if not word.startswith("--")]
    for _ in range(bench.sizes.rounds):
        with bench.attempt("raw", "server"):
            bench.server.flush()
            with PeerProcess(evolve(command, words=[*start, "benchmarks.peers.raw"]), "raw limits") as process:
                reply = process.ask("limits", url=bench.server.url, num=bench.sizes.posts_many)
            for name, rate in reply.items():
                assert isinstance(rate, int | float)
                bench.figures.add(f"raw.{name}", "server", rate)
