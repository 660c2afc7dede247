"""Joins and leaves (rule N1), one after the other in the order of the calls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from dtimer.codecs.codec import Codec, PayloadT
from dtimer.errors import BackendClosed, BackendError, HandlerFailed, NodeDisturbed, NodeIdDisputed, NodeStopped
from dtimer.event import Event
from dtimer.limits import DAY_US, LEAVE_CANCEL_GRACE_US
from dtimer.loop_local import LoopAffinity
from dtimer.node.background import Errand, current_work
from dtimer.node.context import TimerContext
from dtimer.node.dispatcher import Dispatcher
from dtimer.node.fetcher import Fetcher
from dtimer.node.health import ConnectionHealth
from dtimer.node.partitions import Partitions
from dtimer.node.prefetch import Prefetch
from dtimer.node.registry import Registry
from dtimer.node.settings import NodeSettings
from dtimer.node.tasks import cancel, start_task
from dtimer.safe_repr import safe_repr, safe_str
from dtimer.user_code import ends_the_program

T = TypeVar("T")


class Node(Generic[PayloadT]):
    """One timer's membership, in the event loop in which it was made (rule F8).

    Attributes:
        id: the node's; empty before its first join.
        callers: how many callers of `join` and `leave` there are.
        left_behind: the store may still know an earlier node of this timer, which the join then fences.
    """

    def __init__(
        self,
        context: TimerContext,
        settings: NodeSettings,
        registry: Registry[PayloadT],
        codec: Codec[PayloadT],
        *,
        partitions: Partitions,
        affinity: LoopAffinity,
        left_behind: bool,
    ) -> None:
        """
        Args:
            affinity: to the running loop.
        """
        self.id = ""
        self.callers = 0
        self.left_behind = left_behind
        self.context = context
        self.settings = settings
        self.dispatcher = Dispatcher(
            context, settings, registry, codec, partitions=partitions, affinity=affinity, changed=self.changed
        )
        self.prefetch = Prefetch(len(partitions.all), self.dispatcher.room, lambda: registry.max_events)
        self._registry = registry
        self._partitions = partitions
        self._runtime = context.runtime
        self._background = context.background
        self._reporter = context.reporter
        # One for each partition, or none at all.
        self._fetchers: list[Fetcher] = []
        self._num_ended = 0
        self._queue: deque[object] = deque()
        self._naps: set[asyncio.Task[None]] = set()
        # Events whose handler itself waits for `join` or `leave`, and background tasks that do: a leave must not wait
        # for them. Once for each such call, as one may end while another still waits.
        self._excused: list[Event[Any] | Errand] = []
        self._watch_no_longer = context.background.ends.add(self.changed)

    @property
    def busy(self) -> bool:
        """Whether it is a member, is joining or leaving, or an iterator waits for it."""
        return bool(self._fetchers or self.callers or self._registry.waiting)

    @property
    def joined(self) -> bool:
        return bool(self._fetchers) and all(each.joined for each in self._fetchers)

    def replaced(self) -> None:
        """The timer has become another node."""
        self._watch_no_longer()

    def changed(self) -> None:
        """Look again: room, or the work under way, may have changed."""
        if len(self._fetchers) == 1:
            self._fetchers[0].ring()
        else:
            self.prefetch.changed()
        for nap in self._naps:
            nap.cancel()

    async def join(self) -> None:
        """Become a member. Nothing happens if it is a member."""
        with self._caller_excused():
            await self._join()

    async def _join(self) -> None:
        async with self._alone():
            if self._fetchers:
                if all(each.at_work for each in self._fetchers):
                    return
                # Fenced, stopped, or left over by a `join` or `leave` that was cut short.
                await self._stop(self._fetchers)
            self.id = self.settings.identity.id_to_join()
            # Set before they join, so that they are notified of changes meanwhile.
            self._fetchers = self._new_fetchers()
            # A handler may have called this; the tasks that are started here are not a part of its work.
            token = current_work.set(None)
            try:
                await self._start(self._fetchers)
            except BaseException:
                # A join that was cancelled may have been applied; `leave`, or the next `join`, tells the store.
                self._fetchers = [each for each in self._fetchers if each.known]
                raise
            finally:
                current_work.reset(token)
            if not self.left_behind and any(each.took_over for each in self._fetchers):
                self._reporter.notice(NodeIdDisputed(self.id, self.settings.identity.name))
            self.left_behind = False

    def _new_fetchers(self) -> list[Fetcher]:
        health = ConnectionHealth(self.id, self.context)
        self._num_ended = 0
        return [Fetcher(self.id, partition, health, self) for partition in self._partitions.all]

    async def _start(self, fetchers: list[Fetcher]) -> None:
        """Join with all fetchers, or with none if one fails."""
        try:
            # The incarnation of the first counts for all: of two nodes with one id the same one is later everywhere.
            incarnation, *_ = await _all(each.open() for each in fetchers)
        except BaseException:
            await asyncio.gather(*(each.close() for each in fetchers))
            raise
        try:
            await _all(each.start(incarnation) for each in fetchers)
        except BaseException:
            if len(fetchers) > 1:
                await self._stop(fetchers)
            raise

    def ready(self) -> None:
        """A partition has joined."""
        if self.joined:
            self.context.ready.notify()

    async def _stop(self, fetchers: list[Fetcher]) -> None:
        """Stop the fetchers, and tell their stores."""
        begun = [each for each in fetchers if each.begun]
        for each in begun:
            each.stop_claiming()
        await asyncio.gather(*(each.stop() for each in begun))
        left = [each for each in fetchers if each.known and not each.fenced]
        await asyncio.gather(*(self._tell_store(each) for each in left))

    async def leave(self, *, drain: bool, timeout_us: int) -> None:
        """Cease to be a member. Only the draining happens if it is not a member."""
        with self._caller_excused():
            await self._leave(drain, timeout_us)

    async def _leave(self, drain: bool, timeout_us: int) -> None:
        async with self._alone():
            until_us = self._runtime.now_us() + timeout_us
            await self._stop(self._fetchers)
            self._fetchers = []
            self.dispatcher.end_all()
            if drain:
                await self._drain(until_us)
            self.dispatcher.extender.rest()
            for partition in self._partitions.all:
                await partition.acks.batcher.idle()

    def fenced(self, fetcher: Fetcher) -> None:
        """A fetcher has ended; a node that is fenced in one partition leaves all."""
        for each in self._fetchers:
            if not each.fenced:
                each.dismiss()
        # Only now that its last call was answered: a join in flight could come after the leave.
        if not fetcher.fenced:
            self._background.start(partial(self._tell_store, fetcher), f"leaving as node {self.id!r}")
        self._num_ended += 1
        if self._num_ended < len(self._fetchers):
            return
        self._fetchers = []
        self.dispatcher.end_all()

    def stopped(self, error: BaseException | None) -> None:
        """A fetcher has ended by itself; a node that stops in one partition stops in all."""
        for each in self._fetchers:
            each.stop_claiming()
        why = "its task ended" if error is None else safe_str(error)
        if isinstance(error, asyncio.CancelledError):
            why = "its task was cancelled"
        elif error is not None and ends_the_program(error):
            why = f"the program is ended by {safe_repr(error)}"
        self._reporter.report(NodeStopped(f"node {self.id!r} takes no more events: {why}"), error)
        if isinstance(error, BackendClosed):
            self.dispatcher.end_all()

    async def _tell_store(self, fetcher: Fetcher) -> None:
        try:
            await fetcher.tell_store()
        except BackendError as error:
            # The node has left all the same; the store notices when its announcements are not answered.
            self.left_behind = True
            self._reporter.report(NodeDisturbed(f"node {self.id!r} left, but could not tell its store"), error)

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        """Joins and leaves run one after the other, in the order of the calls."""
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

        This sleeps by the runtime's clock: a handler that leaves may wait for others that sleep by that clock,
        which a simulator must see.
        """
        nap = start_task(partial(self._runtime.sleep, duration_us, within="leave()"), f"dtimer: node {self.id}")
        self._naps.add(nap)
        try:
            await asyncio.wait([nap])
            if not nap.cancelled():
                nap.result()  # raises the error of a simulator
        finally:
            cancel(nap)
            self._naps.discard(nap)

    # --- draining --------------------------------------------------------------------------------------------

    @contextmanager
    def _caller_excused(self) -> Generator[None]:
        caller = current_work.get()
        if caller is None:
            yield
            return
        self._excused.append(caller)
        self.changed()
        try:
            yield
        finally:
            self._excused.remove(caller)

    async def _drain(self, until_us: int) -> None:
        """Wait for handlers and background tasks, and cancel those that take too long."""
        await self._wait(until_us)
        late = self._unfinished()
        for event in late:
            self.dispatcher.consumers.cancel(event)
        background = self._unfinished_background()
        for work in background:
            work.cancel()
        if late or background:
            await self._wait(self._runtime.now_us() + LEAVE_CANCEL_GRACE_US)
        for event in self._unfinished():
            self._reporter.report(HandlerFailed(event.id, "was cancelled by leave(), and runs on"))

    async def _wait(self, until_us: int) -> None:
        while self._draining() and (left_us := until_us - self._runtime.now_us()) > 0:
            await self._nap(left_us)

    def _draining(self) -> bool:
        return bool(self._unfinished() or self._unfinished_background())

    def _unfinished_background(self) -> set[asyncio.Task[None]]:
        # The background task may be the one that leaves: an error handler, say.
        return {task for task, errand in self._background.tasks.items() if errand not in self._excused}

    def _unfinished(self) -> list[Event[PayloadT]]:
        return [event for event in self.dispatcher.consumers.unfinished if event not in self._excused]


async def _all(calls: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """The results; the first error is raised when all have ended, as a join that is cancelled may have been applied."""
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
