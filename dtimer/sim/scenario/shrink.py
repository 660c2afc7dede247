"""Reduces a failing case to a short list of calls and faults that still fails in the same way.

Delta debugging (Zeller and Hildebrandt, 2002): parts are left out, large ones first, as long as what is left fails.
A case is spelled out, so a part that is gone changes nothing else that was drawn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from attrs import evolve, fields_dict

from dtimer.limits import SECOND_US
from dtimer.sim.faulty.fault_schedule import Faults
from dtimer.sim.faulty.faults import Fault
from dtimer.sim.scenario.case import Case
from dtimer.sim.scenario.options import HOUR_S, HOURS_MIN
from dtimer.sim.scenario.runner import Outcome, run_case
from dtimer.sim.scenario.steps import PostStep, Step

RUNS_MAX: Final = 500
"""A case of some hundred parts needs fewer; each run takes a fraction of a second when it has become short."""
WITHIN_S: Final = 300.0
SLACK_S: Final = 1.0
"""The checkers look every so often: a run lasts a little longer than until the moment at which it fails."""

Scripted: TypeAlias = tuple[float, Fault]
Part: TypeAlias = "Step | Scripted"
Fails: TypeAlias = Callable[[Case], "int | None"]

_PLAIN: Final = PostStep(0.0, "", 0)


def fails_as(outcome: Outcome) -> Fails:
    """What says of a case when it fails, in microseconds, if its first violation is of the same kind; else None."""
    kind = outcome.violations[0].kind

    def fails(case: Case) -> int | None:
        violations = run_case(case, record=False).violations
        return violations[0].t_us if violations and violations[0].kind == kind else None

    return fails


class Shrinker:
    """Makes a case smaller, as long as it fails.

    Attributes:
        best: the smallest that failed so far.
        num_runs: how many were tried.
    """

    def __init__(
        self, outcome: Outcome, fails: Fails | None = None, *, runs_max: int = RUNS_MAX, within_s: float = WITHIN_S
    ) -> None:
        """
        Args:
            outcome: one with violations.
            fails: runs a case, and says when it fails in the same way; :func:`fails_as` unless given.
            runs_max: tries no more than so many.
            within_s: begins no other after so many real seconds.
        """
        self.best = outcome.case
        self.num_runs = 0
        self._failed_us = outcome.violations[0].t_us
        self._fails = fails_as(outcome) if fails is None else fails
        self._runs_max = runs_max
        self._within_s = within_s

    def shrink(self) -> Case:
        """The smallest case that was found within the limits."""
        self._until_s = time.monotonic() + self._within_s
        before = None
        while before != self.best and not self._exhausted:
            before = self.best
            self._end_at_failure()
            self._leave_out_parts()
            self._leave_out_nodes()
            self._end_at_failure()
            self._end_after_last_part()
            self._simplify()
        return self.best

    @property
    def _exhausted(self) -> bool:
        return self.num_runs >= self._runs_max or time.monotonic() >= self._until_s

    def _try(self, case: Case) -> bool:
        """Whether it fails, too; then it is the best."""
        if case == self.best or self._exhausted:
            return False
        self.num_runs += 1
        failed_us = self._fails(case)
        if failed_us is None:
            return False
        self.best = case
        self._failed_us = failed_us
        return True

    def _end_at_failure(self) -> None:
        """What comes after it has no part in it: most of a case goes at one stroke, and runs become short."""
        failed_s = self._failed_us / SECOND_US
        parts = [part for part in _parts(self.best) if _at_s(part) <= failed_s]
        self._try(_with_hours(_with_parts(self.best, parts), failed_s + SLACK_S))

    def _end_after_last_part(self) -> None:
        """A failure that shows itself when all is over does so earlier, too."""
        last_s = max(map(_at_s, _parts(self.best)), default=0.0)
        for slack_s in (SLACK_S, 60 * SLACK_S):
            if self._try(_with_hours(self.best, last_s + slack_s)):
                return

    def _leave_out_parts(self) -> None:
        parts = _parts(self.best)
        size = len(parts)
        while parts and not self._exhausted:
            size = min(size, len(parts))
            # From the end: the failure is near, and what comes first may be needed for what comes then.
            end = len(parts)
            while end > 0:
                fewer = parts[: max(0, end - size)] + parts[end:]
                if self._try(_with_parts(self.best, fewer)):
                    parts = fewer
                end -= size
            if size == 1:
                return
            size //= 2

    def _leave_out_nodes(self) -> None:
        while (nodes := self.best.options.nodes) > 1:
            if not any(self._try(_with_nodes(self.best, fewer)) for fewer in sorted({1, nodes // 2, nodes - 1})):
                return

    def _simplify(self) -> None:
        for index in range(len(self.best.steps)):
            for name, values in _simpler_step(self.best.steps[index]):
                for value in values:
                    steps = [*self.best.steps]
                    steps[index] = evolve(steps[index], **{name: value})
                    if self._try(evolve(self.best, steps=tuple(steps))):
                        break
        for index in range(len(self.best.options.faults.script)):
            at_s, fault = self.best.options.faults.script[index]
            for rounded_s in _rounder(at_s):
                if self._try_scripted(index, (rounded_s, fault)):
                    break
            for name, values in _simpler_fault(fault):
                for value in values:
                    at_s, fault = self.best.options.faults.script[index]
                    if self._try_scripted(index, (at_s, evolve(fault, **{name: value}))):
                        break

    def _try_scripted(self, index: int, scripted: Scripted) -> bool:
        script = [*self.best.options.faults.script]
        script[index] = scripted
        return self._try(_with_script(self.best, script))


def _parts(case: Case) -> list[Part]:
    """Calls and faults in the order of their times: what matters to each other lies close together."""
    parts: list[Part] = [*case.steps, *case.options.faults.script]
    return sorted(parts, key=_at_s)


def _at_s(part: Part) -> float:
    return part.at_s if isinstance(part, Step) else part[0]


def _with_parts(case: Case, parts: Sequence[Part]) -> Case:
    steps = tuple(part for part in parts if isinstance(part, Step))
    return _with_script(evolve(case, steps=steps), [part for part in parts if not isinstance(part, Step)])


def _with_script(case: Case, script: Sequence[Scripted]) -> Case:
    return evolve(case, options=evolve(case.options, faults=Faults(script=script)))


def _with_hours(case: Case, seconds: float) -> Case:
    """Never longer than it is."""
    hours = min(case.options.hours, max(round(seconds / HOUR_S, 6), HOURS_MIN))
    return evolve(case, options=evolve(case.options, hours=hours))


def _with_nodes(case: Case, nodes: int) -> Case:
    """The first so many, and no faults of the others."""
    names = {f"n{number}" for number in range(nodes + 1, case.options.nodes + 1)}
    script = [scripted for scripted in case.options.faults.script if scripted[1].target not in names]
    fewer = _with_script(case, script)
    return evolve(fewer, options=evolve(fewer.options, nodes=nodes))


def _simpler_step(step: Step) -> Iterator[tuple[str, Sequence[Any]]]:
    """Names, and values for them that are easier to read; the easiest first."""
    if isinstance(step, PostStep):
        for name in (
            "count",
            "expires_after_ms",
            "confirm_timeout_s",
            "retry_ms",
            "dead_letter",
            "if_exists",
            "max_retries",
        ):
            plain = getattr(_PLAIN, name)
            if getattr(step, name) != plain:
                yield name, (plain, 2) if name == "count" else (plain, 1) if name == "max_retries" else (plain,)
        if step.delay_ms:
            yield "delay_ms", (0, round(step.delay_ms, -3), round(step.delay_ms, -2))
    yield "at_s", _rounder(step.at_s)


def _simpler_fault(fault: Fault) -> Iterator[tuple[str, Sequence[Any]]]:
    for name in fields_dict(type(fault)):
        value = getattr(fault, name)
        if name == "count" and value > 1:
            yield name, (1,)
        if isinstance(value, float) and name.endswith("_s"):
            yield name, _rounder(value)


def _rounder(value: float) -> Sequence[float]:
    rounded = [round(value, digits) for digits in (0, 1, 3)]
    return rounded[: rounded.index(value)] if value in rounded else rounded
