"""Registering handlers with a timer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Generic, Literal, TypeAlias, TypeVar, overload

from dtimer import _validation
from dtimer.codecs.codec import PayloadT
from dtimer.errors import DTimerError, InvalidArgument
from dtimer.event import Event, Exhausted
from dtimer.node.consumers import Consumers
from dtimer.node.context import TimerContext
from dtimer.node.hooks import Hooks
from dtimer.safe_repr import safe_repr
from dtimer.user_code import is_generator_function

R = TypeVar("R")
EventName: TypeAlias = Literal["event", "exhausted", "error", "ready"]
_NAMES: Final[tuple[EventName, ...]] = ("event", "exhausted", "error", "ready")


class Handlers(ABC, Generic[PayloadT]):
    """The part of a timer that knows its handlers."""

    def _init_handlers(self, context: TimerContext) -> None:
        self._hooks: dict[str, Hooks[...]] = {
            "exhausted": context.exhausted,
            "error": context.reporter.hooks,
            "ready": context.ready,
        }

    def _take_with(self, takers: Consumers[PayloadT]) -> None:
        """Who runs the handlers for events, from now on."""
        self._takers = takers

    @abstractmethod
    def _leave_closed_loop(self) -> None:
        """Iterators that wait in a loop that was closed come to no end, and exclude nothing any more."""

    @abstractmethod
    def _at_home(self, call: Callable[[], object]) -> None:
        """Call this in the loop where events are taken, or here if there is none yet."""

    @overload
    def on(self, name: Literal["event"], handler: Callable[[Event[PayloadT]], R]) -> Callable[[Event[PayloadT]], R]: ...
    @overload
    def on(
        self, name: Literal["exhausted"], handler: Callable[[Exhausted[PayloadT]], R]
    ) -> Callable[[Exhausted[PayloadT]], R]: ...
    @overload
    def on(self, name: Literal["error"], handler: Callable[[DTimerError], R]) -> Callable[[DTimerError], R]: ...
    @overload
    def on(self, name: Literal["ready"], handler: Callable[[], R]) -> Callable[[], R]: ...
    @overload
    def on(
        self, name: Literal["event"]
    ) -> Callable[[Callable[[Event[PayloadT]], R]], Callable[[Event[PayloadT]], R]]: ...
    @overload
    def on(
        self, name: Literal["exhausted"]
    ) -> Callable[[Callable[[Exhausted[PayloadT]], R]], Callable[[Exhausted[PayloadT]], R]]: ...
    @overload
    def on(self, name: Literal["error"]) -> Callable[[Callable[[DTimerError], R]], Callable[[DTimerError], R]]: ...
    @overload
    def on(self, name: Literal["ready"]) -> Callable[[Callable[[], R]], Callable[[], R]]: ...

    def on(self, name: EventName, handler: Callable[..., object] | None = None) -> Callable[..., object]:
        """Register a handler, a function or a coroutine function; without one, a decorator that does.

        * ``event``: an :class:`dtimer.Event` is due. Each of several handlers gets it; it is finished when all return.
        * ``exhausted``: an :class:`dtimer.Exhausted` event ended unconfirmed or expired, and this node alone is told.
        * ``error``: a :class:`dtimer.DTimerError` that nobody else gets. Without a handler they are logged.
        * ``ready``: the timer has joined, or joined again by itself after the store had lost it.

        Raises:
            InvalidArgument: the name, or what is no function.
            ConsumerConflict: for ``event``, while an ``events()`` iterator is open.
        """
        name = _checked(name)
        self._leave_closed_loop()
        add = self._takers.add if name == "event" else self._hooks[name].add

        def register(handler: Callable[..., object]) -> Callable[..., object]:
            _validation.function(handler, "handler")
            if is_generator_function(handler):
                raise InvalidArgument(
                    "handler", f"must not have a yield in it, as {safe_repr(handler)} has: it would never run"
                )
            add(handler)
            if name == "event":
                self._at_home(self._takers.added)
            return handler

        return register if handler is None else register(handler)

    def off(self, name: EventName, handler: Callable[..., object]) -> None:
        """Take one registration of a handler back; harmless if there is none. It finishes the events it runs on."""
        name = _checked(name)
        if name == "event":
            self._takers.remove(handler)
        else:
            self._hooks[name].remove(handler)


def _checked(name: object) -> EventName:
    for known in _NAMES:
        if isinstance(name, str) and str.__str__(name) == known:
            return known
    raise InvalidArgument("name", f"must be 'event', 'exhausted', 'error' or 'ready', not {safe_repr(name)}")
