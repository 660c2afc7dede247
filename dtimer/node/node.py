"""Joining and leaving (rule N1), one after the other however they are called."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

from dtimer.errors import BackendClosed, BackendError, HandlerFailed, NodeDisturbed, NodeIdDisputed, NodeStopped
from dtimer.event import Event
from dtimer.limits import DAY_US, LEAVE_CANCEL_GRACE_US
from dtimer.loop_local import LoopAffinity
from dtimer.metrics import RunningCounters
from dtimer.node.claims import Claims
from dtimer.node.deliveries import Deliveries
from dtimer.node.disturbance import Disturbance
from dtimer.node.loop_watch import LoopWatch
from dtimer.node.partitions import Partitions
from dtimer.node.reports import Chores, Errand, Reports, in_hand
from dtimer.node.room import Room
from dtimer.node.tasks import start_task
from dtimer.protocol.backend import Runtime
from dtimer.protocol.values import Member
from dtimer.safe_repr import safe_repr, safe_str
from dtimer.user_code import ends_the_program

T = TypeVar("T")


class Node:
    """One timer's membership, in one event loop (rule F8).

    Attributes:
        id: the node's; empty before its first join.
        callers: how many have asked it, or are about to ask it, to join or leave.
        left_behind: the store may know this timer as a member from before, so that it would find itself.
    """

    def __init__(
        self,
        identify: Callable[[], str],
        name: Callable[[], str],
        *,
        runtime: Runtime,
        settled: LoopAffinity,
        watch: LoopWatch,
        confirm_timeout_us: int,
        chores: Chores,
        reports: Reports,
        counters: RunningCounters,
        on_ready: Callable[[], None],
    ) -> None:
        """
        Args:
            identify: gives the node's id, when it is about to join.
            name: by which people know the process.
            settled: where it is.
        """
        self.id = ""
        self.callers = 0
        self.left_behind = False
        self._identify = identify
        self._name = name
        self._settled = settled
        self._partitions: Partitions
        self._watch = watch
        self._runtime = runtime
        self._confirm_timeout_us = confirm_timeout_us
        self._chores = chores
        self._reports = reports
        self._counters = counters
        self._on_ready = on_ready
        self._deliveries: Deliveries[Any] | None = None
        self._room: Room | None = None
        # One for each partition, or none at all.
        self._claims: list[Claims] = []
        self._num_ended = 0
        self._queue: deque[object] = deque()
        self._naps: set[asyncio.Task[None]] = set()
        # Deliveries whose taker itself waits for `join` or `leave`, and chores that do: waiting for them would be for
        # ever.
        # Once for each such call, as one may be over while another waits on.
        self._excused: list[Event[Any] | Errand] = []
        chores.on_done = self._chore_done

    @property
    def busy(self) -> bool:
        """It is a member, is about to be one or to be none any more, or is waited for."""
        awaited = self._deliveries is not None and self._deliveries.consumers.awaited
        return bool(self._claims or self.callers) or awaited

    @property
    def joined(self) -> bool:
        return bool(self._claims) and all(claims.joined for claims in self._claims)

    def serve(self, deliveries: Deliveries[Any]) -> None:
        """Whom the events are for; once, before anything else."""
        self._deliveries = deliveries

    def settle(self, partitions: Partitions) -> None:
        """Before it is asked to join or leave, in the loop where it is."""
        if self._room is not None:
            return
        assert self._deliveries is not None, "serve() comes first"
        consumers = self._deliveries.consumers
        self._partitions = partitions
        self._deliveries.settle(partitions)
        self._room = Room(len(partitions.all), self._deliveries.room, lambda: consumers.max_events)
        for number, partition in enumerate(partitions.all):
            partition.store.on_lost_writes = partial(self._lost_writes, number)

    def _chore_done(self) -> None:
        home = self._settled.home
        if home is not None and home.is_here():
            self.changed()

    def changed(self) -> None:
        """Room or work under way may have changed."""
        if len(self._claims) == 1:
            self._claims[0].ring()
        elif self._room is not None:
            self._room.changed()
        for nap in self._naps:
            nap.cancel()

    async def join(self) -> None:
        """Become a member; nothing happens if it is one."""
        with self._caller_excused():
            await self._join()

    async def _join(self) -> None:
        async with self._alone():
            if self._claims:
                if all(claims.at_work for claims in self._claims):
                    return
                # Fenced, stopped, or left over by a `join` or `leave` that was cut short.
                await self._stop(self._claims)
            self.id = self._identify()
            # Known before they are joined, so that what happens meanwhile rings at them.
            self._claims = self._new_claims()
            # A handler may have called this; the tasks that are started here are no part of what it does.
            token = in_hand.set(None)
            try:
                await self._start(self._claims)
            except BaseException:
                # One that was cut off may have been applied; `leave`, or the next `join`, tells the store.
                self._claims = [claims for claims in self._claims if claims.known]
                raise
            finally:
                in_hand.reset(token)
            if not self.left_behind and any(claims.took_over for claims in self._claims):
                self._reports.notice(NodeIdDisputed(self.id, self._name()))
            self.left_behind = False

    def _new_claims(self) -> list[Claims]:
        assert self._deliveries is not None, "serve() comes first"
        assert self._room is not None, "settle() comes first"
        disturbance = Disturbance(self.id, self._reports, self._counters)
        several = len(self._partitions.all) > 1
        self._num_ended = 0
        return [
            Claims(
                Member(self.id, "", partition.store.backend.pace.poll_us),
                store=partition.store,
                deliveries=self._deliveries,
                room=self._room,
                watch=self._watch,
                disturbance=disturbance,
                partition=f" of partition {number}" if several else "",
                confirms=partition.confirms,
                confirm_timeout_us=self._confirm_timeout_us,
                reports=self._reports,
                counters=self._counters,
                name=self._name,
                on_ready=self._partition_ready,
                on_fenced=self._fenced,
                on_stopped=self._stopped,
            )
            for number, partition in enumerate(self._partitions.all)
        ]

    async def _start(self, claims: list[Claims]) -> None:
        """All of them have joined afterwards, or none."""
        try:
            # That of the first counts in all: of two nodes with one id the later one is the same everywhere.
            incarnation, *_ = await _all(each.open() for each in claims)
        except BaseException:
            await asyncio.gather(*(each.close() for each in claims))
            raise
        try:
            await _all(each.start(incarnation) for each in claims)
        except BaseException:
            if len(claims) > 1:
                await self._stop(claims)
            raise

    def _partition_ready(self) -> None:
        if self.joined:
            self._on_ready()

    async def _stop(self, claims: list[Claims]) -> None:
        """They claim no more, and their stores know it."""
        begun = [each for each in claims if each.begun]
        for each in begun:
            each.stop_claiming()
        await asyncio.gather(*(each.stop() for each in begun))
        left = [each for each in claims if each.known and not each.fenced]
        await asyncio.gather(*(self._tell_store(each) for each in left))

    async def leave(self, *, drain: bool, timeout_us: int) -> None:
        """Cease to be a member; nothing more happens if it is none."""
        with self._caller_excused():
            await self._leave(drain, timeout_us)

    async def _leave(self, drain: bool, timeout_us: int) -> None:
        async with self._alone():
            until_us = self._runtime.now_us() + timeout_us
            await self._stop(self._claims)
            self._claims = []
            assert self._deliveries is not None, "serve() comes first"
            self._deliveries.end_all()
            if drain:
                await self._drain(self._deliveries, until_us)
            self._deliveries.upkeep.rest()
            for partition in self._partitions.all:
                await partition.confirms.lane.idle()

    def _fenced(self, ended: Claims) -> None:
        """One has come to its end; who is fenced in one partition is out of all."""
        for claims in self._claims:
            if not claims.fenced:
                claims.dismiss()
        # Not before its own last call was answered: a join in flight could come after the leave.
        if not ended.fenced:
            self._chores.start(partial(self._tell_store, ended), f"leaving as node {self.id!r}")
        self._num_ended += 1
        if self._num_ended < len(self._claims):
            return
        self._claims = []
        if self._deliveries is not None:
            self._deliveries.end_all()

    def _stopped(self, error: BaseException | None) -> None:
        """One has come to its end that was not to; who stops in one partition stops in all."""
        for claims in self._claims:
            claims.stop_claiming()
        why = "its task ended" if error is None else safe_str(error)
        if isinstance(error, asyncio.CancelledError):
            why = "its task was cancelled"
        elif error is not None and ends_the_program(error):
            why = f"the program is ended by {safe_repr(error)}"
        self._reports.report(NodeStopped(f"node {self.id!r} takes no more events: {why}"), error)
        if isinstance(error, BackendClosed) and self._deliveries is not None:
            self._deliveries.end_all()

    def _lost_writes(self, number: int) -> None:
        if self._claims:
            self._claims[number].lost_writes()

    async def _tell_store(self, claims: Claims) -> None:
        try:
            await claims.tell_store()
        except BackendError as error:
            # Here everything is over all the same; the store finds out when nobody answers its announcements.
            self.left_behind = True
            self._reports.report(NodeDisturbed(f"node {self.id!r} left, but could not tell its store"), error)

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        """Joining and leaving go one after the other, in the order in which they were asked for."""
        turn = object()
        self._queue.append(turn)
        try:
            while self._queue[0] is not turn:
                await self._nap(DAY_US)
            yield
        finally:
            self._queue.remove(turn)
            self.changed()

    async def _nap(self, duration_us: int) -> None:
        """Wait until something changes, but not longer than this.

        It is a sleep by the runtime's clock: a handler that leaves may wait for others that sleep by it,
        and a simulator must see that.
        """
        nap = start_task(partial(self._runtime.sleep, duration_us, within="leave()"), f"dtimer: node {self.id}")
        self._naps.add(nap)
        try:
            await asyncio.wait([nap])
            if not nap.cancelled():
                nap.result()  # raises what a simulator has to say
        finally:
            nap.cancel()
            self._naps.discard(nap)

    # --- draining --------------------------------------------------------------------------------------------

    @contextmanager
    def _caller_excused(self) -> Generator[None]:
        caller = in_hand.get()
        if caller is None:
            yield
            return
        self._excused.append(caller)
        self.changed()
        try:
            yield
        finally:
            self._excused.remove(caller)

    async def _drain(self, deliveries: Deliveries[Any], until_us: int) -> None:
        """Wait for handlers and chores, and cancel what takes too long."""
        await self._wait(deliveries, until_us)
        late = self._unfinished(deliveries)
        for event in late:
            deliveries.consumers.cut(event)
        chores = self._unfinished_chores()
        for chore in chores:
            chore.cancel()
        if late or chores:
            await self._wait(deliveries, self._runtime.now_us() + LEAVE_CANCEL_GRACE_US)
        for event in self._unfinished(deliveries):
            self._reports.report(HandlerFailed(event.id, "was cancelled by leave(), and runs on"))

    async def _wait(self, deliveries: Deliveries[Any], until_us: int) -> None:
        while self._busy(deliveries) and (left_us := until_us - self._runtime.now_us()) > 0:
            await self._nap(left_us)

    def _busy(self, deliveries: Deliveries[Any]) -> bool:
        return bool(self._unfinished(deliveries) or self._unfinished_chores())

    def _unfinished_chores(self) -> set[asyncio.Task[None]]:
        # A chore may be the very one that leaves: an error handler, say.
        return {task for task, errand in self._chores.tasks.items() if errand not in self._excused}

    def _unfinished(self, deliveries: Deliveries[Any]) -> list[Event[Any]]:
        return [event for event in deliveries.consumers.unfinished if event not in self._excused]


async def _all(calls: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """What they return; the first error when all have ended, for a join that is cut off may have been applied."""
    first, *others = calls
    if not others:
        return [await first]
    tasks = [asyncio.ensure_future(call) for call in (first, *others)]
    try:
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    except BaseException:
        await asyncio.wait(tasks)
        raise
    returned: list[T] = []
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
        returned.append(answer)
    return returned
