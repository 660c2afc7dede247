"""Runs a case: clients, nodes and faults, then peace, draining, and the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final, TextIO

from attrs import field, frozen

from dtimer import DTimer, EventExists, JsonCodec, JsonValue, Post, PostedId, Retry
from dtimer.errors import BackendError
from dtimer.limits import SECOND_US
from dtimer.sim.checks.court import Court
from dtimer.sim.checks.promptness import LOOK_US, RECOVERY_US
from dtimer.sim.checks.violation import Violation
from dtimer.sim.faulty.faults import LoseCalls
from dtimer.sim.faulty.simulation import Run, Simulation
from dtimer.sim.faulty.world import World
from dtimer.sim.scenario.application import Application
from dtimer.sim.scenario.case import Case
from dtimer.sim.scenario.options import HOUR_S, Options
from dtimer.sim.scenario.steps import (
    CancelStep,
    ChangeDelayStep,
    ConfirmStep,
    LoseReplyStep,
    PeekStep,
    PostStep,
    ResendStep,
    Step,
    UpcomingStep,
)

DRAIN_MAX_S: Final = 3_600.0
DRAIN_LOOK_S: Final = 1.0
PROGRESS_EVERY_S: Final = 60.0


@frozen(kw_only=True)
class Outcome:
    """What came of a case.

    Attributes:
        case: with its faults spelled out, so that it can be run again and cut.
        run: the simulation's.
        violations: what should not have happened; empty if all is well.
    """

    case: Case = field(repr=False)
    run: Run[None] = field(repr=False)
    violations: tuple[Violation, ...]


def run_seed(options: Options, seed: int, **how: object) -> Outcome:
    """Run the case of a seed; `how` as for :func:`run_case`."""
    return run_case(Case.of(options, seed), **how)  # type: ignore[arg-type]


def run_case(
    case: Case,
    *,
    record: bool = True,
    checked: bool = True,
    keep: int = 20_000,
    trace_file: TextIO | None = None,
    on_progress: Callable[[float, World], None] | None = None,
) -> Outcome:
    """Run a case and judge it.

    Args:
        record: make a trace.
        checked: have the checkers watch; they end the run at the first violation.
        keep: so many of its records.
        trace_file: gets all of them, as JSON lines.
        on_progress: called once a virtual minute with the virtual seconds so far.
    """
    court = Court(checked=checked)
    simulation = Simulation(
        seed=case.seed,
        nodes=case.options.nodes,
        faults=case.options.faults,
        record=record,
        keep=keep,
        trace_file=trace_file,
    )
    application = Application(case.seed, court)
    simulation.node(application)

    async def scenario(world: World) -> None:
        court.open(world)
        timer = DTimer(court.backend(world.client))
        timer.on("error", partial(court.told, world.client))
        async with _looking(court):
            await _play(world, case, court, timer, on_progress)
            world.heal()
            application.calm = True
            # Whoever was asked to end has yet to leave, and to be started again.
            await world.until(lambda: _all_run(world), every_s=DRAIN_LOOK_S)
            await asyncio.sleep(RECOVERY_US / SECOND_US)
            court.members()
            await _drain(world)
            await timer.peek("none")  # what this timer has to be told comes with the first reply
            court.close()

    run = simulation.attempt(scenario)
    violations = court.violations
    if run.error is not None and not violations:
        violations += (Violation("L1", run.duration_us, "world", "", f"{type(run.error).__name__}: {run.error}"),)
    return Outcome(case=case.spelled_out(run.script), run=run, violations=violations)


@asynccontextmanager
async def _looking(court: Court) -> AsyncGenerator[None]:
    """The court looks every so often, until the block is left; a verdict ends the block."""

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_US / SECOND_US)
            court.look()

    async with asyncio.TaskGroup() as group:
        looking = group.create_task(look(), name="the court")
        yield
        looking.cancel()


async def _play(
    world: World,
    case: Case,
    court: Court,
    timer: DTimer[JsonValue],
    on_progress: Callable[[float, World], None] | None,
) -> None:
    """Let the clients make their calls at their times, each by itself, and the time of the run pass."""
    async with asyncio.TaskGroup() as calls:
        told_s = 0.0
        for step in (*case.steps, None):
            at_s = case.options.hours * HOUR_S if step is None else step.at_s
            while on_progress is not None and told_s + PROGRESS_EVERY_S <= at_s:
                told_s += PROGRESS_EVERY_S
                await asyncio.sleep(told_s - world.now_s)
                on_progress(told_s, world)
            await asyncio.sleep(at_s - world.now_s)
            if step is not None:
                calls.create_task(_call(world, court, timer, step))


async def _call(world: World, court: Court, timer: DTimer[JsonValue], step: Step) -> None:
    try:
        await _ask(world, court, timer, step)
    except (BackendError, EventExists):
        return  # the store was away, or said no; watchers have seen what it was


async def _ask(world: World, court: Court, timer: DTimer[JsonValue], step: Step) -> None:
    match step:
        case PostStep():
            await _post(court, timer, posts(step))
        case LoseReplyStep():
            world.inject(LoseCalls("client", how="disconnect"))
        case CancelStep():
            await timer.cancel(step.id)
        case ChangeDelayStep():
            await timer.change_delay(step.id, step.delay_ms)
        case ConfirmStep():
            await timer.confirm(step.id)
        case PeekStep():
            await timer.peek(step.id)
        case UpcomingStep():
            await timer.upcoming(limit=step.limit)
        case ResendStep():
            for letter in await timer.dead_letters(limit=1):
                await timer.resend(letter)
        case _:
            raise AssertionError(f"nobody knows how to {step}")


async def _post(court: Court, timer: DTimer[JsonValue], posts: Sequence[Post[JsonValue]]) -> None:
    told: Sequence[PostedId | EventExists | BackendError]
    try:
        told = await timer.post_many(posts)
    except BackendError as error:
        told = [error] * len(posts)
    codec = JsonCodec()
    for post, one in zip(posts, told, strict=True):
        assert post.id is not None, "all posts of a step have ids"
        court.told_posted(post.id, codec.encode(post.payload), one)


def posts(step: PostStep) -> Sequence[Post[JsonValue]]:
    """What a step posts."""
    requires_confirm = step.max_retries > 0 or step.dead_letter
    return [
        Post(
            payload=[step.number, index],
            delay=step.delay_ms,
            id=step.id if not index else f"{step.id}-{index}",
            max_retries=step.max_retries,
            confirm_timeout=step.confirm_timeout_s if requires_confirm else None,
            retry=Retry(timedelta(milliseconds=step.retry_ms))
            if requires_confirm and step.retry_ms is not None
            else None,
            expires_after=step.expires_after_ms,
            dead_letter=step.dead_letter,
            if_exists=step.if_exists,
        )
        for index in range(step.count)
    ]


def _all_run(world: World) -> bool:
    hosts = [world.host(name) for name in world.nodes]
    return all(host.up and not host.stopping for host in hosts)


async def _drain(world: World) -> None:
    """Return when nothing is live any more; raises TimeoutError if that takes too long."""

    def empty() -> bool:
        seen = world.inspect()
        return seen is None or seen.live == 0

    await world.until(empty, within_s=DRAIN_MAX_S, every_s=DRAIN_LOOK_S)
