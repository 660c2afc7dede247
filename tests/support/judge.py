"""What the scenarios of one rule say of a target."""

from __future__ import annotations

from dtimer_conformance.runner import ScenarioRunner, Status
from dtimer_conformance.scenario import SCENARIOS
from dtimer_conformance.target import Target


def first_failure(rule: str, target: Target) -> str | None:
    """The first of the scenarios named for a rule that fails; None if all pass."""
    court = ScenarioRunner()
    named = (scenario for scenario in SCENARIOS.values() if scenario.rule == rule)
    failed = (scenario.name for scenario in named if court.try_one(scenario, target).status is Status.FAILED)
    return next(failed, None)
