"""What the parts of one timer share, as one object."""

from __future__ import annotations

from typing import Any

from attrs import fields, frozen

from dtimer.event import Ended
from dtimer.loop_local import after_fork
from dtimer.metrics import RunningCounters
from dtimer.node.background import BackgroundTasks
from dtimer.node.hooks import ErrorReporter, Hooks
from dtimer.protocol.backend import Runtime


@frozen(eq=False)
class TimerContext:
    """The time and the chance of a timer's backend, what it counts, and where its news and its errors go.

    A forked process counts from 0.

    Attributes:
        background: tasks that no caller awaits; :meth:`dtimer.DTimer.leave` waits for them.
        reporter: tells the ``error`` handlers.
        ready: the ``ready`` handlers.
        ended: the ``ended`` handlers.
    """

    runtime: Runtime
    counters: RunningCounters
    background: BackgroundTasks
    reporter: ErrorReporter
    ready: Hooks[[]]
    ended: Hooks[[Ended[Any]]]

    @classmethod
    def of(cls, runtime: Runtime) -> TimerContext:
        background = BackgroundTasks(runtime)
        context = cls(
            runtime,
            RunningCounters(),
            background,
            ErrorReporter(background),
            Hooks("ready", background),
            Hooks("ended", background),
        )
        after_fork(context, TimerContext._forked)
        return context

    def _forked(self) -> None:
        # They are the parent's.
        for count in fields(RunningCounters):
            setattr(self.counters, count.name, 0)
