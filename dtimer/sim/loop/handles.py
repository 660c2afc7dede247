"""What `call_soon` and `call_at` give back. Two are made for each sleep, so they do as little as they can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from dtimer.sim.loop.process import Process


def callback_name(callback: Callable[..., object]) -> str:
    """What it is, without its address, which is another one in every run."""
    while isinstance(callback, partial):
        callback = callback.func
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return f"step of task {owner.get_name()!r}"
    return getattr(callback, "__qualname__", type(callback).__qualname__)


class SimHandle(asyncio.Handle):
    """A callback that is to run at this instant.

    Attributes:
        callback: None when it was cancelled.
    """

    __slots__ = ("arguments", "callback", "context")

    # Nothing of asyncio's constructor is needed.
    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...], context: Context) -> None:
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments
        self.context = context

    @override
    def cancel(self) -> None:
        self.callback = None
        self.arguments = ()

    @override
    def cancelled(self) -> bool:
        return self.callback is None

    def get_context(self) -> Context:
        return self.context

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.callback or 'cancelled'!r}>"


class SimTimer(asyncio.TimerHandle):
    """A callback that is to run at an instant to come.

    Attributes:
        callback: None when it was cancelled.
        process: to which it belongs.
        number: it is the so-many-th timer of its process.
        when_us: in microseconds since the start; None means never.
        scheduled: it stands in the heap.
    """

    __slots__ = ("arguments", "callback", "context", "number", "process", "scheduled", "when_us")

    def __init__(  # noqa: PLR0917 - by position it is faster
        self,
        when_us: int | None,
        callback: Callable[..., object],
        arguments: tuple[Any, ...],
        context: Context,
        process: Process,
        number: int,
    ) -> None:
        self.when_us = when_us
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments
        self.context = context
        self.process = process
        self.number = number
        self.scheduled = False

    @override
    def cancel(self) -> None:
        waits = self.scheduled and self.callback is not None
        self.callback = None
        self.arguments = ()
        if waits:
            self.process.loop.timer_cancelled()

    @override
    def cancelled(self) -> bool:
        return self.callback is None

    @override
    def when(self) -> float:
        return float("inf") if self.when_us is None else self.when_us / 1e6

    def get_context(self) -> Context:
        return self.context

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.when()} s: {self.callback or 'cancelled'!r}>"

    @override
    def __eq__(self, other: object) -> bool:
        # asyncio's compares times and callbacks.
        return self is other

    @override
    def __hash__(self) -> int:
        return hash((self.process.name, self.number))
