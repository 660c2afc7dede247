"""A host of a faulty world: its process, which ends and is started again, its clocks, and its way to the store."""

from __future__ import annotations

import asyncio
import inspect
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, TypeAlias

from attrs import define
from typing_extensions import override

from dtimer import _validation
from dtimer.errors import BackendError
from dtimer.limits import NAMESPACE_DEFAULT, SECOND_US
from dtimer.protocol.backend import Cancellable, Signal
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Applied, Claimed, EventData, NewEvent
from dtimer.sim.faulty.backend import LinkedBackend, OnReply
from dtimer.sim.faulty.link import WAY_MIN_US, Link, Moment
from dtimer.sim.faulty.observer import Field
from dtimer.sim.faulty.server import Server
from dtimer.sim.loop import Process
from dtimer.sim.overdue import Looks
from dtimer.sim.rng import Rng
from dtimer.user_code import is_outcome

Application: TypeAlias = "Callable[[Host], Awaitable[object]]"
"""A program: runs in the process of a host, from its start to its end."""

UPTIME_MAX_US: Final = 10_000_000 * SECOND_US
"""Monotonic clocks count from anywhere: from the start of the machine, mostly."""
GOT_REMEMBERED: Final = 4_096
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Final = nullcontext()
_HANDLER: Final = "handler "
_OF_EVENT: Final = " of event "


@define(eq=False)
class _Doom:
    """A crash to come: at the `left`-th next such moment."""

    at: Moment
    left: int
    strike: Callable[[], None]


class Host:
    """One simulated machine with one program.

    Attributes:
        name: of the host, and so of its processes.
        up: its process runs, or stands still.
        stopping: its program has been asked to end.
        doomed: crashes that wait for their moment.
        wall_offset_us: by how much its time of day is wrong.
        link: its way to the store.
        descent: which posts follow from which, on all hosts.
    """

    def __init__(
        self,
        name: str,
        server: Server,
        *,
        start_us: int,
        on_end: Callable[[Host, BaseException | None], None],
        on_caught: Callable[[Host, BaseException], None],
    ) -> None:
        """
        Args:
            start_us: the time of day at the start of the run.
            on_end: called when the program has ended by itself, with the error that it raised.
            on_caught: called with what handlers of its timers raise.
        """
        self.name = name
        self.loop = server.loop
        self.up = False
        self.doomed: list[_Doom] = []
        self.wall_offset_us = 0
        self.application: Application | None = None
        self._rng = Rng(server.loop.seed, "host", name)
        self.link = Link(name, server, self._rng.of("link"), self.dies_at)
        self._server = server
        self._start_us = start_us
        self._on_end = on_end
        self._on_caught = on_caught
        self.descent = server.descent
        self._uptime_us = self._rng.of("uptime").below(UPTIME_MAX_US)
        self._pauses = 0
        self._stopped: asyncio.Future[None] | None = None
        self.stopping = False
        self._deliveries: OrderedDict[str, tuple[int, int]] = OrderedDict()

    # --- for its program ----------------------------------------------------------------------------------

    def backend(self, namespace: str = NAMESPACE_DEFAULT, *, on_reply: OnReply | None = None) -> LinkedBackend:
        """A backend of this process, with connections of its own, for a :class:`dtimer.DTimer`.

        Args:
            on_reply: told of each reply when its caller has it.
        """
        namespace = _validation.name(namespace, "namespace")

        def replied(operation: Operation[Any], applied: Applied[Any]) -> None:
            self._got(applied.value)
            if on_reply is not None:
                on_reply(operation, applied)

        backend = LinkedBackend(
            self.link, self.process, loop=self.loop, runtime=self.runtime, namespace=namespace, on_reply=replied
        )
        self.link.ends.append(backend)
        return backend

    async def forever(self) -> None:
        """Return when this process is asked to end, as by SIGTERM. Usually it is just killed some day."""
        if not self.stopping:
            if self._stopped is None:
                self._stopped = self.loop.create_future()
            await asyncio.shield(self._stopped)

    @property
    def incarnation(self) -> int:
        """The so-many-th process of this host."""
        return self.process.incarnation

    @property
    def looks(self) -> Looks:
        """Notified when the nodes on all hosts are to look."""
        return self._server.looks

    def wall_clock(self) -> datetime:
        """The time of day as this host has it, right or wrong. Nothing in dtimer asks for it."""
        return _EPOCH + timedelta(microseconds=self._start_us + self.loop.now_us + self.wall_offset_us)

    def draw(self, below: int) -> int:
        """A random integer from 0 up to, not including, `below`, the same in each run of a seed."""
        return self._of_program.below(below)

    def note(self, what: str, **fields: Field) -> None:
        """A record of the program's own in the trace."""
        for observer in self._server.observers:
            observer.on_note(self.name, what, fields)

    # --- for the world ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start its program in a new process."""
        assert not self.up, "one process at a time"
        self.process: Process = self.loop.process(self.name)
        own = self._rng.of("process", self.process.incarnation)
        self._of_program = own.of("program")
        self.runtime = HostRuntime(self, own.of("runtime"), self._uptime_us)
        self.link.ends.clear()
        self.up = True
        self._pauses = 0
        self._stopped = None
        self.stopping = False
        self._deliveries.clear()
        self.note("up", incarnation=self.process.incarnation)
        if self.application is not None:
            self.process.create_task(self._main(self.application), name=self.name)

    def crash(self, how: str = "crashed") -> None:
        """End its process at once."""
        self.up = False
        self.doomed.clear()
        subscriptions = [subscription for end in self.link.ends for subscription in end.subscriptions]
        _close_unbegun(self.process)
        self.process.kill()
        self.link.process_ended(subscriptions)
        self.note("down", incarnation=self.process.incarnation, how=how)

    def stop(self) -> None:
        """Ask its program to end."""
        self.stopping = True
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)

    def pause(self, by: int) -> None:
        """One more reason to stand still, or one less."""
        self._pauses += by
        if self._pauses == 1 and by > 0:
            self.process.pause()
            self.note("paused")
        elif not self._pauses:
            self.process.resume()
            self.note("resumed")

    @property
    def paused(self) -> bool:
        return self._pauses > 0

    def doom(self, at: Moment, count: int, strike: Callable[[], None]) -> Callable[[], None]:
        """Have it crash at its `count`-th next such moment; what is returned saves it, if it is called before."""
        if at == "step":
            return _Fuse.light(self.process, count, strike)
        if at == "now":
            strike()
            return _nothing
        doom = _Doom(at, count, strike)
        self.doomed.append(doom)
        return lambda: self.doomed.remove(doom) if doom in self.doomed else None

    def dies_at(self, moment: Moment) -> bool:
        """Such a moment is here; whether it was the last one."""
        for doom in self.doomed:
            if doom.at == moment:
                doom.left -= 1
                if not doom.left:
                    doom.strike()
                    return True
        return False

    def _got(self, reply: object) -> None:
        if isinstance(reply, Claimed):
            for delivery in reply.deliveries:
                self._deliveries[delivery.receipt.id] = (delivery.receipt.delivery_number, delivery.num_retries)
            while len(self._deliveries) > GOT_REMEMBERED:
                self._deliveries.popitem(last=False)

    def handling(self, name: str) -> AbstractContextManager[None]:
        """For a piece of work that is under way: a handler of an event is recorded."""
        if not name.startswith(_HANDLER):
            return _NOTHING
        id = name.partition(_OF_EVENT)[2]
        number, num_retries = self._deliveries.get(id, (0, 0))
        return _Handling(self, id, number, num_retries)

    def caught(self, error: BaseException) -> None:
        """A handler raised this."""
        self._on_caught(self, error)

    async def _main(self, application: Application) -> None:
        error: BaseException | None = None
        try:
            await application(self)
        except BaseException as raised:
            if not isinstance(raised, Exception) and not is_outcome(raised):
                raise
            error = raised
        # A program whose store cannot be reached ends with an error, and somebody starts it again. Others are wrong.
        how = "returned" if error is None else "failed" if isinstance(error, BackendError) else "raised"
        self.crash(how)
        self._on_end(self, error)


def _close_unbegun(process: Process) -> None:
    """Coroutines that were handed to tasks which have not begun would complain, one day, that nobody awaited them."""
    for task in process.tasks:
        outer = task.get_coro()
        if inspect.iscoroutine(outer) and inspect.getcoroutinestate(outer) == inspect.CORO_CREATED:
            for inner in inspect.getcoroutinelocals(outer).values():
                if inspect.iscoroutine(inner):
                    inner.close()


class _Handling(AbstractContextManager[None]):
    """A handler at work."""

    __slots__ = ("_host", "_id", "_num_retries", "_number")

    def __init__(self, host: Host, id: str, number: int, num_retries: int) -> None:
        self._host = host
        self._id = id
        self._number = number
        self._num_retries = num_retries

    @override
    def __enter__(self) -> None:
        self._host.note("handler", id=self._id, delivery=self._number, num_retries=self._num_retries)

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        host = self._host
        if host.loop.burying:
            return
        how = "returned" if kind is None else "cut" if issubclass(kind, asyncio.CancelledError) else "raised"
        host.note("handled", id=self._id, delivery=self._number, how=how)
        host.dies_at("handled")


def _nothing() -> None: ...


class _Fuse(deque[Any]):
    """The callbacks that a process has ready; burns down by one for each that is taken, then kills it instead."""

    @classmethod
    def light(cls, process: Process, count: int, strike: Callable[[], None]) -> Callable[[], None]:
        old = process.ready
        if isinstance(old, cls) and 0 < old._left <= count:
            return _nothing
        fuse = cls(old)
        fuse._left, fuse._strike, fuse._process = count, strike, process
        if process.inbox is old:
            process.inbox = fuse
        process.ready = fuse
        return fuse.put_out

    def put_out(self) -> None:
        self._left = 0

    @override
    def popleft(self) -> Any:
        handle = super().popleft()
        self._left -= 1
        if not self._left:
            self._strike()
            # It is not run: the scheduler passes over what was cancelled.
            handle.cancel()
        return handle

    _left: int
    _strike: Callable[[], None]
    _process: Process


class HostSignal:
    """A :class:`dtimer.protocol.Signal`, by a future."""

    __slots__ = ("_loop", "_rung", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        if not self._rung:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._rung = False

    def close(self) -> None:
        """Nothing to give back."""


class HostRuntime:
    """The :class:`dtimer.protocol.Runtime` of one simulated process."""

    def __init__(self, host: Host, rng: Rng, uptime_us: int) -> None:
        self._host = host
        self._loop = host.loop
        self._process = host.process
        self._uptime_us = uptime_us
        self._tokens = rng.of("token")
        self._draws = rng.of("draw")

    @property
    def simulator(self) -> HostRuntime:
        return self

    def now_us(self) -> int:
        return self._loop.now_us + self._uptime_us

    def call_at(self, when_us: int, callback: Callable[[], None]) -> Cancellable:
        return self._loop.set_timer(self._process, when_us - self._uptime_us, callback)

    async def sleep(self, duration_us: int, *, within: str | None = None) -> None:
        await asyncio.sleep(duration_us / SECOND_US)

    def process_name(self) -> str:
        """Not that of the real process, which would make each run another one."""
        return f"{self._process.name}-{self._process.incarnation}"

    def token(self, num_bytes: int) -> str:
        return self._tokens.token(num_bytes)

    def draw(self, below: int) -> int:
        return self._draws.below(below)

    def executor(self) -> Executor | None:
        """Threads would make each run another one."""
        return None

    def caught(self, error: BaseException) -> None:
        """It is reported, and ends the run if it is for the test."""
        self._host.caught(error)

    def tell(self) -> None:
        """That was told at once."""

    def posting(self, new: NewEvent) -> None:
        self._host.descent.posting(new, self.caught)

    def handing(self, event: EventData) -> None:
        self._host.descent.handing(event, self.caught)

    def on_overdue(self, look: Callable[[], None]) -> Callable[[], None]:
        def told() -> None:
            # As by a message, so that this process goes on at an instant of its own.
            self._loop.set_timer(self._process, self._loop.now_us + WAY_MIN_US, look)

        return self._host.looks.add(told)

    def asleep_until(self, task: asyncio.Task[None]) -> int | None:
        """Unknown, so that deliveries are extended as in production, where a node may crash or be paused."""
        return None

    def signal(self, name: str) -> Signal:
        return HostSignal(self._loop)

    def working(self, name: str) -> AbstractContextManager[None]:
        return self._host.handling(name)
