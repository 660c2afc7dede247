"""One simulated operating-system process: what runs in it, and what becomes of that when it is killed or stopped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import ref

from dtimer.sim.loop.tasks import SimTask
from dtimer.sim.rng import derive

if TYPE_CHECKING:
    from dtimer.sim.loop.handles import SimHandle, SimTimer
    from dtimer.sim.loop.loop import SimLoop

T = TypeVar("T")

ExceptionHandler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]

KEPT_MIN: Final = 64
"""What has ended is forgotten when there is at least so much of it, and as much as there is alive."""

process_of: ContextVar[Process] = ContextVar("dtimer_sim_process")
"""The process that the running code belongs to. Tasks and callbacks inherit it."""


class Process:
    """Made by :meth:`SimLoop.process`. Code runs in it that was started in it, and all that this code starts.

    Attributes:
        loop: whose it is.
        name: as it was given.
        incarnation: the so-many-th process of this name.
        alive: it was not killed.
        paused: it was paused and not resumed.
        killed_us: the virtual time at which it was.
        buried: it was killed, and is past having anything closed.
        context: code that is run in a copy of it belongs to this process.
    """

    def __init__(self, loop: SimLoop, name: str, incarnation: int) -> None:
        self.name = name
        self.incarnation = incarnation
        self.alive = True
        self.buried = False
        self.paused = False
        self.killed_us: int | None = None
        self.exception_handler: ExceptionHandler | None = None
        self.order_key = derive(loop.seed, "order", name)
        self.ties_key = derive(loop.seed, "ties", name, incarnation)
        self.loop = loop
        self.context = copy_context()
        self.context.run(process_of.set, self)
        self.ready: deque[SimHandle | SimTimer] = deque()
        """What runs next. The scheduler takes from here."""
        self.inbox: deque[SimHandle | SimTimer] = self.ready
        """Where new callbacks go: to `ready`, when stopped to `held`, when killed nowhere."""
        self.held: deque[SimHandle | SimTimer] = deque()
        self.dormant = True
        """The next callback must wake it."""
        self.listed = False
        """It is among those that the scheduler is to run, or runs."""
        self.timers = 0
        self._tasks: dict[SimTask[Any], None] = {}
        self._named = 0
        self._generators: list[ref[AsyncGenerator[Any, Any]]] = []
        self.generator_hooks = (self._generator_begun, self._generator_left)
        """For `sys.set_asyncgen_hooks`, while it runs."""
        self._clean_at = KEPT_MIN

    def __repr__(self) -> str:
        state = "killed" if not self.alive else "paused" if self.paused else "alive"
        return f"<Process {self.name} #{self.incarnation} {state}>"

    # --- what its user calls ------------------------------------------------------------------------

    @property
    def tasks(self) -> tuple[asyncio.Task[Any], ...]:
        """Those that have not ended, in the order in which they were started."""
        return tuple(task for task in self._tasks if not task.done())

    def run(self, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        """Call back in this process, at this instant."""
        return self.loop.call_soon(callback, *args, context=self.context.copy())

    def create_task(self, coroutine: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Start a task in this process.

        Raises:
            RuntimeError: the process was killed.
        """
        return self.loop.create_task(coroutine, name=name, context=self.context.copy())

    def pause(self) -> None:
        """Stop it, as SIGSTOP does: callbacks and timers that come due wait for :meth:`resume`.

        A process that pauses itself stops before its next step.
        """
        self._not_world("paused")
        if self.alive and not self.paused and not self.loop.burying:
            self.paused = True
            self.dormant = False
            self.held.extend(self.ready)
            self.ready.clear()
            self.inbox = self.held

    def resume(self) -> None:
        """Let it go on, with everything that has come due meanwhile. Nothing happens to one that is not paused."""
        if self.paused and not self.loop.burying:
            self.paused = False
            self.ready.extend(self.held)
            self.held.clear()
            self.inbox = self.ready
            self.dormant = not self.listed
            if self.ready and self.dormant:
                self.loop.wake(self)

    def kill(self) -> None:
        """End it, as SIGKILL does: nothing of it runs ever again; what its tasks were to do remains undone.

        Python cannot drop a suspended coroutine without running its `finally` blocks. They run before any other
        process does, cut off from the world: what they await, schedule, complete or cancel has no effect.
        A process that kills itself ends before its next step.
        """
        self._not_world("killed")
        if self.alive and not self.loop.burying:
            self.alive = self.paused = self.dormant = False
            self.killed_us = self.loop.now_us
            self.ready.clear()
            self.held.clear()
            self.inbox = deque(maxlen=0)
            self.loop.killed(self)

    def _not_world(self, what: str) -> None:
        if self is self.loop.world:
            raise RuntimeError(f"the process {self.name!r} is the simulation itself: it cannot be {what}")

    # --- what the loop calls ------------------------------------------------------------------------

    def next_name(self) -> str:
        """A name for a task that was given none. asyncio would count on from the runs before."""
        self._named += 1
        return f"Task-{self._named}"

    def add(self, task: SimTask[Any]) -> None:
        """Note a task. Without this nobody might refer to it, and it would end whenever garbage is collected."""
        self._tasks[task] = None
        task.on_end(self._ended, self.context)

    def _ended(self, task: SimTask[Any]) -> None:
        del self._tasks[task]
        if task._log_traceback:
            self.loop.error_untaken(task)

    def note_failed(self) -> None:
        """The loop was stopped before it came to say this of the tasks that ended last."""
        for task in self._tasks:
            if task.done() and task._log_traceback:
                self.loop.error_untaken(task)

    def take_tasks(self) -> list[SimTask[Any]]:
        """All that are noted, which are its own no more."""
        tasks, self._tasks = list(self._tasks), {}
        return tasks

    def _generator_begun(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._generators.append(ref(generator))
        if len(self._generators) >= self._clean_at:
            self._generators = [begun for begun in self._generators if begun() is not None]
            self._clean_at = max(KEPT_MIN, 2 * len(self._generators))

    def _generator_left(self, generator: AsyncGenerator[Any, Any]) -> None:
        """An asynchronous generator was dropped before its end: close it, unless nobody can say when this is.

        The moment at which the garbage collector finds one is another in every run, so what it finds is dropped as it
        is; and so is what belonged to a process that was killed.
        """
        if self.alive and not self.loop.collecting:
            self.create_task(generator.aclose())

    @property
    def has_generators(self) -> bool:
        return any(begun() is not None for begun in self._generators)

    def take_generators(self) -> list[AsyncGenerator[Any, Any]]:
        """Those that were begun and not dropped, in this order; they are its own no more."""
        generators = [generator for begun in self._generators if (generator := begun()) is not None]
        self._generators = []
        return generators
