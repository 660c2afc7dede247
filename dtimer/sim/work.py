"""What is under way in the simulated world. While anything is, virtual time stands still.

A piece of work is a :class:`Hold`: taken when it begins, released when it ends.
It is suspended while it waits for virtual time itself: the two would wait for each other for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

_surrounding: ContextVar[tuple[Hold, ...]] = ContextVar("dtimer_sim_surrounding", default=())
"""The pieces of work that the running code is part of, outermost first. Tasks started within them inherit it."""


class Hold:
    """One piece of work.

    Attributes:
        name: says in errors what it is.
        task: who is at work on it, as far as that is known.
        bound: it belongs to `task` alone: to it, not to the tasks it starts.
    """

    __slots__ = ("_suspensions", "_taken", "bound", "name", "task", "work")

    def __init__(self, work: Work, name: str) -> None:
        self.work = work
        self.name = name
        self.task: asyncio.Task[Any] | None = None
        self.bound = False
        self._taken = False
        self._suspensions = 0

    @property
    def taken(self) -> bool:
        return self._taken

    @property
    def active(self) -> bool:
        """It keeps virtual time from moving."""
        return self._taken and not self._suspensions

    def take(self) -> None:
        self._taken = True
        self.work.under_way[self] = None
        self.work.note(self)

    def release(self) -> None:
        self._taken = False
        self.work.under_way.pop(self, None)
        self.work.note(self)

    def suspend(self) -> None:
        """One more part of it waits for virtual time. As often as this must :meth:`resume` follow."""
        self._suspensions += 1
        self.work.note(self)

    def resume(self) -> None:
        self._suspensions -= 1
        self.work.note(self)


class Working:
    """The context manager of :meth:`dtimer.protocol.Runtime.working`."""

    __slots__ = ("_hold",)

    def __init__(self, work: Work, name: str) -> None:
        self._hold = Hold(work, name)

    def __enter__(self) -> None:
        self._hold.task = current_task()
        self._hold.take()
        _surrounding.set((*_surrounding.get(), self._hold))

    def __exit__(self, *_: object) -> None:
        # Not by a token: an asynchronous generator may be closed in another context than it was entered in.
        _surrounding.set(tuple(hold for hold in _surrounding.get() if hold is not self._hold))
        self._hold.release()


class Suspension:
    """Somebody's wait for virtual time, which suspends the work around it until it ends."""

    __slots__ = ("_holds",)

    def __init__(self, holds: list[Hold]) -> None:
        self._holds = holds
        for hold in holds:
            hold.suspend()

    def end(self) -> None:
        """Idempotent."""
        holds, self._holds = self._holds, []
        for hold in holds:
            hold.resume()


class Work:
    """All pieces of work of one simulator.

    Attributes:
        changes: goes up whenever a piece begins to hold virtual time or ceases to, and with :meth:`stir`.
        on_change: called then.
        under_way: what is taken, oldest first; that which waits for virtual time does not hold it.
    """

    def __init__(self) -> None:
        self.changes = 0
        self.on_change: Callable[[], None] | None = None
        # Dicts, because their order is the same in every run.
        self.under_way: dict[Hold, None] = {}
        self._active: dict[Hold, None] = {}

    @property
    def held(self) -> bool:
        return bool(self._active)

    @property
    def active(self) -> tuple[Hold, ...]:
        """What holds virtual time, oldest first."""
        return tuple(self._active)

    def working(self, name: str) -> Working:
        return Working(self, name)

    def give_up(self) -> None:
        """Wait no more for what is under way now: it is not going to end."""
        for hold in self.active:
            hold.suspend()

    def suspend_current(self) -> Suspension:
        """Suspend the work that the running code is part of."""
        task = current_task()
        surrounding = [hold for hold in _surrounding.get() if hold.work is self and hold.taken]
        own = [hold for hold in self._active if task is not None and hold.task is task and hold not in surrounding]
        return Suspension(surrounding + own)

    def of_caller(self) -> Hold | None:
        """The innermost work that the running code is part of, and that would therefore wait for it in vain."""
        for hold in reversed(_surrounding.get()):
            if hold.work is self and hold.taken:
                return hold
        task = current_task()
        return next((hold for hold in self._active if hold.bound and hold.task is task), None)

    def note(self, hold: Hold) -> None:
        """A hold may have changed."""
        if hold.active == (hold in self._active):
            return
        if hold.active:
            self._active[hold] = None
        else:
            del self._active[hold]
        self.stir()

    def stir(self) -> None:
        """Something has happened, so the world is not at rest."""
        self.changes += 1
        if self.on_change is not None:
            self.on_change()


def current_task() -> asyncio.Task[Any] | None:
    """The running task; None outside of any task, or of any loop."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
