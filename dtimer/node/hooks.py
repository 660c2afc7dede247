"""Handlers other than those for events: for errors, ended events and `ready`; and where unhandled errors go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, ParamSpec

from dtimer.errors import DTimerError
from dtimer.limits import HOOK_CALLS_MAX
from dtimer.loop_local import LoopLocal
from dtimer.node.background import BackgroundTasks, Errand, current_work, log
from dtimer.safe_repr import safe_repr
from dtimer.user_code import ends_the_program, to_await

P = ParamSpec("P")


class Hooks(Generic[P]):
    """The handlers of one kind of report. All are called, even if some raise; what one raises is logged."""

    def __init__(self, name: str, background: BackgroundTasks) -> None:
        self._name = name
        self._background = background
        self._handlers: list[Callable[P, object]] = []
        self._calls: LoopLocal[set[asyncio.Task[None]]] = LoopLocal(set)

    def __bool__(self) -> bool:
        return bool(self._handlers)

    def add(self, handler: Callable[P, object]) -> None:
        self._handlers.append(handler)

    def remove(self, handler: object) -> None:
        """Remove one registration of a handler; harmless if there is none."""
        for index, known in enumerate(self._handlers):
            if known == handler:
                del self._handlers[index]
                return

    def notify(self, *args: P.args, **kwargs: P.kwargs) -> None:
        for handler in tuple(self._handlers):
            context, errand = copy_context(), Errand()
            context.run(current_work.set, errand)
            try:
                work = to_await(context.run(handler, *args, **kwargs))
            except BaseException as error:
                if ends_the_program(error):
                    raise
                self._background.caught(error)
                log(logging.ERROR, "a handler of %r raised", self._name, error=error)
                continue
            if work is None:
                continue
            calls = self._calls.here()
            if len(calls) >= HOOK_CALLS_MAX:
                work.close()
                what = "%d handlers of %r run already, and do not end: one more was not called for %s"
                log(logging.ERROR, what, len(calls), self._name, safe_repr(args))
                continue
            call = context.run(self._background.start, partial(_itself, work), f"a handler of {self._name!r}", errand)
            calls.add(call)
            call.add_done_callback(partial(_ended, calls, work))


def _ended(calls: set[asyncio.Task[None]], work: Coroutine[Any, Any, object], call: asyncio.Task[None]) -> None:
    calls.discard(call)
    # Only this closes the coroutine of a task that was cancelled before it began.
    work.close()


def _itself(work: Coroutine[Any, Any, object]) -> Coroutine[Any, Any, object]:
    return work


class ErrorReporter:
    """Reports the problems that a node meets on its own: to the ``error`` handlers, or to the log without any."""

    def __init__(self, background: BackgroundTasks) -> None:
        self.hooks: Hooks[[DTimerError]] = Hooks("error", background)

    def report(self, error: Exception, cause: BaseException | None = None) -> None:
        if cause is not None:
            error.__cause__ = cause
        if isinstance(error, DTimerError) and self.hooks:
            self.hooks.notify(error)
        else:
            log(logging.ERROR, "%s", error, error=error)

    def notice(self, error: DTimerError) -> None:
        """Report what may be harmless: in the log it is a warning."""
        if self.hooks:
            self.hooks.notify(error)
        else:
            self.warn(str(error))

    @staticmethod
    def warn(message: str) -> None:
        """Log a warning."""
        log(logging.WARNING, "%s", message)
