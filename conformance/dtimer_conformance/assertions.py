"""What is said of a backend that breaks a rule: every way to fail comes out as a report, never as a bare error."""

from __future__ import annotations

from typing import Final

from attrs import frozen
from typing_extensions import override

from dtimer_conformance.rules import title, where

NOTHING: Final[list[str]] = []
"""What is often expected."""


class RuleBroken(Exception):
    """A claim of the suite does not hold.

    Attributes:
        problem: what was seen, in whole lines.
        rule: which rule that breaks; None leaves it to the scenario.
        history: the operations before, one a line.
    """

    def __init__(self, problem: str, rule: str | None = None, history: tuple[str, ...] = ()) -> None:
        super().__init__(problem)
        self.problem = problem
        self.rule = rule
        self.history = history


@frozen(kw_only=True)
class FailedCheck:
    """Why a scenario failed.

    Attributes:
        rule: the rule that is broken by what was seen.
        tested: the rule that the scenario tests, and whose line of the table counts it.
        scenario: the name of its test.
        claim: what the scenario claims.
        problem: what was seen instead.
        history: the last operations before, one a line.
        hint: where to look.
    """

    rule: str
    tested: str
    scenario: str
    claim: str
    problem: str
    history: tuple[str, ...] = ()
    hint: str = ""

    @override
    def __str__(self) -> str:
        lines = [f"rule {title(self.tested)} is broken"]
        if self.rule != self.tested:
            lines.append(f"by what breaks rule {title(self.rule)}")
        lines += [f"claim: {self.claim}", "", self.problem]
        if self.history:
            lines += ["", "the last operations, as number, time in us, operation -> answer:", *self.history]
        if self.hint:
            lines += ["", f"Troubleshooting: {self.hint}"]
        return "\n".join([*lines, f"The rule: {where(self.rule)}; the test: {self.scenario}"])


def assert_equal(what: str, got: object, expected: object, *, rule: str | None = None) -> None:
    """Raises :class:`RuleBroken` unless both are equal."""
    if got != expected:
        raise RuleBroken(f"{what}\n  expected {expected!r}\n       got {got!r}", rule)


def assert_that(what: str, condition: object, *, seen: object = None, rule: str | None = None) -> None:
    """Raises :class:`RuleBroken` unless the condition is true; `what` says what should be so."""
    if not condition:
        raise RuleBroken(f"{what}: this does not hold" + ("" if seen is None else f"\n  seen: {seen!r}"), rule)
