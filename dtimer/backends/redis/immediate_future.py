"""Waking a task at once, from a callback of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any


class ImmediateFuture:
    """What one task awaits, once. :meth:`wake` runs the task there and then.

    An :class:`asyncio.Future` wakes its task in the loop's next turn. A reply passes through several hands,
    and for a lone caller each turn of the loop is as dear as all that a hand does in it.
    """

    _asyncio_future_blocking = False
    """By which a task knows what is like a future, as :func:`asyncio.isfuture` says."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._done = False
        self._cancelled = False
        self._callback: Callable[[ImmediateFuture], object] | None = None
        self._context: Context | None = None

    def wake(self) -> None:
        """Run the task until it waits again. Only from a callback of the loop: a task cannot run within another."""
        if not self._done:
            self._done = True
            if self._callback is not None and self._context is not None:
                self._context.run(self._callback, self)

    def wake_soon(self) -> None:
        """Wake the task in the loop's next turn; this may be called from anywhere."""
        self._loop.call_soon(self.wake)

    # --- what a task expects of it -----------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, None]:
        if not self._done:
            self._asyncio_future_blocking = True
            yield self
        self.result()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, callback: Callable[[ImmediateFuture], object], *, context: Context) -> None:
        self._callback, self._context = callback, context

    def result(self) -> None:
        if self._cancelled:
            raise asyncio.CancelledError

    def cancel(self, msg: object = None) -> bool:
        """The task is being cancelled, and is woken to hear of it."""
        if self._done:
            return False
        self._done = self._cancelled = True
        if self._callback is not None:
            self._loop.call_soon(self._callback, self, context=self._context)
        return True
