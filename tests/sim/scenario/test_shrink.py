"""A failing case is reduced to a handful of calls and faults that fail in the same way."""

from __future__ import annotations

from typing import Final

import pytest
from attrs import evolve

import dtimer.sim.faulty.store
from dtimer.sim import Run
from dtimer.sim.checks.violation import Violation
from dtimer.sim.faulty.fault_schedule import Faults
from dtimer.sim.faulty.faults import Pause
from dtimer.sim.scenario.case import Case
from dtimer.sim.scenario.options import Options
from dtimer.sim.scenario.runner import Outcome, run_case, run_seed
from dtimer.sim.scenario.shrink import Fails, Shrinker, fails_as
from dtimer.sim.scenario.steps import CancelStep, PostStep, Step
from support.breaking import broken_machine
from support.mutants import MUTANTS

pytestmark = pytest.mark.once

HANDFUL: Final = 8
PLANTED: Final = [
    "forget to count",
    "ignore the event's own timeout",
    pytest.param("keep replaces", marks=pytest.mark.campaign),
    pytest.param("exhausted events vanish", marks=pytest.mark.campaign),
]


def num_parts(case: Case) -> int:
    return len(case.steps) + len(case.options.faults.script)


def first_failing(options: Options) -> Outcome:
    outcomes = (run_seed(options, seed, record=False) for seed in range(10))
    return next(outcome for outcome in outcomes if outcome.violations)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_shown_by_a_handful_of_parts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file it is saved to fails in the same way, time after time, and not without the bug."""
    (mutant,) = (mutant for mutant in MUTANTS if mutant.name == name)
    monkeypatch.setattr(dtimer.sim.faulty.store, "Machine", broken_machine(mutant))
    outcome = first_failing(Options(nodes=4, hours=0.5, rate=900))
    assert num_parts(outcome.case) > 400

    shrinker = Shrinker(outcome)
    small = shrinker.shrink()

    assert num_parts(small) <= HANDFUL
    assert shrinker.num_runs < 400
    first, second = (run_case(Case.from_json(small.to_json())) for _ in range(2))
    assert first.violations[0].kind == outcome.violations[0].kind
    assert first.run.digest == second.run.digest
    monkeypatch.undo()
    assert not run_case(small).violations


def made_up(steps: int = 400, faults: int = 50, *, failed_us: int = 1_800_000_000) -> Outcome:
    """A failure of a case that nobody runs: a call every four seconds, and a fault every half minute."""
    calls: list[Step] = [PostStep(4.0 * n + 0.123456, f"e{n}", n, delay_ms=4_321, count=7) for n in range(steps)]
    script = [(30.0 * n + 0.654321, Pause(f"n{n % 8 + 1}", for_s=2.345678)) for n in range(faults)]
    options = Options(nodes=8, hours=0.5, faults=Faults(script=script))
    run: Run[None] = Run(
        seed=1, error=None, trace=(), digest="", counts={}, script=(), duration_us=failed_us, result=None
    )
    violation = Violation("D2", failed_us, "n1", "", "")
    return Outcome(case=Case(seed=1, options=options, steps=tuple(calls)), run=run, violations=(violation,))


def needing(*wanted: str, pauses: int) -> Fails:
    """It fails with these posts and so many faults of the first two nodes, and shows it when all is over."""

    def fails(case: Case) -> int | None:
        ids = {step.id for step in case.steps if isinstance(step, PostStep)}
        nodes = [fault for _, fault in case.options.faults.script if isinstance(fault, Pause)]
        enough = sum(fault.node in {"n1", "n2"} for fault in nodes) >= pauses
        return round(case.options.hours * 3_600e6) if enough and ids.issuperset(wanted) else None

    return fails


def test_just_those_parts_are_left_that_it_takes() -> None:
    """As simple as can be: one node less would take a fault that is needed away, and nothing here needs its times."""
    shrinker = Shrinker(made_up(), needing("e7", "e399", pauses=2))

    small = shrinker.shrink()

    assert [step.to_json() for step in small.steps] == [
        PostStep(28.0, "e7", 7).to_json(),
        PostStep(1596.0, "e399", 399).to_json(),
    ]
    assert len(small.options.faults.script) == 2
    assert {fault.to_json()["for_s"] for _, fault in small.options.faults.script} == {2.0}
    assert all(at_s == round(at_s) for at_s, _ in small.options.faults.script)
    assert small.options.nodes <= 2
    assert shrinker.num_runs < 150


def test_what_comes_after_the_failure_goes_at_one_stroke() -> None:
    """The case ends just after, so that each run that follows is short."""
    tried: list[Case] = []

    def fails(case: Case) -> int:
        tried.append(case)
        return 10_000_000

    Shrinker(made_up(failed_us=10_000_000), fails, runs_max=1).shrink()

    (case,) = tried
    assert [step.at_s for step in case.steps] == [0.123456, 4.123456, 8.123456]
    assert [at_s for at_s, _ in case.options.faults.script] == [0.654321]
    assert 10 < case.options.hours * 3_600 < 12


def test_a_case_that_fails_otherwise_does_not_count() -> None:
    """A case with a part less may show another mistake, which must not lead away from this one."""
    steps = (CancelStep(1.0, "longer than may be" * 60), CancelStep(2.0, "e"))
    outcome = run_case(Case(seed=0, options=Options(nodes=2, hours=0.001, faults=Faults()), steps=steps))
    other = evolve(outcome, violations=(evolve(outcome.violations[0], rules="D2"),))

    assert fails_as(outcome)(outcome.case) == outcome.violations[0].t_us
    assert fails_as(other)(outcome.case) is None
    assert fails_as(outcome)(evolve(outcome.case, steps=steps[1:])) is None


def test_it_tries_no_more_than_it_may() -> None:
    outcome = made_up()
    few, none = (
        Shrinker(outcome, needing("e7", pauses=1), runs_max=7),
        Shrinker(outcome, needing("e7", pauses=1), within_s=0),
    )

    assert num_parts(few.shrink()) < num_parts(outcome.case)
    assert few.num_runs == 7
    assert none.shrink() == outcome.case
    assert none.num_runs == 0
