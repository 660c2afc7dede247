"""A thousand hours of nodes under faults, in nine parts, with all checkers on.

Each part is 7 seeds of an hour of 16 nodes, with a call of a client each minute, and for each node and for the store
20 faults an hour on average, of kinds and in a mixture that each seed draws for itself.
`make test` runs the first part.
"""

from __future__ import annotations

from collections import Counter

import pytest

from dtimer.sim.faulty.fault_schedule import Faults, Rate
from dtimer.sim.faulty.faults import StepClock
from dtimer.sim.scenario.campaign import report_of
from dtimer.sim.scenario.options import Options
from dtimer.sim.scenario.runner import run_seed

DAY_S = 86_400.0
PARTS = 9
SEEDS = 7
OPTIONS = Options(nodes=16, hours=1, rate=60, faults=Faults.everything(20))
NODE_HOURS = PARTS * SEEDS * OPTIONS.nodes * OPTIONS.hours


@pytest.mark.once  # the runs are the same on every Python, which the stored digests show
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.campaign) for part in range(1, PARTS))])
def test_nothing_goes_wrong(part: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(SEEDS * part, SEEDS * (part + 1)):
        report = report_of(run_seed(OPTIONS, seed, record=False))
        assert not report.violations, f"seed {seed}: {report.violations[0]}"
        seen += Counter(report.counts)
    print(dict(seen))
    assert seen["faults"] > 200 * SEEDS
    assert seen["retries"] > 0
    assert seen["takeovers"] > 0


def test_it_is_a_thousand_hours() -> None:
    assert NODE_HOURS >= 1_000


@pytest.mark.once
@pytest.mark.parametrize("seed", range(3))
def test_nothing_goes_wrong_while_the_clock_leaps_by_up_to_a_day(seed: int) -> None:
    """Forward and back, beside all else. In the usual mixture it is seconds: a leap ahead makes due what is posted."""
    usual = Faults.everything(60)
    leaps = Rate(12, {"by_s": (-DAY_S, DAY_S)})
    options = Options(hours=0.5, faults=Faults(rates={**usual.rates, StepClock.kind: leaps}))

    outcome = run_seed(options, seed)

    assert not outcome.violations, outcome.violations[0]
    steps_s = [fault.by_s for _, fault in outcome.run.script if isinstance(fault, StepClock)]
    assert max(steps_s) > DAY_S / 10
    assert min(steps_s) < -DAY_S / 10
