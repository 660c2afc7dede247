"""Takes scenarios through, and turns whatever happens into a result."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Final

from attrs import define, frozen

from dtimer.errors import BackendError, StoreUnreachable
from dtimer_conformance.assertions import FailedCheck, RuleBroken
from dtimer_conformance.environment import Environment
from dtimer_conformance.explain import lines_of
from dtimer_conformance.features import lacking, with_implied
from dtimer_conformance.scenario import Bench, Body, Scenario
from dtimer_conformance.target import Target
from dtimer_conformance.watchdog import Hung, Watched

HANGS_MAX: Final = 3
"""After so many the others are not tried: a backend that hangs must not keep anybody waiting for an hour."""
CLOSE_WITHIN_S: Final = 5.0


class Status(Enum):
    """How a scenario ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@frozen
class Result:
    """Of one scenario.

    Attributes:
        why: of a skip, its words.
        report: of a failure.
    """

    scenario: Scenario
    status: Status
    why: str = ""
    verdict: FailedCheck | None = None


@define
class ScenarioRunner:
    """Judges one target, scenario by scenario.

    Attributes:
        gave_up: why the rest is not tried.
        unreached: why the store could not be reached, if it could not.
    """

    gave_up: str = ""
    unreached: str = ""
    _hangs: int = 0

    def try_one(self, scenario: Scenario, target: Target) -> Result:
        """Carry out a scenario. Never hangs, and never raises for what a backend does."""
        features = frozenset(target.features)
        why = lacking(features, scenario.needs)
        if why is not None:
            return Result(scenario, Status.SKIPPED, why)
        if self.gave_up:
            return _failed(scenario, RuleBroken(f"not tried: {self.gave_up}"))
        run = _Run(scenario, target)
        try:
            work = partial(scenario.carry_out, Bench(run.body))
            run.watched.run(work, limit_s=scenario.limit_s, progress=lambda: max(run.num_environments, 1))
        except Hung as hung:
            self._hangs += 1
            if self._hangs >= HANGS_MAX:
                self.gave_up = f"the backend has hung {HANGS_MAX} times already"
            problem = f"it hangs: nothing came of it within {scenario.limit_s:g} s\n{hung}"
            return _failed(scenario, RuleBroken(problem, history=run.history()))
        except Exception as error:
            broken = as_broken(error)
            if run.unreached:
                self.gave_up = self.unreached = broken.problem
            return _failed(scenario, broken)
        return Result(scenario, Status.PASSED)


class _Run:
    """One scenario on one target.

    Attributes:
        env: the newest.
        num_environments: of an experiment each program has one of its own.
        unreached: the store could not even be opened.
    """

    def __init__(self, scenario: Scenario, target: Target) -> None:
        self.watched = Watched()
        self.env: Environment | None = None
        self.num_environments = 0
        self.unreached = False
        self._scenario = scenario
        self._target = target

    def body(self, body: Body) -> None:
        """Take a body through a world of its own. Raises Broken for whatever goes wrong."""
        try:
            with asyncio.Runner() as runner:
                self.watched.loop = runner.get_loop()
                runner.run(self._in_environment(body))
        except Exception as error:
            broken = as_broken(error)
            broken.history = broken.history or self.history()
            if broken is error:
                raise
            raise broken from error

    def history(self) -> tuple[str, ...]:
        """The last operations of the newest world."""
        return () if self.env is None else lines_of(self.env.recorder.history)

    async def _in_environment(self, body: Body) -> None:
        task = asyncio.current_task()
        assert task is not None, "a runner runs tasks"
        task.set_name("conformance: scenario")
        features = with_implied(frozenset(self._target.features))
        self.num_environments += 1
        env = self.env = Environment(self._target, features, own_clock=self._scenario.own_clock)
        try:
            await self._opened(env)
            await body(env)
            await env.check()
        except BaseException:
            # What a node met first explains what came of it; and what comes of closing explains nothing.
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_WITHIN_S):
                    await env.close()
            env.raise_complaint()
            raise
        await env.close()

    async def _opened(self, env: Environment) -> None:
        try:
            await env.open()
        except StoreUnreachable:
            self.unreached = True
            raise


def as_broken(error: Exception) -> RuleBroken:
    """What an error says of the backend, in words; never a traceback alone."""
    if isinstance(error, RuleBroken):
        return error
    if isinstance(error, StoreUnreachable):
        return RuleBroken(f"the store cannot be reached; this is a failure, not a skip\n  {error}", "F1")
    if isinstance(error, BackendError):
        return RuleBroken(f"the backend failed where nothing was wrong\n  {type(error).__name__}: {error}", "F1")
    entries = traceback.extract_tb(error.__traceback__)[-6:]
    places = [f"    {entry.filename}:{entry.lineno} in {entry.name}" for entry in entries]
    return RuleBroken("\n".join([f"it raised {error!r}, which dtimer does not define", "  at", *places]))


def _failed(scenario: Scenario, broken: RuleBroken) -> Result:
    verdict = FailedCheck(
        rule=broken.rule or scenario.rule,
        tested=scenario.rule,
        scenario=scenario.name,
        claim=scenario.claim,
        problem=broken.problem,
        history=broken.history,
        hint=scenario.hint,
    )
    return Result(scenario, Status.FAILED, verdict=verdict)
