"""Handlers for what is not a delivery: errors, exhausted events, being ready; and where unhandled errors go."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Generic, ParamSpec

from dtimer.errors import DTimerError
from dtimer.protocol import Runtime

P = ParamSpec("P")

logger: Final = logging.getLogger("dtimer")


class Chores:
    """Tasks that nobody awaits where they are started. Leaving waits for them."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.tasks: set[asyncio.Task[None]] = set()
        self.on_done: Callable[[], None] | None = None

    def start(self, chore: Awaitable[object], name: str) -> None:
        """Run it; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(self._run(chore, name), name=f"dtimer: {name}")
        self.tasks.add(task)
        task.add_done_callback(self._done)

    async def _run(self, chore: Awaitable[object], name: str) -> None:
        with self._runtime.working(name):
            try:
                await chore
            except Exception:
                logger.exception("%s raised", name)

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
            try:
                result = handler(*args, **kwargs)
            except Exception:
                logger.exception("a handler of %r raised", self._name)
                continue
            if inspect.isawaitable(result):
                self._chores.start(result, f"a handler of {self._name!r}")


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
