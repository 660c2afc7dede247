"""Background tasks, and what the running code works on."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from typing import Any, Final

from dtimer.event import Event
from dtimer.loop_local import LoopLocal
from dtimer.node.observers import Observers
from dtimer.node.tasks import start_task
from dtimer.protocol.backend import Runtime
from dtimer.safe_repr import safe_repr
from dtimer.user_code import ends_the_program, ends_the_task

logger: Final = logging.getLogger("dtimer")


class Errand:
    """Identifies a background task. It is made before the `asyncio.Task`, which may start eagerly."""


current_work: ContextVar[Event[Any] | Errand | None] = ContextVar("dtimer_current_work", default=None)
"""The event that the running code handles, or the errand of its background task: `leave`, called there, must not wait
for it."""


def log(level: int, message: str, *args: object, error: BaseException | None = None) -> None:
    """Write a line of the log, with the traceback of an error.

    Writing may fail like any other foreign code: an error may have no text, and an application its own filters and
    handlers. A failure does not stop the caller.
    """
    try:
        logger.log(level, message, *args, exc_info=error)
    except BaseException as failure:
        if ends_the_program(failure):
            raise
        _log_without(error, failure, level, message, *args)


def _log_without(error: BaseException | None, failure: BaseException, level: int, message: str, *args: object) -> None:
    """After a failure to write an error's traceback."""
    try:
        logger.log(
            level, f"{message} (it was %s, which cannot be logged: %s)", *args, safe_repr(error), safe_repr(failure)
        )
    except BaseException as again:
        if ends_the_program(again):
            raise
        # No handler takes it, so it goes where Python writes what no code catches.
        with suppress(Exception):
            print(f"dtimer: {message % args} ({safe_repr(failure)})", file=sys.stderr)


class BackgroundTasks:
    """Tasks that are not awaited where they are started. Leaving waits for them."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._tasks: LoopLocal[dict[asyncio.Task[None], Errand]] = LoopLocal(dict)
        self._ends = LoopLocal(Observers)

    @property
    def tasks(self) -> dict[asyncio.Task[None], Errand]:
        """The tasks of the running loop, with the errand of each."""
        return self._tasks.here()

    @property
    def ends(self) -> Observers:
        """Observers of the ends of tasks in the running loop."""
        return self._ends.here()

    def start(
        self, work: Callable[[], Awaitable[object]], name: str, errand: Errand | None = None
    ) -> asyncio.Task[None]:
        """Run `work`; an exception of it is logged."""
        errand = errand or Errand()
        task = start_task(lambda: self._run(work, name, errand), f"dtimer: {name}")
        self.tasks[task] = errand
        task.add_done_callback(self._done)
        return task

    async def _run(self, work: Callable[[], Awaitable[object]], name: str, errand: Errand) -> None:
        task = asyncio.current_task()
        current_work.set(errand)
        simulator = self.runtime.simulator
        with nullcontext() if simulator is None else simulator.working(name):
            try:
                await work()
            except BaseException as error:
                if ends_the_task(error, task):
                    raise
                self.caught(error)
                log(logging.ERROR, "%s raised", name, error=error)

    def caught(self, error: BaseException) -> None:
        """Code of the application raised this, and no caller gets it; a simulator raises it in the test."""
        if self.runtime.simulator is not None:
            self.runtime.simulator.caught(error)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.pop(task, None)
        self.ends.notify()
