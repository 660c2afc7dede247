"""What came out, rule by rule: a table for people, JSON for keeping."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from attrs import frozen

from dtimer_conformance.features import Feature
from dtimer_conformance.rules import RULES
from dtimer_conformance.runner import Result, ScenarioRunner, Status
from dtimer_conformance.scenarios import SCENARIOS
from dtimer_conformance.target import Target

KEPT: Final = "kept"
BROKEN: Final = "broken"
NOT_JUDGED: Final = "not judged"
FORMAT: Final = 1
"""Of the JSON; another number means that its fields have changed their meaning."""


class Unreached(Exception):
    """The store cannot be reached; the message says why."""


@frozen
class Report:
    """All results of one backend.

    Attributes:
        backend: what it is called.
    """

    backend: str
    features: frozenset[Feature]
    results: tuple[Result, ...]

    @property
    def kept(self) -> bool:
        """Whether no rule is broken."""
        return all(result.status is not Status.FAILED for result in self.results)

    def of(self, rule: str) -> list[Result]:
        """The results of the scenarios that are named after a rule."""
        return [result for result in self.results if result.scenario.rule == rule]

    def outcome(self, rule: str) -> str:
        """Kept if at least one scenario could be made, none failed, and no other one's report names the rule."""
        statuses = {result.status for result in self.of(rule)}
        if Status.FAILED in statuses or any(result.verdict and result.verdict.rule == rule for result in self.results):
            return BROKEN
        return KEPT if Status.PASSED in statuses else NOT_JUDGED

    def as_json(self) -> str:
        """The same for every run with the same results."""
        rules = {
            rule: {
                "title": title,
                "result": self.outcome(rule),
                "scenarios": {result.scenario.name: _shown(result) for result in self.of(rule)},
            }
            for rule, title in RULES.items()
        }
        content: dict[str, Any] = {
            "format": FORMAT,
            "suite": {"name": "dtimer_conformance", "version": suite_version()},
            "backend": self.backend,
            "features": sorted(feature.name for feature in self.features),
            "result": KEPT if self.kept else BROKEN,
            "rules": rules,
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def as_text(self) -> str:
        """A table of the rules, and every report in full."""
        return "\n".join([*self._verdicts(), *self._table(), "", self._summary()])

    def _verdicts(self) -> Iterator[str]:
        for result in self.results:
            if result.verdict is not None:
                yield from ("", "-" * 100, str(result.verdict))

    def _table(self) -> Iterator[str]:
        width = max(len(title) for title in RULES.values())
        yield from ("", f"{'rule':5} {'':{width}}  {'result':10}  passed  failed  skipped", "")
        for rule, title in RULES.items():
            counts = [sum(result.status is status for result in self.of(rule)) for status in Status]
            numbers = "  ".join(f"{count or '-':>6}" for count in counts)
            yield f"{rule:5} {title:{width}}  {self.outcome(rule):10}  {numbers}"
        words = sorted({result.why for result in self.results if result.why})
        if words:
            yield from ("", "skipped, because", *(f"  {why}" for why in words))

    def _summary(self) -> str:
        outcomes = [self.outcome(rule) for rule in RULES]
        kept, broken = outcomes.count(KEPT), outcomes.count(BROKEN)
        counted = f"{kept} of {len(RULES)} rules kept, {broken} broken, {len(RULES) - kept - broken} not judged"
        return f"{self.backend}: {counted} (dtimer_conformance {suite_version()})"


def make_report(target: Target, name: str, *, progress: Callable[[Result], None] = lambda _: None) -> Report:
    """Take a backend through all scenarios.

    Args:
        progress: told of each result as it comes.

    Raises:
        Unreached: the store cannot be reached, so there is nothing to judge.
    """
    runner = ScenarioRunner()
    results: list[Result] = []
    for scenario in SCENARIOS.values():
        result = runner.try_one(scenario, target)
        if runner.unreached:
            raise Unreached(runner.unreached)
        progress(result)
        results.append(result)
    return Report(name, frozenset(target.features), tuple(results))


def suite_version() -> str:
    """The suite is part of dtimer's wheel and has its version."""
    try:
        return version("dtimer")
    except PackageNotFoundError:
        return "(not installed)"


def _shown(result: Result) -> dict[str, str]:
    shown = {"result": result.status.value}
    if result.why:
        shown["because"] = result.why
    if result.verdict is not None:
        shown["broken_rule"] = result.verdict.rule
        shown["verdict"] = result.verdict.problem
    return shown
