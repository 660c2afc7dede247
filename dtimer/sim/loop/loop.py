"""An event loop in virtual time: nothing real is waited for, and one seed leads to one order of everything."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, Final, TypeVar, TypeVarTuple, Unpack, cast

from typing_extensions import override

from dtimer.sim.errors import LEAVES, SimMisuse, SimStuck
from dtimer.sim.loop.burial import bury
from dtimer.sim.loop.failures import Failure, FailureLog, is_untaken, owner_of
from dtimer.sim.loop.guards import guarded
from dtimer.sim.loop.handles import SimHandle, SimTimer, callback_name
from dtimer.sim.loop.process import ExceptionHandler, Process, process_of
from dtimer.sim.loop.refusals import THREADS, Refusals
from dtimer.sim.loop.schedule import Schedule
from dtimer.sim.loop.tasks import NOT_YET_US, SimFuture, SimTask

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEPS_MAX: Final = 1_000_000
"""More steps at one instant are taken for a loop that never ends: some seconds of computing."""
NEVER_S: Final = 1e12
"""A timer that is further ahead never fires, as with `asyncio.sleep(math.inf)`: that is 30,000 years."""
WORLD: Final = "world"


class SimLoop(Schedule, Refusals, asyncio.AbstractEventLoop):
    """The event loop of a simulation. :meth:`run` runs one program on it.

    Time is an integer of microseconds, and moves to the next timer when nothing is left to do at this instant.

    Order. Callbacks of a process run first in, first out; its timers by time, and those of one microsecond in an order
    drawn from the seed. When several processes have something to do at one instant, the seed draws their order, and
    each goes on until it has nothing left to do. So the order does not hang on hashes, addresses or the garbage
    collector; nor on how many turns a Python version takes inside of asyncio, as long as processes affect each other
    only at a later instant.

    Args:
        seed: of all that is drawn.
        steps_max: more callbacks than this at one instant raise a :class:`dtimer.sim.SimStuck`.

    Attributes:
        seed: as given.
        now_us: the virtual time, in microseconds since the start.
        world: the process of all code that was started in no other.
        burying: a killed process is being ended, and what it does has no effect.
        collecting: the garbage collector is at work.
    """

    def __init__(self, seed: int = 0, *, steps_max: int = STEPS_MAX) -> None:
        super().__init__(seed, steps_max)
        self.burying = False
        self.collecting = False
        self._failures = FailureLog()
        self._numbers = 0
        self._incarnations: dict[str, int] = {}
        self._closed = False
        self._debug = False
        self._thread: int | None = None
        self.world = self.process(WORLD)

    # --- processes ----------------------------------------------------------------------------------------

    def process(self, name: str) -> Process:
        """A new process. A name may be used again; it is another process then, with draws of its own."""
        incarnation = self._incarnations[name] = self._incarnations.get(name, 0) + 1
        process = Process(self, name, incarnation)
        self._processes.append(process)
        return process

    @property
    def current(self) -> Process:
        """The process that the calling code belongs to."""
        process = process_of.get(None)
        return process if process is not None and process.loop is self else self.world

    @override
    def killed(self, process: Process) -> None:
        super().killed(process)
        self._failures.forget_uncertain()
        if self._thread is None:
            self._bury()

    # --- running ------------------------------------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a program to its end, then end what it left behind: kill the processes, cancel the world's tasks.

        The loop is closed then, and cannot run another.

        Raises:
            SimStuck: nothing can ever happen again, or a task goes on and on at one instant.
            BaseExceptionGroup: the program ended well, but there are :attr:`failures`.
                Those of a process that has an exception handler (`loop.set_exception_handler`) are the handler's.
        """
        try:
            self._check_idle()
        except RuntimeError:
            main.close()
            raise
        task = self.create_task(main, name="main")
        try:
            result = self.run_until_complete(task)
        except BaseException as error:
            self._end()
            for failure in self.failures:
                error.add_note(f"Also {failure}")
            raise
        else:
            self._end()
        finally:
            self.close()
        errors = [failure.raised() for failure in self.failures if not failure.handled]
        if errors:
            raise BaseExceptionGroup("callbacks failed, or tasks that nobody waited for", errors)
        return result

    @override
    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        self._check_idle()
        awaited = asyncio.ensure_future(cast("Awaitable[T]", future), loop=self)
        self._drive(awaited)
        if not awaited.done():
            raise RuntimeError("the loop was stopped before the future was done")
        return awaited.result()

    @override
    def run_forever(self) -> None:
        self._check_idle()
        with self._in_charge():
            self._go()

    @override
    def stop(self) -> None:
        """Return from :meth:`run_forever` after this callback."""
        self._stopping = True

    @override
    def is_running(self) -> bool:
        return self._thread is not None

    @override
    def is_closed(self) -> bool:
        return self._closed

    @override
    def close(self) -> None:
        """End all that is left, as if it was killed. Idempotent."""
        if self._thread is not None:
            raise RuntimeError("a running loop cannot be closed")
        if not self._closed:
            self._kill_all()
            bury(self.world)
            self._timers.clear()
            self.world.ready.clear()
            self._closed = True

    def _drive(self, future: asyncio.Future[Any]) -> None:
        """Run until it is done, whatever its result."""

        def stop(_: asyncio.Future[Any]) -> None:
            self._stopping = True

        future.add_done_callback(stop)
        try:
            with self._in_charge():
                self._go()
        finally:
            future.remove_done_callback(stop)

    def _check_idle(self) -> None:
        if self._closed:
            raise RuntimeError("the loop is closed")
        if self._thread is not None:
            raise RuntimeError("the loop is running already")
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("another event loop is running in this thread; start a simulation outside of any")

    @contextmanager
    def _in_charge(self) -> Iterator[None]:
        """This thread's running loop; in the end everything is as it was."""
        hooks = sys.get_asyncgen_hooks()
        self._thread = threading.get_ident()
        gc.callbacks.append(self._note_gc)
        asyncio._set_running_loop(self)
        try:
            with guarded():
                yield
        finally:
            asyncio._set_running_loop(None)
            gc.callbacks.remove(self._note_gc)
            sys.set_asyncgen_hooks(*hooks)
            self._hooks_of = None
            self._stopping = False
            self._thread = None

    def _note_gc(self, phase: str, _: dict[str, int]) -> None:
        self.collecting = phase == "start"

    # --- the end ------------------------------------------------------------------------------------------

    def _kill_all(self) -> None:
        for process in self.processes:
            if process is not self.world:
                process.kill()

    def _end(self) -> None:
        """The program is over: what it left behind is given the chance to end, and not more steps than an instant."""
        self._tell_last()
        self._kill_all()
        self._steps, self._steps_add_up = 0, True
        left = self.world.tasks
        for task in left:
            task.cancel()
        try:
            self._settle(left)
            if self.world.has_generators:
                self._settle([self.create_task(self.shutdown_asyncgens())])
        except SimStuck as stuck:
            self._note("the tasks that were left did not end when they were cancelled", stuck)
        self._tell_last()

    def _tell_last(self) -> None:
        for process in self._processes:
            process.note_failed()
        with self._in_charge():
            for context in self._failures.last_ones():
                self._tell(context)

    def _settle(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        for task in tasks:
            if not task.done():
                self._drive(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._note(f"task {task.get_name()!r} failed when it was cancelled", error)

    @override
    async def shutdown_asyncgens(self) -> None:
        """Close the asynchronous generators of this process that were begun and not ended, in this order."""
        # Those without owner go now, whenever that was: so the ones left are the same in every run.
        gc.collect()
        for generator in self.current.take_generators():
            try:
                await generator.aclose()
            except Exception as error:
                self._note("an asynchronous generator failed when it was closed", error)

    @override
    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    # --- time and callbacks -------------------------------------------------------------------------------

    @override
    def time(self) -> float:
        return self.now_us / 1e6

    @override
    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> SimHandle:
        if context is None:
            context = copy_context()
        process = context.get(process_of)
        if process is None or process.loop is not self:
            process = self._claim(context)
        handle = SimHandle(callback, args, context)
        process.inbox.append(handle)
        if process.dormant:
            self.wake(process)
        return handle

    @override
    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> SimHandle:
        if self._thread is not None and threading.get_ident() != self._thread:
            raise SimMisuse("loop.call_soon_threadsafe() in another thread", LEAVES, THREADS)
        return self.call_soon(callback, *args, context=context)

    @override
    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> SimTimer:
        # From the integer, so that no rounding error of the time adds up.
        when_us = None if delay > NEVER_S else self.now_us + round(delay * 1e6)
        if context is None:
            context = copy_context()
        process = context.get(process_of)
        if process is None or process.loop is not self:
            process = self._claim(context)
        return self.set_timer(process, when_us, callback, args, context)

    @override
    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> SimTimer:
        return self.call_at_us(None if when > NEVER_S else round(when * 1e6), callback, *args, context=context)

    def call_at_us(
        self,
        when_us: int | None,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> SimTimer:
        """As `call_at`, in whole microseconds since the start; None means never."""
        if context is None:
            context = copy_context()
        process = context.get(process_of)
        if process is None or process.loop is not self:
            process = self._claim(context)
        return self.set_timer(process, when_us, callback, args, context)

    def _claim(self, context: Context) -> Process:
        """Code that is started in a context without a process belongs to the process that starts it."""
        process = self.current
        context.run(process_of.set, process)
        return process

    # --- futures and tasks --------------------------------------------------------------------------------

    def next_number(self) -> int:
        """Of a task or future, for its hash."""
        self._numbers += 1
        return self._numbers

    @override
    def create_future(self) -> SimFuture[Any]:
        future: SimFuture[Any] = SimFuture(loop=self)
        future.process = self._hooks_of
        return future

    @override
    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
        **options: Any,
    ) -> SimTask[T]:
        if options.pop("eager_start", False):
            coro.close()
            raise SimMisuse("a task that starts eagerly", LEAVES, "start it as usual; it takes its first step soon")
        if context is None:
            context = copy_context()
        process = context.get(process_of)
        if process is None or process.loop is not self:
            process = self._claim(context)
        # In the step in which it was killed a process may still try.
        if self._closed or (not process.alive and (process.buried or self.current is not process)):
            coro.close()
            raise RuntimeError(f"the process {process.name!r} was ended: it runs no task any more")
        name = process.next_name() if name is None else str(name)
        task = SimTask(coro, loop=self, name=name, context=context, **options)
        task.process = process
        task.awaited = False
        task.failed_us = NOT_YET_US
        process.add(task)
        return task

    @override
    def set_task_factory(self, factory: object) -> None:
        if factory is not None:
            raise SimMisuse("loop.set_task_factory()", LEAVES, "its tasks are of a kind of their own, for their order")

    @override
    def get_task_factory(self) -> None:
        return None

    # --- errors -------------------------------------------------------------------------------------------

    @property
    def failures(self) -> tuple[Failure, ...]:
        """The errors of callbacks, and of tasks that nobody waited for, in order."""
        return tuple(self._failures.noted)

    def error_untaken(self, future: SimTask[Any] | SimFuture[Any]) -> None:
        """A task or future has failed, and nobody knows it yet."""
        self._failures.watch(future, self.now_us)

    @override
    def failed(self, handle: SimHandle | SimTimer, error: BaseException) -> None:
        # Cancelled by itself, perhaps.
        message = (
            "exception in a callback" if handle.callback is None else f"exception in {callback_name(handle.callback)}"
        )
        self.call_exception_handler({"message": message, "exception": error, "handle": handle})

    @override
    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Note a failure, and tell the exception handler of the process."""
        if self._closed:
            return
        if self.collecting or is_untaken(context):
            self._failures.defer(context)
        else:
            self._tell(context)

    def _tell(self, context: dict[str, Any]) -> None:
        owner = owner_of(context)
        handle = context.get("handle")
        # A callback that failed has left its context.
        inherited = handle.context.get(process_of) if isinstance(handle, (SimHandle, SimTimer)) else None
        process = (owner and owner.process) or inherited or self.current
        handler = process.exception_handler
        at_us = owner.failed_us if owner and is_untaken(context) else self.now_us
        error = context.get("exception")
        self._failures.noted.append(Failure(at_us, process.name, context["message"], error, handler is not None))
        if handler is not None and process.alive:
            try:
                process.context.copy().run(handler, self, context)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as failed:
                self._note("the exception handler failed", failed, process)

    def _note(self, message: str, error: BaseException, process: Process | None = None) -> None:
        self._failures.noted.append(Failure(self.now_us, (process or self.current).name, message, error))

    @override
    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Nothing more: every failure is noted already."""

    @override
    def set_exception_handler(self, handler: ExceptionHandler | None) -> None:
        """Set that of the calling process."""
        self.current.exception_handler = handler

    @override
    def get_exception_handler(self) -> ExceptionHandler | None:
        return self.current.exception_handler

    @override
    def get_debug(self) -> bool:
        return self._debug

    @override
    def set_debug(self, enabled: bool) -> None:
        self._debug = enabled
