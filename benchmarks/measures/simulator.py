"""What the simulator costs: a day of five nodes, a unit test over a week, and an hour of an idle node."""

from __future__ import annotations

import json
import subprocess
from typing import Final

from benchmarks.bench import Bench
from benchmarks.catalogue import Peer
from benchmarks.environments import HERE
from benchmarks.process import LOG_SHOWN_CHARS, ORDER_TIMEOUT_S, Broken

PROGRAM: Final = HERE / "sim_cluster.py"
"""That of the working tree for every build, so that all do the same work."""
TURNS: Final = (("day", "s"), ("test", "ms"), ("idle", "s"))
"""What there is to measure, and its unit."""


def measure(bench: Bench) -> None:
    for what, unit in TURNS:
        for _, peer in bench.in_turn(bench.compared()):
            with bench.attempt(f"sim.{what}", peer.key):
                _run(bench, peer, what, unit)


def _run(bench: Bench, peer: Peer, what: str, unit: str) -> None:
    command = bench.commands[peer.key]
    # Its own folder is not to be searched for modules: what it imports is the build's.
    words = [command.words[0], "-P", str(PROGRAM), "--turn", what, "--hours", str(bench.sizes.sim_hours)]
    done = subprocess.run(
        words,
        cwd=command.root,
        env=command.environment,
        capture_output=True,
        text=True,
        timeout=10 * ORDER_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise Broken(f"{peer.title}: {done.stderr[-LOG_SHOWN_CHARS:]}")
    found: dict[str, float] = json.loads(done.stdout)
    bench.figures.add(f"sim.{what}.cpu_{unit}", peer.key, found["cpu"])
    bench.figures.add(f"sim.{what}.peak_mib", peer.key, found["peak_mib"])
