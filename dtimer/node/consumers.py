"""Gives a node's events to handlers or iterators, and notices when those are done with one (rules N2 and N5).

It knows no store: its owner decides what becomes of an event, and is told how each handler ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from enum import Enum
from functools import partial
from types import CoroutineType
from typing import Any, Generic, Protocol

from attrs import define

from dtimer.codecs.codec import PayloadT
from dtimer.errors import ConsumerConflict
from dtimer.event import Event, delivery_of, delivery_state
from dtimer.node.background import current_work
from dtimer.node.context import TimerContext
from dtimer.node.handler_threads import HandlerThreads
from dtimer.node.loop_monitor import LoopMonitor
from dtimer.node.registry import HeldEvent, IteratorSlot, Registry
from dtimer.protocol.backend import Simulator
from dtimer.user_code import ends_the_program, ends_the_task, to_await


class Ending(Enum):
    """The end of a handler that did not return."""

    RAISED = "raised"
    """Also a CancelledError that was not meant for its task."""
    CANCELLED = "cancelled"
    CUT = "cut"
    """Cancelled by `leave`."""
    OVERRUN = "overrun"
    """Cancelled, since it ran for too long."""


@define(eq=False)
class InFlight(Generic[PayloadT]):
    """The state of an unfinished event: the handlers that run for it."""

    event: Event[PayloadT]
    tasks: tuple[asyncio.Task[None], ...] = ()
    num_begun: int = 0
    """How many of the tasks have begun."""
    open: int = 0
    cut: bool = False
    """`leave` has cancelled its handlers."""
    ending: bool = False
    """Its last handler merely waits for the confirm at the end of its block."""
    begun_us: int = 0
    since_us: int = 0
    """When its deadline was set last, by the local clock."""
    timeout_us: int = 0
    """The time from `since_us` to the deadline; 0 before the first look."""
    asking_us: int = 0
    """The timeout of the next extension."""
    stretched: bool = False
    """The next extension is longer than the event's own timeout, which only happens in a simulator."""
    extending: bool = False
    over: bool = False
    """Its handlers have run for too long, and it is not extended any more."""
    several: bool = False
    """More than one handler got it: the end of each block is a vote."""
    voted: bool = False
    """A block was left cleanly."""
    failed: bool = False
    """A handler, or a block, raised."""
    spoiled: bool = False
    """A handler was cancelled, or ended the program: the event is left to its deadline."""

    @property
    def cancelled(self) -> Ending:
        """Why a handler of the event was cancelled."""
        return Ending.CUT if self.cut else Ending.OVERRUN if self.over else Ending.CANCELLED


class ConsumersOwner(Protocol[PayloadT]):
    """Gets notified of what the consumers do with their events."""

    @property
    def changed(self) -> Callable[[], None]:
        """To be called when room or the number of unfinished events may have changed."""
        ...

    def handler_failed(self, event: Event[PayloadT], error: BaseException, ending: Ending) -> None:
        """A handler raised, or was cancelled."""
        ...

    def give_back(self, event: Event[PayloadT]) -> None:
        """No handler or iterator is left for this event, which requires a confirm."""
        ...

    def all_ended(self, in_flight: InFlight[PayloadT]) -> None:
        """All handlers of an event have ended, and none has settled it."""
        ...

    def abandoned(self, in_flight: InFlight[PayloadT]) -> None:
        """No handler works on it any more, although its deadline was stretched."""
        ...


class Consumers(Generic[PayloadT]):
    """The handlers and iterators of one node, at work.

    Attributes:
        unfinished: the events that are not finished, oldest first.
    """

    def __init__(
        self,
        context: TimerContext,
        registry: Registry[PayloadT],
        monitor: LoopMonitor,
        owner: ConsumersOwner[PayloadT],
        *,
        in_threads: bool,
    ) -> None:
        """For the running loop."""
        self.unfinished: dict[Event[PayloadT], InFlight[PayloadT]] = {}
        self._num_ending = 0
        # To ask for it costs a call of the system in Python 3.11.
        self._loop = asyncio.get_running_loop()
        self._simulator = context.runtime.simulator
        self._threads = HandlerThreads(context.runtime) if in_threads else None
        self._registry = registry
        self._monitor = monitor
        self._owner = owner
        self._on_change = owner.changed
        # Events that require no confirm and whose iterator was closed. The store has forgotten them, so the next
        # consumer gets them.
        self._left_over: deque[Event[PayloadT]] = deque()

    def look_again(self) -> None:
        """Handlers or iterators have changed. Called in the loop of the events."""
        while self._left_over and self._registry.handlers:
            self._run(self._left_over.popleft())
        self._on_change()

    def end_all(self) -> None:
        """The node has left."""
        self._registry.end_slots()
        if self._threads is not None:
            self._threads.end_idle()

    def room(self, num_coming: int) -> int:
        """How many events there is room for, beside `num_coming` that are about to be delivered."""
        registry = self._registry
        free = registry.max_events - len(self.unfinished) - len(self._left_over) - num_coming + self._num_ending
        if not registry.handlers:
            free = min(free, len(registry.waiting) - num_coming)
        return max(free, 0)

    # --- handing out -----------------------------------------------------------------------------------

    def deliver(self, event: Event[PayloadT]) -> None:
        """Give an event to the handlers, or to an iterator that waits."""
        if self._registry.handlers:
            self._run(event)
        elif self._registry.waiting:
            self._hand(next(iter(self._registry.waiting)), event)
        elif event.requires_confirm:
            self._owner.give_back(event)
        else:
            self._left_over.append(event)

    def finish(self, event: Event[PayloadT]) -> None:
        """The event is finished. Idempotent."""
        in_flight = self.unfinished.pop(event, None)
        if in_flight is not None:
            self._num_ending -= in_flight.ending
            if in_flight.stretched and not delivery_state(event).asked:
                self._owner.abandoned(in_flight)
            self._on_change()

    def finish_if_iterated(self, event: Event[PayloadT]) -> None:
        """The event was confirmed or given back. That finishes the event of an iterator; a handler has to return."""
        in_flight = self.unfinished.get(event)
        if in_flight is not None and not in_flight.open:
            self.finish(event)

    def vote(self, event: Event[PayloadT], *, failed: bool) -> bool:
        """A block of the event was left, or a handler raised. Returns whether that is settled when all have ended."""
        in_flight = self.unfinished.get(event)
        if in_flight is None or not in_flight.open:
            return False
        in_flight.failed = in_flight.failed or failed
        in_flight.voted = True
        return in_flight.several

    def spoil(self, event: Event[PayloadT]) -> None:
        """A handler of the event was cancelled, or ended the program."""
        in_flight = self.unfinished.get(event)
        if in_flight is not None:
            in_flight.spoiled = True

    def make_room(self, event: Event[PayloadT]) -> None:
        """An event whose last handler merely waits for the confirm at its block's end takes no room until `at_end`."""
        in_flight = self.unfinished.get(event)
        if in_flight is not None and in_flight.open == 1 and not in_flight.ending:
            in_flight.ending = True
            self._num_ending += 1

    def at_end(self, event: Event[PayloadT]) -> None:
        """A block was left. A handler that goes on after it takes up room as before."""
        in_flight = self.unfinished.get(event)
        if in_flight is None:
            return
        if in_flight.ending:
            in_flight.ending = False
            self._num_ending -= 1
        if not in_flight.open:
            self.finish(event)

    async def next_for(self, slot: IteratorSlot[PayloadT]) -> Event[PayloadT] | None:
        """The next event of an iterator, which is done with the one before; None ends the iterator."""
        if slot.waiter is not None:
            raise ConsumerConflict("this iterator is being waited for already; make another one")
        slot.finish_held()
        if self._left_over:
            self._take(slot, self._left_over.popleft())
        elif slot.ended:
            return None
        else:
            await self._wait(slot)
        return self._handed(slot)

    def _handed(self, slot: IteratorSlot[PayloadT]) -> Event[PayloadT] | None:
        event = None if slot.held is None else slot.held.event
        current_work.set(event)
        if event is not None and self._simulator is not None:
            self._simulator.handing(event.data)
        return event

    async def _wait(self, slot: IteratorSlot[PayloadT]) -> None:
        slot.waiter = asyncio.get_running_loop().create_future()
        self._registry.waiting[slot] = None
        self._on_change()
        try:
            await slot.waiter
        except asyncio.CancelledError:
            # The iterator may have got an event at the same moment, which it will not see.
            if slot.held is not None:
                event, slot.held = slot.held.event, None
                self.unfinished.pop(event, None)
                slot.waiter = None
                self._registry.waiting.pop(slot, None)
                self.deliver(event)
            raise
        finally:
            slot.waiter = None
            self._registry.waiting.pop(slot, None)

    def _hand(self, slot: IteratorSlot[PayloadT], event: Event[PayloadT]) -> None:
        del self._registry.waiting[slot]
        self._take(slot, event)
        assert slot.waiter is not None, "a waiting seat has a waiter"
        if not slot.waiter.done():
            slot.waiter.set_result(event)

    def _take(self, slot: IteratorSlot[PayloadT], event: Event[PayloadT]) -> None:
        slot.held = HeldEvent(event, self.finish)
        self.unfinished[event] = InFlight(event)

    # --- running handlers --------------------------------------------------------------------------------

    def _run(self, event: Event[PayloadT]) -> None:
        in_flight = InFlight(event)
        self.unfinished[event] = in_flight
        # Counts as one itself, so that the event is not finished before all its handlers are started.
        in_flight.open = 1
        handlers = self._registry.handlers
        in_flight.several = len(handlers) > 1
        try:
            if not in_flight.several and not handlers[0][2]:
                # The usual case. The call runs no code of the handler yet, and the task that does has its own context.
                handler, label, _ = handlers[0]
                try:
                    result = handler(event)
                    # Mostly that is a coroutine, of which nothing need be asked.
                    work: Coroutine[Any, Any, object] | None
                    work = result if type(result) is CoroutineType else to_await(result)  # pyright: ignore[reportUnknownVariableType]
                except BaseException as error:
                    self._raised(event, error)
                    return
                if work is not None:
                    self._start(in_flight, work, f"{label}{delivery_of(event).event.id}")  # pyright: ignore[reportUnknownArgumentType]
                return
            given = copy_context()
            try:
                given.run(self._handing, event)
            except Exception as error:
                self._owner.handler_failed(event, error, Ending.RAISED)
                return
            for handler, label, plain in handlers:
                # A copy for each that runs code now: what one call sets is not seen by the next. A task makes its own.
                context = given.copy() if plain else given
                try:
                    if not plain:
                        work = to_await(handler(event))
                    elif self._threads is not None:
                        work = self._threads.call(context, handler, event, lambda: in_flight.over)
                    else:
                        since_us = self._monitor.now_us()
                        work = to_await(context.run(handler, event))
                        self._monitor.ran(since_us, label, event.id)
                except BaseException as error:
                    self._raised(event, error)
                    continue
                if work is not None:
                    context.run(self._start, in_flight, work, f"{label}{event.id}")
        finally:
            if in_flight.open > 1:  # as nearly always
                in_flight.open -= 1
            else:
                self._returned(in_flight)

    def _raised(self, event: Event[PayloadT], error: BaseException) -> None:
        """A call of a handler raised; an exception that ends the program is raised again."""
        self._owner.handler_failed(event, error, Ending.RAISED)
        if ends_the_program(error):
            raise error

    def _handing(self, event: Event[PayloadT]) -> None:
        """Called in the context of the handlers, and so of the tasks that they start."""
        current_work.set(event)
        if self._simulator is not None:
            self._simulator.handing(event.data)

    def _start(self, in_flight: InFlight[PayloadT], coroutine: Coroutine[Any, Any, object], name: str) -> None:
        never_began = partial(self._never_began, in_flight, coroutine)
        num_begun = in_flight.num_begun
        # An eager task may have ended when create_task returns.
        in_flight.open += 1
        work = self._work(in_flight, coroutine, name, never_began)
        try:
            task = self._loop.create_task(work, name=name)
        except BaseException as error:
            if in_flight.num_begun == num_begun:  # a task factory's fault
                work.close()
                coroutine.close()
                self._owner.handler_failed(in_flight.event, error, Ending.RAISED)
                self._returned(in_flight)
            if ends_the_program(error):
                raise
            return
        in_flight.tasks += (task,)
        if in_flight.num_begun == num_begun:
            # A callback costs more than all else here, so the task takes it off as soon as it sees to the rest itself.
            task.add_done_callback(never_began)

    async def _work(
        self,
        in_flight: InFlight[PayloadT],
        coroutine: Coroutine[Any, Any, object],
        name: str,
        never_began: Callable[[asyncio.Task[None]], None],
    ) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None, "it is one"
        in_flight.num_begun += 1
        task.remove_done_callback(never_began)
        try:
            if self._simulator is None:
                current_work.set(in_flight.event)
                await coroutine
            else:
                await self._simulated(self._simulator, in_flight.event, coroutine, name)
        except BaseException as error:
            # Who is told of it is not at work on the event.
            current_work.set(None)
            ends = ends_the_task(error, task)
            if not issubclass(type(error), GeneratorExit) or not ends:
                cancelled = ends and issubclass(type(error), asyncio.CancelledError)
                ending = in_flight.cancelled if cancelled else Ending.RAISED
                self._owner.handler_failed(in_flight.event, error, ending)
            if ends:
                raise
        finally:
            self._returned(in_flight)

    async def _simulated(
        self, simulator: Simulator, event: Event[PayloadT], coroutine: Coroutine[Any, Any, object], name: str
    ) -> None:
        if current_work.get() is not event:
            try:
                self._handing(event)
            except BaseException:
                coroutine.close()
                raise
        with simulator.working(name):
            await coroutine

    def _never_began(
        self, in_flight: InFlight[PayloadT], coroutine: Coroutine[Any, Any, object], task: asyncio.Task[None]
    ) -> None:
        """The task was cancelled before it began, so only this closes the handler's coroutine."""
        coroutine.close()
        self._owner.handler_failed(in_flight.event, asyncio.CancelledError(), in_flight.cancelled)
        self._returned(in_flight)

    def _returned(self, in_flight: InFlight[PayloadT]) -> None:
        in_flight.open -= 1
        if not in_flight.open:
            its = delivery_state(in_flight.event)
            # Asked for and not failed, as nearly always: then the property need not be called.
            if (its.settling is None or its.settling.failed) and not its.asked:
                self._owner.all_ended(in_flight)
            self.finish(in_flight.event)

    def overrun(self, in_flight: InFlight[PayloadT]) -> bool:
        """Cancel the handlers of an event, which have run for too long; False if one of them cannot be cancelled."""
        in_flight.over = True
        stuck = [task for task in in_flight.tasks if self._threads is not None and task in self._threads.waiting]
        for task in in_flight.tasks:
            if task not in stuck:
                task.cancel()
        return bool(in_flight.tasks) and not stuck

    def cancel(self, event: Event[PayloadT]) -> None:
        """Cancel the handlers of an event; the event of an iterator is merely not waited for any more."""
        in_flight = self.unfinished[event]
        in_flight.cut = True
        for task in in_flight.tasks:
            task.cancel()
        if not in_flight.tasks:
            self.finish(event)
