"""The handlers or iterators that an application has registered for events, and how many events at once (N2 and N5).

An iterator has one event at a time. The registry exists before the timer has a node in any event loop, and stays when
the timer gets a node in another loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic

from attrs import define

from dtimer.codecs.codec import PayloadT
from dtimer.errors import ConsumerConflict
from dtimer.event import Event, EventHandler
from dtimer.safe_repr import safe_repr
from dtimer.user_code import is_coroutine_function


@define(eq=False)
class HeldEvent(Generic[PayloadT]):
    """The event of an iterator.

    Attributes:
        finish: called with the event when the iterator is done with it.
    """

    event: Event[PayloadT]
    finish: Callable[[Event[PayloadT]], None]


@define(eq=False)
class IteratorSlot(Generic[PayloadT]):
    """The state of one iterator.

    Attributes:
        waiter: a future while the iterator waits for its next event; the result None ends the iterator.
        held: the newest event of the iterator, until it is finished.
        ended: the iterator gets no more events.
    """

    waiter: asyncio.Future[Event[PayloadT] | None] | None = None
    held: HeldEvent[PayloadT] | None = None
    ended: bool = False

    def finish_held(self) -> None:
        """The iterator is done with its event, if it has one."""
        held, self.held = self.held, None
        if held is not None:
            held.finish(held.event)

    def end(self) -> None:
        """End the iterator."""
        self.ended = True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Registry(Generic[PayloadT]):
    """The handlers for events, or the iterators, of one timer.

    Attributes:
        max_events: how many events may be unfinished at once.
        handlers: each with the name of its tasks, without the event's id, and whether it is a plain function.
            A tuple, so that a handler may add another one during a delivery.
        slots: the slots of the open iterators, in one event loop.
        waiting: the slots that wait for an event, the longest waiting first.
    """

    def __init__(self, max_events: int) -> None:
        self.max_events = max_events
        self.handlers: tuple[tuple[EventHandler[PayloadT], str, bool], ...] = ()
        self.slots: dict[IteratorSlot[PayloadT], None] = {}
        self.waiting: dict[IteratorSlot[PayloadT], None] = {}
        self._max_events_initially = max_events

    def set_max_events(self, number: int) -> None:
        """Set the number; 0 or less restores the initial value."""
        self.max_events = number if number > 0 else self._max_events_initially

    def add(self, handler: EventHandler[PayloadT]) -> None:
        """Register a handler. Raises ConsumerConflict while an iterator is open."""
        if self.slots:
            raise ConsumerConflict("an events() iterator is open, and each event goes to one taker")
        name = safe_repr(handler) if (name := getattr(handler, "__qualname__", None)) is None else name
        self.handlers += ((handler, f"handler {name} of event ", not is_coroutine_function(handler)),)

    def remove(self, handler: object) -> None:
        """Remove one registration of a handler; harmless if there is none."""
        for index, (known, _, _) in enumerate(self.handlers):
            if known == handler:
                self.handlers = self.handlers[:index] + self.handlers[index + 1 :]
                return

    def open_slot(self) -> IteratorSlot[PayloadT]:
        """Open an iterator. Raises ConsumerConflict while there are handlers."""
        if self.handlers:
            raise ConsumerConflict("there are handlers for 'event', and each event goes to one taker")
        slot = IteratorSlot[PayloadT]()
        self.slots[slot] = None
        return slot

    def close_slot(self, slot: IteratorSlot[PayloadT]) -> None:
        """Close an iterator. Idempotent."""
        self.slots.pop(slot, None)
        self.waiting.pop(slot, None)
        slot.end()
        slot.finish_held()

    def end_slots(self) -> None:
        """The node has left: iterators end, after the events that are left over."""
        for slot in tuple(self.slots):
            del self.slots[slot]
            self.waiting.pop(slot, None)
            slot.end()

    def leave_slots(self) -> None:
        """Forget the iterators: events are handled in another loop now, where these must not exclude handlers."""
        self.slots, self.waiting = {}, {}
