"""Who takes a node's events, how many they may hold, and when they are done with one (rules N2 and N5).

Either handlers, which run as many events at once as `max_events` allows, or iterators, each with one at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from enum import Enum
from functools import partial
from typing import Any, Generic

from attrs import define

from dtimer.codecs.codec import PayloadT
from dtimer.errors import ConsumerConflict
from dtimer.event import Event, EventHandler, delivery_state
from dtimer.node.handler_threads import HandlerThreads
from dtimer.node.loop_watch import LoopWatch
from dtimer.node.reports import in_hand
from dtimer.protocol.backend import Runtime
from dtimer.safe_repr import safe_repr
from dtimer.user_code import ends_the_program, ends_the_task, is_coroutine_function, to_await


class Ending(Enum):
    """How a handler ended that did not return."""

    RAISED = "raised"
    """Also a CancelledError that was not meant for its task."""
    CANCELLED = "cancelled"
    CUT = "cut"
    """Cancelled by `leave`."""
    OVERRUN = "overrun"
    """Cancelled, since it ran for too long."""


@define(eq=False)
class Seat(Generic[PayloadT]):
    """An iterator's place.

    Attributes:
        waiter: set while the next event is waited for; None as its result is the end.
        held: the event that was handed out last, until it is finished.
        ended: no more events come.
    """

    waiter: asyncio.Future[Event[PayloadT] | None] | None = None
    held: Event[PayloadT] | None = None
    ended: bool = False


@define(eq=False)
class Holding(Generic[PayloadT]):
    """What is known of an unfinished event: the handlers that run on it."""

    event: Event[PayloadT]
    tasks: tuple[asyncio.Task[None], ...] = ()
    num_begun: int = 0
    """How many of the tasks have."""
    open: int = 0
    cut: bool = False
    """`leave` cancelled it."""
    ending: bool = False
    """Its last handler merely waits for the confirm at its block's end."""
    begun_us: int = 0
    since_us: int = 0
    """When its deadline was set last, by the local clock."""
    timeout_us: int = 0
    """To which it was set from then; 0 for one that was not looked at yet."""
    asking_us: int = 0
    """To which it is to be set next."""
    stretched: bool = False
    """That is further than its own timeout, as only the simulator has it."""
    extending: bool = False
    over: bool = False
    """It has run for too long, and is not extended any more."""
    several: bool = False
    """More than one handler was given it: what each says of it at its block's end is a vote."""
    voted: bool = False
    """A block was left cleanly."""
    failed: bool = False
    """A handler, or a block, raised."""
    spoiled: bool = False
    """A handler was cancelled, or ended the program: only the deadline is right."""

    @property
    def cancelled(self) -> Ending:
        """What it means that a handler of it was."""
        return Ending.CUT if self.cut else Ending.OVERRUN if self.over else Ending.CANCELLED


class Consumers(Generic[PayloadT]):
    """All takers of one timer.

    Attributes:
        max_events: how many events may be unfinished at once.
        unfinished: those that are, oldest first.
    """

    def __init__(
        self,
        runtime: Runtime,
        max_events: int,
        *,
        in_threads: bool,
        watch: LoopWatch,
        on_change: Callable[[], None],
        on_failure: Callable[[Event[PayloadT], BaseException, Ending], None],
        on_unwanted: Callable[[Event[PayloadT]], None],
        on_unsettled: Callable[[Holding[PayloadT]], None],
        on_abandoned: Callable[[Holding[PayloadT]], None],
    ) -> None:
        """
        Args:
            on_abandoned: nothing works on it any more, although its deadline was stretched.
            on_unsettled: all handlers of an event have ended, and none has settled it.
            on_change: room or the number of unfinished events may have changed.
            on_failure: a handler raised, or was cancelled.
            on_unwanted: nobody is there any more to take a tracked event.
        """
        self.max_events = max_events
        self.unfinished: dict[Event[PayloadT], Holding[PayloadT]] = {}
        self._num_ending = 0
        self._runtime = runtime
        self._threads = HandlerThreads(runtime) if in_threads else None
        self._watch = watch
        self._on_change = on_change
        self._on_failure = on_failure
        self._on_unwanted = on_unwanted
        self._on_unsettled = on_unsettled
        self._on_abandoned = on_abandoned
        # A handler, how its tasks are called but for the event, and whether it is a plain function.
        # A tuple, so that a delivery can go through it while a handler adds another.
        self._handlers: tuple[tuple[EventHandler[PayloadT], str, bool], ...] = ()
        self._seats: dict[Seat[PayloadT], None] = {}
        self._waiting: dict[Seat[PayloadT], None] = {}
        # Events that are not tracked and whose taker went away: the next gets them, as the store has forgotten them.
        self._left_over: deque[Event[PayloadT]] = deque()

    # --- who takes them --------------------------------------------------------------------------------

    def add(self, handler: EventHandler[PayloadT]) -> None:
        """Raises ConsumerConflict while an iterator is open."""
        if self._seats:
            raise ConsumerConflict("an events() iterator is open, and each event goes to one taker")
        name = safe_repr(handler) if (name := getattr(handler, "__qualname__", None)) is None else name
        self._handlers += ((handler, f"handler {name} of event ", not is_coroutine_function(handler)),)

    def added(self) -> None:
        """A handler was; in the loop of the events."""
        while self._left_over and self._handlers:
            self._run(self._left_over.popleft())
        self._on_change()

    def take_over(self, other: Consumers[PayloadT]) -> None:
        """The handlers of another one, and what was set there; its iterators and events stay where they are."""
        self._handlers = other._handlers
        self.max_events = other.max_events

    @property
    def awaited(self) -> bool:
        """An iterator waits for an event."""
        return bool(self._waiting)

    def remove(self, handler: object) -> None:
        """One registration of it; harmless if there is none."""
        for index, (known, _, _) in enumerate(self._handlers):
            if known == handler:
                self._handlers = self._handlers[:index] + self._handlers[index + 1 :]
                return

    def sit(self) -> Seat[PayloadT]:
        """Raises ConsumerConflict while there are handlers."""
        if self._handlers:
            raise ConsumerConflict("there are handlers for 'event', and each event goes to one taker")
        seat = Seat[PayloadT]()
        self._seats[seat] = None
        return seat

    def stand_up(self, seat: Seat[PayloadT]) -> None:
        """The iterator is gone. Idempotent."""
        self._seats.pop(seat, None)
        self._waiting.pop(seat, None)
        self._end(seat)
        if seat.held is not None:
            self.finish(seat.held)
            seat.held = None

    def end_all(self) -> None:
        """The node has left: iterators come to their end, once they have given out what is left over."""
        for seat in tuple(self._seats):
            del self._seats[seat]
            self._waiting.pop(seat, None)
            self._end(seat)
        if self._threads is not None:
            self._threads.end_idle()

    @staticmethod
    def _end(seat: Seat[PayloadT]) -> None:
        seat.ended = True
        if seat.waiter is not None and not seat.waiter.done():
            seat.waiter.set_result(None)

    def room(self, num_coming: int) -> int:
        """How many events there is room for beside so many that are about to come."""
        free = self.max_events - len(self.unfinished) - len(self._left_over) - num_coming + self._num_ending
        if not self._handlers:
            free = min(free, len(self._waiting) - num_coming)
        return max(free, 0)

    # --- handing out -----------------------------------------------------------------------------------

    def deliver(self, event: Event[PayloadT]) -> None:
        """Hand an event to whoever takes it."""
        if self._handlers:
            self._run(event)
        elif self._waiting:
            self._hand(next(iter(self._waiting)), event)
        elif event.tracked:
            self._on_unwanted(event)
        else:
            self._left_over.append(event)

    def finish(self, event: Event[PayloadT]) -> None:
        """Its taker is done with it. Idempotent."""
        holding = self.unfinished.pop(event, None)
        if holding is not None:
            self._num_ending -= holding.ending
            if holding.stretched and not delivery_state(event).asked:
                self._on_abandoned(holding)
            self._on_change()

    def finish_if_iterated(self, event: Event[PayloadT]) -> None:
        """It was confirmed or given back: an iterator's event is finished then, a handler's when that returns."""
        holding = self.unfinished.get(event)
        if holding is not None and not holding.open:
            self.finish(event)

    def vote(self, event: Event[PayloadT], *, failed: bool) -> bool:
        """A block of it was left, or a handler of it ended by an error. Whether that is settled when all have ended."""
        holding = self.unfinished.get(event)
        if holding is None or not holding.open:
            return False
        holding.failed = holding.failed or failed
        holding.voted = True
        return holding.several

    def spoil(self, event: Event[PayloadT]) -> None:
        """A handler of it did not come to an end of its own."""
        holding = self.unfinished.get(event)
        if holding is not None:
            holding.spoiled = True

    def make_room(self, event: Event[PayloadT]) -> None:
        """If its last handler merely waits for the confirm at its block's end, it takes up no room until `at_end`."""
        holding = self.unfinished.get(event)
        if holding is not None and holding.open == 1 and not holding.ending:
            holding.ending = True
            self._num_ending += 1

    def at_end(self, event: Event[PayloadT]) -> None:
        """The block is left. Whatever a handler still does after it takes up room as before."""
        holding = self.unfinished.get(event)
        if holding is None:
            return
        if holding.ending:
            holding.ending = False
            self._num_ending -= 1
        if not holding.open:
            self.finish(event)

    async def next_for(self, seat: Seat[PayloadT]) -> Event[PayloadT] | None:
        """An iterator asks for its next event, and so is done with the one before; None is the end."""
        if seat.waiter is not None:
            raise ConsumerConflict("this iterator is being waited for already; make another one")
        if seat.held is not None:
            self.finish(seat.held)
            seat.held = None
        if self._left_over:
            self._take(seat, self._left_over.popleft())
        elif seat.ended:
            return None
        else:
            await self._wait(seat)
        return self._handed(seat)

    def _handed(self, seat: Seat[PayloadT]) -> Event[PayloadT] | None:
        in_hand.set(seat.held)
        if seat.held is not None:
            self._runtime.handing(seat.held.data)
        return seat.held

    async def _wait(self, seat: Seat[PayloadT]) -> None:
        seat.waiter = asyncio.get_running_loop().create_future()
        self._waiting[seat] = None
        self._on_change()
        try:
            await seat.waiter
        except asyncio.CancelledError:
            # It may have been handed an event at the same moment, which it will not see.
            if seat.held is not None:
                event, seat.held = seat.held, None
                self.unfinished.pop(event, None)
                seat.waiter = None
                self._waiting.pop(seat, None)
                self.deliver(event)
            raise
        finally:
            seat.waiter = None
            self._waiting.pop(seat, None)

    def _hand(self, seat: Seat[PayloadT], event: Event[PayloadT]) -> None:
        del self._waiting[seat]
        self._take(seat, event)
        assert seat.waiter is not None, "a waiting seat has a waiter"
        if not seat.waiter.done():
            seat.waiter.set_result(event)

    def _take(self, seat: Seat[PayloadT], event: Event[PayloadT]) -> None:
        seat.held = event
        self.unfinished[event] = Holding(event)

    # --- running handlers --------------------------------------------------------------------------------

    def _run(self, event: Event[PayloadT]) -> None:
        holding = Holding(event)
        self.unfinished[event] = holding
        # Counts as one itself, so that the event is not finished before all its handlers are started.
        holding.open = 1
        handlers = self._handlers
        holding.several = len(handlers) > 1
        given = copy_context()
        try:
            try:
                given.run(self._handing, event)
            except Exception as error:
                self._on_failure(event, error, Ending.RAISED)
                return
            for handler, label, plain in handlers:
                # A copy for each that runs code now: what one call sets is not seen by the next. A task makes its own.
                context = given.copy() if plain else given
                try:
                    if not plain:
                        work = to_await(handler(event))
                    elif self._threads is not None:
                        work = self._threads.call(context, handler, event)
                    else:
                        since_us = self._watch.now_us()
                        work = to_await(context.run(handler, event))
                        self._watch.ran(since_us, label, event.id)
                except BaseException as error:
                    self._on_failure(event, error, Ending.RAISED)
                    if ends_the_program(error):
                        raise
                    continue
                if work is not None:
                    context.run(self._start, holding, work, f"{label}{event.id}")
        finally:
            self._returned(holding)

    def _handing(self, event: Event[PayloadT]) -> None:
        """In the context of its handlers, and so of what they start."""
        in_hand.set(event)
        self._runtime.handing(event.data)

    def _start(self, holding: Holding[PayloadT], coroutine: Coroutine[Any, Any, object], name: str) -> None:
        never_began = partial(self._never_began, holding, coroutine)
        num_begun = holding.num_begun
        # An eager task may even have ended when it is here.
        holding.open += 1
        work = self._work(holding, coroutine, name, never_began)
        try:
            task = asyncio.get_running_loop().create_task(work, name=name)
        except BaseException as error:
            if holding.num_begun == num_begun:  # a task factory's fault
                work.close()
                coroutine.close()
                self._on_failure(holding.event, error, Ending.RAISED)
                self._returned(holding)
            if ends_the_program(error):
                raise
            return
        holding.tasks += (task,)
        if holding.num_begun == num_begun:
            # A callback costs more than all else here, so the task takes it off as soon as it sees to the rest itself.
            task.add_done_callback(never_began)

    async def _work(
        self,
        holding: Holding[PayloadT],
        coroutine: Coroutine[Any, Any, object],
        name: str,
        never_began: Callable[[asyncio.Task[None]], None],
    ) -> None:
        task = asyncio.current_task()
        assert task is not None, "it is one"
        holding.num_begun += 1
        task.remove_done_callback(never_began)
        try:
            with self._runtime.working(name):
                await coroutine
        except BaseException as error:
            # Who is told of it is not at work on the event.
            in_hand.set(None)
            ends = ends_the_task(error, task)
            if not issubclass(type(error), GeneratorExit) or not ends:
                cancelled = ends and issubclass(type(error), asyncio.CancelledError)
                ending = holding.cancelled if cancelled else Ending.RAISED
                self._on_failure(holding.event, error, ending)
            if ends:
                raise
        finally:
            self._returned(holding)

    def _never_began(
        self, holding: Holding[PayloadT], coroutine: Coroutine[Any, Any, object], task: asyncio.Task[None]
    ) -> None:
        """It was cancelled before, and nobody else would close the handler's coroutine."""
        coroutine.close()
        self._on_failure(holding.event, asyncio.CancelledError(), holding.cancelled)
        self._returned(holding)

    def _returned(self, holding: Holding[PayloadT]) -> None:
        holding.open -= 1
        if not holding.open:
            if not delivery_state(holding.event).asked:
                self._on_unsettled(holding)
            self.finish(holding.event)

    def overrun(self, holding: Holding[PayloadT]) -> bool:
        """Cancel the handlers that run on it, for it has been too long; False if one of them cannot be."""
        holding.over = True
        stuck = [task for task in holding.tasks if self._threads is not None and task in self._threads.waiting]
        for task in holding.tasks:
            if task not in stuck:
                task.cancel()
        return bool(holding.tasks) and not stuck

    def cut(self, event: Event[PayloadT]) -> None:
        """Cancel the handlers that run on it; an iterator's event is merely no longer waited for."""
        holding = self.unfinished[event]
        holding.cut = True
        for task in holding.tasks:
            task.cancel()
        if not holding.tasks:
            self.finish(event)
