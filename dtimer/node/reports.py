"""Handlers for what is not a delivery: errors, exhausted events, being ready; and where unhandled errors go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, Final, Generic, ParamSpec

from dtimer.errors import DTimerError
from dtimer.event import Event
from dtimer.foreign import ends_the_program, ends_the_task, to_await
from dtimer.home import PerLoop
from dtimer.limits import LISTENER_CALLS_MAX
from dtimer.node.tasks import start_task
from dtimer.protocol import Runtime

P = ParamSpec("P")

logger: Final = logging.getLogger("dtimer")

in_hand: ContextVar[Event[Any] | asyncio.Task[None] | None] = ContextVar("dtimer_in_hand", default=None)
"""The event that the running code was given, or the chore that it is part of. It tells `leave` what must not be waited
for."""


class Chores:
    """Tasks that nobody awaits where they are started. Leaving waits for them."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._tasks: PerLoop[set[asyncio.Task[None]]] = PerLoop(set)
        self.on_done: Callable[[], None] | None = None

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """Those of the running loop."""
        return self._tasks.here()

    def start(self, chore: Callable[[], Awaitable[object]], name: str) -> asyncio.Task[None]:
        """Run it; what it raises is logged."""
        task = start_task(lambda: self._run(chore, name), f"dtimer: {name}")
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def _run(self, chore: Callable[[], Awaitable[object]], name: str) -> None:
        task = asyncio.current_task()
        in_hand.set(task)
        with self.runtime.working(name):
            try:
                await chore()
            except BaseException as error:
                if ends_the_task(error, task):
                    raise
                self.runtime.caught(error)
                logger.error("%s raised", name, exc_info=error)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if self.on_done is not None:
            self.on_done()


class Listeners(Generic[P]):
    """The handlers of one kind of news. Each is called, whatever the others do; what one raises is logged."""

    def __init__(self, name: str, chores: Chores) -> None:
        self._name = name
        self._chores = chores
        self._handlers: list[Callable[P, object]] = []
        self._calls: PerLoop[set[asyncio.Task[None]]] = PerLoop(set)

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
            context = copy_context()
            try:
                work = to_await(context.run(handler, *args, **kwargs))
            except BaseException as error:
                if ends_the_program(error):
                    raise
                self._chores.runtime.caught(error)
                logger.error("a handler of %r raised", self._name, exc_info=error)
                continue
            if work is None:
                continue
            calls = self._calls.here()
            if len(calls) >= LISTENER_CALLS_MAX:
                work.close()
                what = "%d handlers of %r run already, and do not end: one more was not called for %s"
                logger.error(what, len(calls), self._name, args)
                continue
            call = context.run(self._chores.start, partial(_itself, work), f"a handler of {self._name!r}")
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
            logger.error("%s", error, exc_info=error)

    @staticmethod
    def warn(message: str) -> None:
        """For what is no error, but should not go unseen."""
        logger.warning("%s", message)
