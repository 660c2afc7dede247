"""What `call_soon` and `call_at` give back. Two are made for each sleep, so they do as little as they can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from dtimer.sim.loop.process import Process


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

    @override
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

    def __init__(
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
        if self.scheduled and self.callback is not None:
            self.process.loop.timer_cancelled()
        self.callback = None
        self.arguments = ()

    @override
    def cancelled(self) -> bool:
        return self.callback is None

    @override
    def when(self) -> float:
        return float("inf") if self.when_us is None else self.when_us / 1e6

    @override
    def get_context(self) -> Context:
        return self.context

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.when()} s: {self.callback or 'cancelled'!r}>"

    # Those of asyncio compare times and callbacks; two timers of one kind and time are not one.
    __eq__ = object.__eq__
    __lt__ = __le__ = __gt__ = __ge__ = None  # type: ignore[assignment]

    @override
    def __hash__(self) -> int:
        return hash((self.process.name, self.number))
