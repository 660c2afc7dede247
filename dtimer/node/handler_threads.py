"""Runs plain handlers in threads, where they may block."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Executor
from contextvars import Context, ContextVar
from functools import partial
from typing import Any, Final, TypeVar

from typing_extensions import override

from dtimer.errors import WrongProcessOrLoop
from dtimer.protocol.backend import Runtime
from dtimer.user_code import to_await

T = TypeVar("T")

_loop: Final[ContextVar[asyncio.AbstractEventLoop | None]] = ContextVar("dtimer_loop_of_thread", default=None)
"""Set in the context of a handler's thread: the event loop of its timer."""


def loop_of_thread() -> asyncio.AbstractEventLoop | None:
    """The timer's loop, if the running code is in a handler's thread."""
    loop = _loop.get()
    if loop is None:  # as nearly always
        return None
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return loop
    return None  # a coroutine that the handler has returned, say


class Elsewhere(Awaitable[Any]):
    """The result of a call that a handler's thread has asked the loop for. The thread cannot await it."""

    @override
    def __await__(self) -> Generator[object, None, Any]:
        raise WrongProcessOrLoop("the confirm is on its way in the timer's event loop; a thread cannot await it")


class HandlerThreads:
    """The threads of one timer. Each handler runs in a copy of the context, as a task does.

    Attributes:
        waiting: the tasks whose handlers are in threads.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._executor: Executor | None = None
        self._process = 0
        self.waiting: set[asyncio.Task[Any] | None] = set()

    async def call(
        self, context: Context, handler: Callable[[T], object], argument: T, is_over: Callable[[], bool]
    ) -> object:
        """Call a handler in a thread, and await what it returns if that is to be awaited.

        A thread cannot be cancelled: when this call is cancelled, it returns when the handler does.

        Args:
            is_over: whether the handler has run for as long as it may, so that nothing more of it is to run.
        """
        task = asyncio.current_task()
        assert task is not None, "it is awaited by one"
        executor = self._running()
        if executor is None:
            result = context.run(handler, argument)
        else:
            loop = asyncio.get_running_loop()
            context.run(_loop.set, loop)
            outcome = loop.run_in_executor(executor, lambda: context.run(_outcome_of, partial(handler, argument)))
            self.waiting.add(task)
            try:
                result, error = await asyncio.shield(outcome)
            except asyncio.CancelledError:
                await asyncio.wait([outcome])
                raise
            finally:
                self.waiting.discard(task)
            if error is not None:
                raise error
        work = to_await(result)
        if work is None:
            return None
        if is_over():
            work.close()
            task.cancel()
            await asyncio.sleep(0)
        return await work

    def end_idle(self) -> None:
        """Let the threads end when they have nothing left to do."""
        executor, self._executor = self._executor, None
        if executor is not None and self._process == os.getpid():
            executor.shutdown(wait=False)

    def _running(self) -> Executor | None:
        # A forked process has the object, and none of its threads.
        if self._executor is None or self._process != os.getpid():
            self._executor, self._process = self._runtime.executor(), os.getpid()
        return self._executor


def _outcome_of(call: Callable[[], object]) -> tuple[object, BaseException | None]:
    """What the call returned or raised: a future cannot carry every kind of exception."""
    try:
        return call(), None
    except BaseException as error:
        return None, error
