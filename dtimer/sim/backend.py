"""The simulator: the rules themselves as a store, in a world whose time is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self, cast

from typing_extensions import override

from dtimer import _validation
from dtimer._validation import Timeout
from dtimer.epochs import epoch_after_reset
from dtimer.errors import BackendClosed, InvalidArgument, StoreBusy, StoreRefused, WrongProcessOrLoop
from dtimer.limits import INSTANT_MAX_US, NAMESPACE_DEFAULT, SECOND_US
from dtimer.loop_local import LoopRef
from dtimer.protocol.backend import OperationMethods
from dtimer.protocol.operations import Claim, Operation, ReplyT_co
from dtimer.protocol.values import Applied, Claimed, ClockReset, Message, Pace, Pulse, Wakeup
from dtimer.semantics import Machine, StoreClock
from dtimer.semantics.clock import CLOCK_BEYOND
from dtimer.sim.overdue import JITTER_US, SELDOM_US
from dtimer.sim.runtime import SimRuntime
from dtimer.sim.sim_clock import SimClock
from dtimer.sim.wakeups import Channels
from dtimer.sim.world import World

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
"""A round date, far enough from today that nobody takes virtual time for real time."""
HANG_AFTER_S: Final = 5.0
"""Longer than any step of a unit test, shorter than anybody's patience."""
EPOCH_BYTES: Final = 8
SERVER: Final = "simulator"
"""The name of the server (rule O2): the only one there ever is."""
PACE: Final = Pace(pulse_silence_us=SELDOM_US, pulse_jitter_us=JITTER_US, poll_us=SELDOM_US, stretch_deadlines=True)
"""No announcement gets lost here, and the simulator sees what waits in vain."""


class SimBackend(SimClock, OperationMethods):
    """A :class:`dtimer.TimerBackend` for unit tests, on the ordinary event loop; no real time passes.

    Several timers may share one: they are nodes of its namespace then.
    Its time stands still until :meth:`advance` moves it, and while a handler runs.
    A handler that waits with :meth:`sleep` lets it move.
    In a block of :meth:`autojump` it moves by itself.

    Args:
        namespace: as for any backend.
        seed: the same seed and the same calls give the same run, ids and jitters included.
        start: the time of day at which the simulation starts; aware, from 1970 to 2200.
        hang_after: seconds, or a timedelta, of real time without any progress after which :class:`SimStuck` is raised.
        raise_asserts: an AssertionError that a handler raises reaches the test, as pytest's outcomes always do; else it
            merely fails the event, like any other error.

    Raises:
        InvalidArgument: an argument is not as described.
    """

    def __init__(
        self,
        namespace: str = NAMESPACE_DEFAULT,
        *,
        seed: int = 0,
        start: datetime = START,
        hang_after: Timeout = HANG_AFTER_S,
        raise_asserts: bool = True,
    ) -> None:
        self._namespace = _validation.name(namespace, "namespace")
        hang_after_us = _validation.timeout_us(hang_after, "hang_after")
        world = World(
            start_us=_start_us(start),
            hang_after_s=hang_after_us / SECOND_US,
            raise_asserts=_validation.flag(raise_asserts, "raise_asserts"),
        )
        super().__init__(world, self._first_us)
        self._runtime = SimRuntime(self._world, seed=_validation.seed(seed))
        self._channels = Channels(self._world.work)
        self._machine = Machine(self._runtime.token(EPOCH_BYTES))
        self._store_clock = StoreClock()
        # By how much the clock of the store's host is off; the conformance suite sets it.
        self._host_off_us = 0
        self._server = SERVER
        self._closed = False
        self._home = LoopRef.nowhere()
        world.enter = self._enter

    # --- the backend; its operations are those of OperationMethods -----------------------------------

    @property
    def namespace(self) -> str:
        return self._namespace

    @property
    def runtime(self) -> SimRuntime:
        return self._runtime

    @property
    def pace(self) -> Pace:
        return PACE

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close_now()
        if error is None:
            self._world.tell()

    async def close(self) -> None:
        """Raises what a handler raised for the test, if that was not raised elsewhere."""
        self.close_now()
        self._world.tell()

    def close_now(self) -> None:
        """As :meth:`close`, where nothing can be awaited."""
        self._closed = True
        self._channels.end_all(self._closed_error("wakeups"))

    @asynccontextmanager
    async def wakeups(self, node: str, epoch: str) -> AsyncGenerator[AsyncIterator[Message]]:
        await self._reach_store("wakeups")
        listener = self._channels.listen(epoch, node)
        try:
            yield listener
        finally:
            self._channels.leave(listener, BackendClosed("wakeups", "the subscription was left"))

    async def reset_clock(self) -> ClockReset:
        await self._reach_store("reset_clock")
        machine, clock = self._machine, self._store_clock
        at_us = clock.read(self._world.clock.now_us + self._host_off_us, machine.last_us)
        joined = machine.joined(at_us)
        if joined:
            raise StoreRefused("reset_clock", f"nodes are joined: {', '.join(sorted(joined))}")
        if not clock.skew_us:
            return ClockReset(skew_us=0)
        done = machine.reset_clock(epoch_after_reset(machine.epoch), at_us=at_us, skew_us=clock.skew_us)
        clock.skew_us = 0
        return done

    async def purge(self) -> None:
        await self._reach_store("purge")
        self._machine = Machine(self._runtime.token(EPOCH_BYTES))
        self._store_clock = StoreClock()

    @override
    async def perform(self, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
        """Apply an operation, and say what is to be said. The way of every method, and so the place for faults."""
        await self._reach_store(operation.method)
        machine, clock = self._machine, self._world.clock
        host_us = clock.now_us + self._host_off_us
        if not self._store_clock.accepts(host_us):
            raise StoreBusy(operation.method, CLOCK_BEYOND)
        applied = machine.apply(
            operation,
            at_us=self._store_clock.read(host_us, machine.last_us),
            reach=lambda node: self._channels.reaches(machine.epoch, node),
            skew_us=self._store_clock.skew_us,
            server=self._server,
        )
        clock.catch_up(self._virtual_us(machine.last_us))
        for told in applied.announced:
            # To one that was not reached too: it hears nothing, and that is what it means.
            self._channels.tell(applied.epoch, told.node, Wakeup(told.due_us, applied.at_us, applied.seq))
        if isinstance(operation, Claim) and operation.pulse and cast("Claimed", applied.value).status:
            self._channels.tell_all(applied.epoch, Pulse(operation.member.node, applied.at_us, applied.seq))
        self._runtime.overdue.applied(applied, self._first_us())
        return applied

    async def _reach_store(self, name: str) -> None:
        """The way to the store: other tasks go on meanwhile, as they would with a network."""
        self._enter()
        with self._runtime.working(f"the call of {name}"):
            await asyncio.sleep(0)
        if self._closed:
            raise self._closed_error(name)

    def _enter(self) -> None:
        """Use it here, perhaps in another event loop than before; only one at a time, as it has one time (rule F8)."""
        if self._home.is_here():
            return
        if self._home.inherited:
            raise WrongProcessOrLoop("the simulator is in the process that this one was forked from: make another one")
        if self._home.runs:
            raise WrongProcessOrLoop("the simulator is in use in another event loop, which runs beside this one")
        if self._home.ended:
            # What waits there is not going to be woken, and must not be.
            self._channels.forget_all()
            self._world.begin_anew()
            self._runtime.overdue.forget()
        self._home = LoopRef()

    def _first_us(self) -> int | None:
        """When the first event of the queue can be claimed."""
        head_us = self._machine.head_us
        return None if head_us is None else self._virtual_us(head_us)

    def _virtual_us(self, store_us: int) -> int:
        """When the store's clock shows this: they differ after the host's was set."""
        return store_us - self._store_clock.skew_us - self._host_off_us

    def _closed_error(self, name: str) -> BackendClosed:
        return BackendClosed(name, "the simulator was closed")


def _start_us(start: datetime) -> int:
    start_us = _validation.since_epoch_us(start, "start")
    if not 0 <= start_us < INSTANT_MAX_US:
        raise InvalidArgument("start", f"must lie between 1970 and 2200, not at {start.isoformat()}")
    return start_us
