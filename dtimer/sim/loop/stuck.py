"""What is told when virtual time stands still for ever."""

# pyright: reportUnknownVariableType=false
# (What a task returns is of no interest here.)

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from dtimer.sim.errors import SimStuck
from dtimer.sim.loop.chains import await_chain, place
from dtimer.sim.loop.handles import SimHandle, SimTimer, callback_name
from dtimer.sim.loop.tasks import SimTask

if TYPE_CHECKING:
    from dtimer.sim.loop.process import Process

SAMPLE: Final = 1_000
"""So many of the next callbacks are looked at, to see which task is at it."""


def all_wait(processes: Sequence[Process], now_us: int) -> SimStuck:
    """Nothing is left to do and no timer is set."""
    waiting = tuple(_waiting(process, task) for process in processes for task in process.tasks)
    return SimStuck("all tasks wait, and nothing is left that could wake one", waiting, now_us=now_us)


def goes_on(process: Process, now_us: int, steps: int) -> SimStuck:
    """A process has something to do at one instant, for ever as it seems."""
    tasks: Counter[asyncio.Task[Any]] = Counter()
    others: Counter[str] = Counter()
    for step in islice(process.ready, SAMPLE):
        if task := _task_of(step):
            tasks[task] += 1
        elif step.callback is not None:
            others[f"{process.name}: callback {callback_name(step.callback)}"] += 1
    at_it = [_waiting(process, task) for task, _ in tasks.most_common()]
    return SimStuck(
        f"process {process.name!r} goes on and on at this instant, for {steps} steps; does it wait by sleep(0)?",
        (*at_it, *(name for name, _ in others.most_common())),
        now_us=now_us,
    )


def _task_of(step: SimHandle | SimTimer) -> asyncio.Task[Any] | None:
    """The task that takes a step, or that is woken by the future that a callback is for, as that of a sleep."""
    # asyncio's callbacks that let a task take a step are bound to the task.
    callbacks = [step.callback]
    for argument in step.arguments:
        callbacks += [callback for callback, _ in getattr(argument, "_callbacks", None) or ()]
    for callback in callbacks:
        owner: object = getattr(callback, "__self__", None)
        if isinstance(owner, asyncio.Task):
            return owner
    return None


def _waiting(process: Process, task: asyncio.Task[Any]) -> str:
    state = " (paused)" if process.paused else ""
    awaited: object = getattr(task, "_fut_waiter", None)
    if isinstance(awaited, SimTask) and not awaited.process.alive:
        dead = f"{awaited.process.name}, which was killed"
        return f"{process.name}{state}: task {task.get_name()!r} waits for task {awaited.get_name()!r} of {dead}"
    places = "".join(f"\n    {place(frame)}" for frame in await_chain(task))
    return f"{process.name}{state}: task {task.get_name()!r}{places}"
