"""Bugs that are put into the library on purpose are found by seeds of the standard workload, and within how many.

The checkers keep silent about the sound library on the very same seeds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from dtimer.sim.faulty.fault_schedule import Faults, Rate
from dtimer.sim.faulty.faults import RestartStore
from dtimer.sim.scenario.options import Options
from dtimer.sim.scenario.runner import run_seed
from support.mutants import MUTANTS, Kind, Mutant

pytestmark = pytest.mark.once

STORM: Final = Options(nodes=3, hours=0.15, rate=1200, faults=Faults.everything(100))
FORGETFUL: Final = Options(
    nodes=2,
    hours=0.1,
    rate=1200,
    faults=Faults(rates={"restart_store": 120, "lose_calls": Rate(240, {"part": ("reply",)})}),
)
"""A store that loses writes, and replies that are lost, often enough for what only they bring to light."""
WIPED: Final = Options(nodes=2, hours=0.02, rate=1200, faults=Faults(script=[(40.0, RestartStore("all"))]))
STOPPED: Final = Options(nodes=2, hours=0.1, rate=3_000, faults=Faults(rates={"stop": 240, "latency": 600}))


def _node(rule: str, name: str, file: str, sound: str, broken: str) -> Mutant:
    return Mutant(name, rule, Kind.NODE, f"{file}.py", sound, broken)


OWN: Final = (
    Mutant(
        "deliver a second early",
        "T3",
        Kind.MACHINE,
        "semantics/machine.py",
        "(horizon_us, _LAST_ID))]",
        "(horizon_us + 1_000_000, _LAST_ID))]",
    ),
    _node(
        "W1",
        "no fallback claim",
        "node/fetch_schedule",
        "self._fallback_at_us = now_us +",
        "self._fallback_at_us = now_us + 3_600_000_000 +",
    ),
    _node(
        "N4",
        "no second subscription",
        "node/subscriber",
        "await self._backend.runtime.sleep(backoff.next_us())",
        "await self._backend.runtime.sleep(10**15)",
    ),
    _node(
        "W1",
        "a silent death is not noticed",
        "node/fetch_schedule",
        "subscription_lost=self._expect_pulse)",
        "subscription_lost=False)",
    ),
    _node(
        "W4",
        "the reply's time is not heeded",
        "node/fetch_schedule",
        "self._next_claim_at_us = come_at_us",
        "self._next_claim_at_us = None",
    ),
    _node(
        "W2",
        "wake-ups are not heeded",
        "node/fetch_schedule",
        "        if seq <= self._seq:\n            return\n",
        "        if seq:\n            return\n",
    ),
    _node(
        "N1",
        "leaving, and taking on",
        "node/dispatcher",
        "        if leaving:\n",
        "        if leaving and not claimed.deliveries:\n",
    ),
    _node(
        "E1",
        "a confirm whose reply is lost has worked",
        "node/batcher",
        "                batch.fail_one(submission, error)\n",
        "                if self._operation == 'confirm':\n"
        "                    from dtimer.protocol.outcomes import ConfirmOutcome\n"
        "                    submission.answer([ConfirmOutcome.CONFIRMED] * len(submission.items))\n"
        "                else:\n"
        "                    batch.fail_one(submission, error)\n",
    ),
    _node(
        "O2",
        "a lost call is not told",
        "node/session",
        "        if calls or self._seq > begins.seq:\n",
        "        if self._seq > begins.seq and not calls:\n",
    ),
    _node(
        "O2",
        "the last call before another server is said to be lost",
        "node/session",
        "seq <= branches[place + 1].seq",
        "seq < branches[place + 1].seq",
    ),
    _node(
        "O1",
        "lost calls of another epoch are forgotten",
        "node/session",
        "self._forget(_none), done)",
        "(), done)",
    ),
)

WITHIN: Final[Mapping[str, tuple[Options, int]]] = {
    # the store's
    "deliver a second early": (STORM, 1),
    "keep replaces": (STORM, 4),
    "give out what is unconfirmed": (STORM, 1),
    "forget to count": (STORM, 1),
    "ignore the event's own timeout": (STORM, 1),
    "accept an old receipt": (STORM, 2),
    "a late confirm is refused": (STORM, 2),
    "a release counts when it should not": (STORM, 1),
    "a lost claim loses what requires a confirm": (STORM, 1),
    "the head's announcement is forgotten": (STORM, 1),
    "an early wake-up strands the node": (STORM, 1),
    "arm a full node": (STORM, 1),
    "cancelling one cancels its neighbour": (STORM, 1),
    # the node's
    "come three seconds late": (STORM, 1),
    "forget what is unfinished": (STORM, 1),
    "repeat what is not safe to repeat": (STORM, 1),
    "give up after a failure": (STORM, 1),
    "no fallback claim": (STORM, 2),
    "no second subscription": (STORM, 1),
    "a silent death is not noticed": (STORM, 3),
    "the reply's time is not heeded": (STORM, 1),
    "wake-ups are not heeded": (STORM, 1),
    "leaving, and taking on": (STOPPED, 3),
    "a confirm whose reply is lost has worked": (FORGETFUL, 4),
    "a lost call is not told": (FORGETFUL, 2),
    "the last call before another server is said to be lost": (FORGETFUL, 4),
    "lost calls of another epoch are forgotten": (WIPED, 1),
}
"""Of each bug: where it is looked for, and how many seeds that takes at most."""

BY_NAME: Final = {mutant.name: mutant for mutant in (*MUTANTS, *OWN)}


@pytest.mark.parametrize("name", WITHIN)
def test_it_is_found(name: str) -> None:
    options, within = WITHIN[name]
    mutant = BY_NAME[name]
    job = {
        "module": ".".join(("dtimer", *Path(mutant.file).with_suffix("").parts)),
        "source": mutant.source(),
        "options": options.to_json(),
        "seeds": within,
    }
    done = subprocess.run(
        [sys.executable, "-m", "support.broken_seeds"],
        input=json.dumps(job), env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True,
        text=True, timeout=55, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seeds, complaint = json.loads(done.stdout.splitlines()[-1])

    print(f"{name}: {seeds} of {within}: {complaint}")
    assert seeds is not None, f"not found by {within} seeds"


@pytest.mark.parametrize("options", [STORM, FORGETFUL, WIPED, STOPPED], ids=["storm", "forgetful", "wiped", "stopped"])
def test_the_sound_library_is_not_complained_of(options: Options) -> None:
    seeds = max(within for where, within in WITHIN.values() if where is options)
    for seed in range(seeds):
        outcome = run_seed(options, seed, record=False)
        assert not outcome.violations, f"seed {seed}: {outcome.violations[0]}"
