"""Reduces a failing case to a short list of calls and faults that still fails in the same way.

Delta debugging (Zeller and Hildebrandt, 2002): parts are left out, large ones first, as long as what is left fails.
A case is spelled out, so a part that is gone changes nothing else that was drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias, TypeVar

from attrs import evolve

from dtimer.sim.faulty.faults import Fault, NodeFault
from dtimer.sim.faulty.plan import Faults
from dtimer.sim.scenario.case import Case
from dtimer.sim.scenario.options import HOUR_S
from dtimer.sim.scenario.steps import PostStep, Step

RUNS_MAX: Final = 500
"""A case of some hundred parts needs fewer; each run takes a fraction of a second when it has become short."""

T = TypeVar("T")
Scripted: TypeAlias = tuple[float, Fault]
Part: TypeAlias = "Step | Scripted"

_PLAIN: Final = PostStep(0.0, "", 0)


class Shrinker:
    """Makes a case smaller, as long as it fails.

    Attributes:
        best: the smallest that failed so far.
        num_runs: how many were tried.
    """

    def __init__(self, case: Case, fails: Callable[[Case], bool], *, runs_max: int = RUNS_MAX) -> None:
        """
        Args:
            case: one that fails.
            fails: runs a case, and says whether it still fails in the same way.
            runs_max: tries no more than so many.
        """
        self.best = case
        self.num_runs = 0
        self._fails = fails
        self._runs_max = runs_max

    def shrink(self) -> Case:
        """The smallest case that was found within the limit."""
        before = None
        while before != self.best and not self._exhausted:
            before = self.best
            self._leave_out_parts()
            self._leave_out_nodes()
            self._end_earlier()
            self._simplify()
        return self.best

    @property
    def _exhausted(self) -> bool:
        return self.num_runs >= self._runs_max

    def _try(self, case: Case) -> bool:
        """Whether it fails, too; then it is the best."""
        if case == self.best or self._exhausted:
            return False
        self.num_runs += 1
        if not self._fails(case):
            return False
        self.best = case
        return True

    def _leave_out_parts(self) -> None:
        parts = _parts(self.best)
        size = len(parts)
        while parts and not self._exhausted:
            size = min(size, len(parts))
            start = 0
            while start < len(parts):
                fewer = parts[:start] + parts[start + size :]
                if self._try(_with_parts(self.best, fewer)):
                    parts = fewer
                else:
                    start += size
            if size == 1:
                return
            size = max(1, size // 2)

    def _leave_out_nodes(self) -> None:
        while (nodes := self.best.options.nodes) > 1:
            script = [
                (at_s, fault)
                for at_s, fault in self.best.options.faults.script
                if not (isinstance(fault, NodeFault) and fault.node == f"n{nodes}")
            ]
            options = evolve(self.best.options, nodes=nodes - 1, faults=Faults(script=script))
            if not self._try(evolve(self.best, options=options)):
                return

    def _end_earlier(self) -> None:
        last_s = max((_at_s(part) for part in _parts(self.best)), default=0.0)
        for slack_s in (1.0, 60.0):
            hours = max((last_s + slack_s) / HOUR_S, 0.001)
            if hours < self.best.options.hours and self._try(
                evolve(self.best, options=evolve(self.best.options, hours=hours))
            ):
                return

    def _simplify(self) -> None:
        for index in range(len(self.best.steps)):
            for simpler in _simpler(self.best.steps[index]):
                steps = [*self.best.steps]
                steps[index] = simpler
                self._try(evolve(self.best, steps=tuple(steps)))
        for index in range(len(self.best.options.faults.script)):
            at_s, fault = self.best.options.faults.script[index]
            for digits in (0, 1, 3):
                script = [*self.best.options.faults.script]
                script[index] = (round(at_s, digits), fault)
                options = evolve(self.best.options, faults=Faults(script=script))
                if self._try(evolve(self.best, options=options)):
                    break


def _parts(case: Case) -> list[Part]:
    """Calls and faults in the order of their times: what matters to each other lies close together."""
    parts: list[Part] = [*case.steps, *case.options.faults.script]
    return sorted(parts, key=_at_s)


def _at_s(part: Part) -> float:
    return part.at_s if isinstance(part, Step) else part[0]


def _with_parts(case: Case, parts: Sequence[Part]) -> Case:
    steps = tuple(part for part in parts if isinstance(part, Step))
    script = [part for part in parts if not isinstance(part, Step)]
    return evolve(case, steps=steps, options=evolve(case.options, faults=Faults(script=script)))


def _simpler(step: Step) -> Iterator[Step]:
    if isinstance(step, PostStep):
        for name in ("count", "expires_after_ms", "confirm_timeout_s", "retry_ms", "keep", "if_exists", "max_retries"):
            plain = getattr(_PLAIN, name)
            if getattr(step, name) != plain:
                yield evolve(step, **{name: plain})
        if step.delay_ms:
            yield evolve(step, delay_ms=0)
            yield evolve(step, delay_ms=round(step.delay_ms, -3))
    for digits in (0, 1, 3):
        if step.at_s != round(step.at_s, digits):
            yield evolve(step, at_s=round(step.at_s, digits))
