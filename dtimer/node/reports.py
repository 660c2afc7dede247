"""Handlers for what is not a delivery: errors, exhausted events, being ready; and where unhandled errors go."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, Final, Generic, ParamSpec

from dtimer.errors import DTimerError
from dtimer.event import Event
from dtimer.limits import LISTENER_CALLS_MAX
from dtimer.loop_local import LoopLocal
from dtimer.node.tasks import start_task
from dtimer.protocol.backend import Runtime
from dtimer.safe_repr import safe_repr
from dtimer.user_code import ends_the_program, ends_the_task, to_await

P = ParamSpec("P")

logger: Final = logging.getLogger("dtimer")


class Errand:
    """What a chore is about: it is there before the chore's task is."""


in_hand: ContextVar[Event[Any] | Errand | None] = ContextVar("dtimer_in_hand", default=None)
"""The event that the running code was given, or the errand that it is on. It tells `leave` what must not be waited
for."""


def log(level: int, message: str, *args: object, error: BaseException | None = None) -> None:
    """Write a line of the log, with the traceback of an error.

    Writing may fail like any other code that is not ours: an error may have no text, and an application its own filters
    and handlers. It never stops what it is about.
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


class Chores:
    """Tasks that nobody awaits where they are started. Leaving waits for them."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._tasks: LoopLocal[dict[asyncio.Task[None], Errand]] = LoopLocal(dict)
        self.on_done: Callable[[], None] | None = None

    @property
    def tasks(self) -> dict[asyncio.Task[None], Errand]:
        """Those of the running loop, and the errand that each is on."""
        return self._tasks.here()

    def start(
        self, chore: Callable[[], Awaitable[object]], name: str, errand: Errand | None = None
    ) -> asyncio.Task[None]:
        """Run it; what it raises is logged."""
        errand = errand or Errand()
        task = start_task(lambda: self._run(chore, name, errand), f"dtimer: {name}")
        self.tasks[task] = errand
        task.add_done_callback(self._done)
        return task

    async def _run(self, chore: Callable[[], Awaitable[object]], name: str, errand: Errand) -> None:
        task = asyncio.current_task()
        in_hand.set(errand)
        with self.runtime.working(name):
            try:
                await chore()
            except BaseException as error:
                if ends_the_task(error, task):
                    raise
                self.runtime.caught(error)
                log(logging.ERROR, "%s raised", name, error=error)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.pop(task, None)
        if self.on_done is not None:
            self.on_done()


class Listeners(Generic[P]):
    """The handlers of one kind of news. Each is called, whatever the others do; what one raises is logged."""

    def __init__(self, name: str, chores: Chores) -> None:
        self._name = name
        self._chores = chores
        self._handlers: list[Callable[P, object]] = []
        self._calls: LoopLocal[set[asyncio.Task[None]]] = LoopLocal(set)

    def __bool__(self) -> bool:
        return bool(self._handlers)

    def add(self, handler: Callable[P, object]) -> None:
        self._handlers.append(handler)

    def remove(self, handler: object) -> None:
        """One registration of it; harmless if there is none."""
        for index, known in enumerate(self._handlers):
            if known == handler:
                del self._handlers[index]
                return

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        for handler in tuple(self._handlers):
            context, errand = copy_context(), Errand()
            context.run(in_hand.set, errand)
            try:
                work = to_await(context.run(handler, *args, **kwargs))
            except BaseException as error:
                if ends_the_program(error):
                    raise
                self._chores.runtime.caught(error)
                log(logging.ERROR, "a handler of %r raised", self._name, error=error)
                continue
            if work is None:
                continue
            calls = self._calls.here()
            if len(calls) >= LISTENER_CALLS_MAX:
                work.close()
                what = "%d handlers of %r run already, and do not end: one more was not called for %s"
                log(logging.ERROR, what, len(calls), self._name, safe_repr(args))
                continue
            call = context.run(self._chores.start, partial(_itself, work), f"a handler of {self._name!r}", errand)
            calls.add(call)
            call.add_done_callback(partial(_ended, calls, work))


def _ended(calls: set[asyncio.Task[None]], work: Coroutine[Any, Any, object], call: asyncio.Task[None]) -> None:
    calls.discard(call)
    # If it was cancelled before it began, nobody else closes this.
    work.close()


def _itself(work: Coroutine[Any, Any, object]) -> Coroutine[Any, Any, object]:
    return work


class Reports:
    """What a node meets on its own, for the error handlers; logged when there are none."""

    def __init__(self, chores: Chores) -> None:
        self.listeners: Listeners[[DTimerError]] = Listeners("error", chores)

    def report(self, error: Exception, cause: BaseException | None = None) -> None:
        if cause is not None:
            error.__cause__ = cause
        if isinstance(error, DTimerError) and self.listeners:
            self.listeners.tell(error)
        else:
            log(logging.ERROR, "%s", error, error=error)

    def notice(self, error: DTimerError) -> None:
        """As :meth:`report`, for what need not be an error: in the log it is a warning."""
        if self.listeners:
            self.listeners.tell(error)
        else:
            self.warn(str(error))

    @staticmethod
    def warn(message: str) -> None:
        """For what is no error, but should not go unseen."""
        log(logging.WARNING, "%s", message)
