"""What applications call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Final, Self, cast, overload

from typing_extensions import override

from dtimer import arguments
from dtimer.arguments import Delay, Durable, IfExistsName, PlainHandlers, Retry, Timeout
from dtimer.codec import Codec, JsonCodec, JsonValue, PayloadT
from dtimer.counters import Counters, Tally
from dtimer.errors import EventExists, WrongProcessOrLoop
from dtimer.event import Event
from dtimer.events import Events
from dtimer.handlers import Handlers
from dtimer.limits import (
    CONFIRM_TIMEOUT_DEFAULT_US,
    LEAVE_TIMEOUT_DEFAULT_US,
    MAX_EVENTS_DEFAULT,
    PAYLOAD_MAX_BYTES,
    REFUSED_FOR_DEFAULT_US,
    SECOND_US,
)
from dtimer.looking import Looking
from dtimer.node.deliveries import Deliveries
from dtimer.node.examination import Examination
from dtimer.node.loop_watch import LoopWatch
from dtimer.node.node import Node
from dtimer.node.partitions import Partitions
from dtimer.node.reports import Chores, Reports
from dtimer.outcomes import CancelOutcome, ChangeOutcome, ConfirmOutcome, PostOutcome
from dtimer.posting import Post, PostedId, Posting
from dtimer.protocol import TimerBackend

NODE_ID_BYTES: Final = 8
_CONFLICT: Final = PostOutcome.CONFLICT
"""Looked up once: an enum's member takes as long to find as an id to make, in Python 3.11."""


class DTimer(Handlers[PayloadT], Looking[PayloadT]):
    """Posts events, and takes them when they are due, together with all other timers of the backend's namespace.

    Posting needs no :meth:`join`; taking does (rule P1).
    A timer belongs to the process and the event loop of its first use.
    It does not close its backend, which may serve several timers: ``async with backend`` does.

    Used as a context manager it joins, and leaves when the block is left;
    handlers that run are waited for, unless the block raised an :class:`Exception`.
    """

    @overload
    def __init__(
        self: DTimer[JsonValue],
        backend: TimerBackend,
        *,
        node_id: str | None = None,
        max_events: int = MAX_EVENTS_DEFAULT,
        confirm_timeout: Timeout = CONFIRM_TIMEOUT_DEFAULT_US / SECOND_US,
        codec: None = None,
        payload_max_bytes: int = PAYLOAD_MAX_BYTES,
        refused_for: Timeout = REFUSED_FOR_DEFAULT_US / SECOND_US,
        plain_handlers: PlainHandlers = "loop",
    ) -> None: ...

    @overload
    def __init__(
        self,
        backend: TimerBackend,
        *,
        node_id: str | None = None,
        max_events: int = MAX_EVENTS_DEFAULT,
        confirm_timeout: Timeout = CONFIRM_TIMEOUT_DEFAULT_US / SECOND_US,
        codec: Codec[PayloadT],
        payload_max_bytes: int = PAYLOAD_MAX_BYTES,
        refused_for: Timeout = REFUSED_FOR_DEFAULT_US / SECOND_US,
        plain_handlers: PlainHandlers = "loop",
    ) -> None: ...

    def __init__(
        self,
        backend: TimerBackend,
        *,
        node_id: str | None = None,
        max_events: int = MAX_EVENTS_DEFAULT,
        confirm_timeout: Timeout = CONFIRM_TIMEOUT_DEFAULT_US / SECOND_US,
        codec: Codec[PayloadT] | None = None,
        payload_max_bytes: int = PAYLOAD_MAX_BYTES,
        refused_for: Timeout = REFUSED_FOR_DEFAULT_US / SECOND_US,
        plain_handlers: PlainHandlers = "loop",
    ) -> None:
        """
        Args:
            backend: one namespace on one store.
            node_id: names this process among the nodes; a later join under the same id fences this one.
                Made if not given.
            max_events: how many deliveries may be unfinished here at once (rule N2).
            confirm_timeout: seconds, or a timedelta, in which a delivery must be confirmed, unless its event says (D4).
            codec: makes bytes of payloads and back; JSON by default.
            payload_max_bytes: larger encoded payloads are refused (rule P6).
            refused_for: seconds, or a timedelta: when the codec of this timer refuses a payload, and the event was
                refused for the first time so long ago, it becomes a dead letter (rule F4).
            plain_handlers: where handlers for ``event`` that are no coroutine functions run. ``"loop"`` is the event
                loop, which they block until they return; ``"thread"`` a thread each, in which they may block
                (in a simulator they run on the loop all the same). :meth:`Event.confirm` may be called there.

        Raises:
            InvalidArgument: one of them.
        """
        runtime = backend.runtime
        self._runtime = runtime
        self._max_events_initially = arguments.max_events(max_events)
        timeout_us = arguments.timeout_us(confirm_timeout, "confirm_timeout")
        node = runtime.token(NODE_ID_BYTES) if node_id is None else arguments.name(node_id, "node_id")
        self._codec = cast("Codec[PayloadT]", JsonCodec()) if codec is None else codec
        self._posting = Posting(self._codec, arguments.payload_max_bytes(payload_max_bytes), runtime)

        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._tally = Tally()
        chores = Chores(runtime)
        self._reports = Reports(chores)
        self._init_handlers(self._reports, chores)
        self._examination = Examination(backend, chores, self._reports)
        partitions = Partitions(backend, self._reports, self._tally)
        self._init_looking(partitions, self._codec)
        watch = LoopWatch(runtime, self._reports, self._tally)
        self._node = Node(
            node,
            watch=watch,
            partitions=partitions,
            confirm_timeout_us=timeout_us,
            chores=chores,
            reports=self._reports,
            tally=self._tally,
            on_ready=self._ready.tell,
        )
        self._deliveries = Deliveries[PayloadT](
            partitions,
            in_threads=arguments.plain_handlers(plain_handlers) == "thread",
            watch=watch,
            codec=self._codec,
            max_events=max_events,
            refused_for_us=arguments.timeout_us(refused_for, "refused_for"),
            chores=chores,
            reports=self._reports,
            listeners=self._exhausted,
            tally=self._tally,
            on_change=self._node.changed,
            before_use=self._check_use,
        )
        self._node.serve(self._deliveries)
        self._take_with(self._deliveries.consumers)

    # --- being a node ------------------------------------------------------------------------------------------

    @property
    def node_id(self) -> str:
        return self._node.id

    @property
    def joined(self) -> bool:
        """Whether this timer takes events, as far as it knows."""
        return self._node.joined

    @property
    def max_events(self) -> int:
        """How many deliveries may be unfinished here at once; setting 0 or less restores the initial value (N2)."""
        return self._deliveries.consumers.max_events

    @max_events.setter
    def max_events(self, value: int) -> None:
        number = arguments.max_events_or_less(value)
        self._deliveries.consumers.max_events = number if number > 0 else self._max_events_initially
        self._node.changed()

    @property
    def counters(self) -> Counters:
        """What this timer has done and met so far."""
        return self._tally.snapshot()

    async def join(self) -> None:
        """Begin to take events; nothing happens if it has begun (rule N1).

        Raises:
            BackendError: the store cannot be reached or refuses; the timer has not joined.
        """
        self._check_use()
        await self._node.join()
        self._examination.begin()

    async def leave(
        self,
        *,
        drain: bool = True,
        timeout: Timeout = LEAVE_TIMEOUT_DEFAULT_US / SECOND_US,  # noqa: ASYNC109  # of the handlers, not of the call
    ) -> None:
        """Cease to take events; harmless when it has not joined (rule N1). ``events()`` iterators come to their end.

        What arrives meanwhile goes back untouched, unless it is not tracked and would be lost.
        A handler that calls this is not waited for.

        Args:
            drain: wait for the handlers that run; otherwise they just go on.
            timeout: so many seconds, or a timedelta; handlers that take longer are cancelled and reported.
        """
        await self._leave(drain, timeout)
        self._runtime.tell()

    async def _leave(self, drain: bool, lasting: Timeout = LEAVE_TIMEOUT_DEFAULT_US / SECOND_US) -> None:
        self._check_use()
        timeout_us = arguments.timeout_us(lasting, "timeout")
        await self._node.leave(drain=arguments.flag(drain, "drain"), timeout_us=timeout_us)

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Who leaves with an error does not want to wait first: it may be about the very handlers that run.
        await self._leave(drain=not isinstance(error, Exception))
        if error is None:
            self._runtime.tell()

    # --- taking events -------------------------------------------------------------------------------------------

    def events(self) -> Events[PayloadT]:
        """An iterator over events that are due, each given to exactly one iterator.

        It takes the next event when it is asked for one, so `max_events` iterators work on as many events at once.
        An event is finished when it is confirmed, released, its ``async with event`` block is left,
        or the next is asked for.

        Raises:
            ConsumerConflict: there are handlers for ``event``.
        """
        return Events(self._deliveries.consumers, self._check_use)

    # --- posting ---------------------------------------------------------------------------------------------------

    async def post(
        self,
        payload: PayloadT,
        delay: Delay | None = None,
        *,
        at: datetime | None = None,
        id: str | None = None,
        max_retries: int = 0,
        confirm_timeout: Timeout | None = None,
        retry: Retry | None = None,
        expires_after: Delay | None = None,
        keep: bool = False,
        if_exists: IfExistsName = "replace",
        headers: Mapping[str, str] | None = None,
        durability: Durable | None = None,
        repeat_within: Timeout | None = None,
    ) -> PostedId:
        """Schedule an event. Posts of one turn of the event loop travel together (rules P1 to P7).

        Args:
            payload: what the handler gets.
            delay: milliseconds, or a timedelta; 0 or less is at once. Either this or `at` is given.
            at: an aware datetime, by the store's clock; a past one is at once.
            id: names the event; made if not given.
            max_retries: deliveries after the first, if that is not confirmed in time.
                0 means at most once: such an event is gone from the store as soon as it is delivered.
            confirm_timeout: seconds, or a timedelta; the taking node's if not given. Needs `max_retries` or `keep`.
            retry: when the event comes again after its handler raised; at its deadline if not given. Needs them, too.
            expires_after: milliseconds, or a timedelta, after the due time; later it is not delivered but reported.
            keep: it becomes a dead letter when it ends without having been confirmed; it must be confirmed then.
            if_exists: what happens when a live event has the id.
            headers: small strings beside the payload.
            durability: how far it must have got before this returns; the backend's own if not given.
            repeat_within: seconds, or a timedelta, for which the call is repeated inside while it is known not to have
                been applied (rule F1); 0 is one try, and the backend's own if not given.

        Returns:
            The id, with the `outcome`.

        Raises:
            InvalidArgument: before any I/O.
            EventExists: with ``if_exists="error"``.
            OutcomeUnknown: it may have been scheduled.
            NotDurable: it has been, but is not known to have got as far as was asked for.
            BackendError: it has not been.
        """
        self._check_use()
        wanted = arguments.durability(durability)
        within_us = None if repeat_within is None else arguments.repeat_within_us(repeat_within)
        new = self._posting.new_event(
            payload, delay, at, id, max_retries, confirm_timeout, retry, expires_after, keep, if_exists, headers
        )
        id = new.event.id
        (outcome,) = await self._partitions.of(id).calls.post(new, wanted, within_us)
        if outcome is _CONFLICT:
            raise EventExists(id)
        return PostedId.of(id, outcome)

    async def post_many(
        self,
        posts: Iterable[Post[PayloadT]],
        *,
        durability: Durable | None = None,
        repeat_within: Timeout | None = None,
    ) -> list[PostedId | EventExists]:
        """Schedule events in their order; one result for each, which for a conflict is the error, not raised (rule P5).

        All are checked before any is sent. Up to 512 of them, and 8 MiB, are applied whole or not at all.

        Raises:
            InvalidArgument: before any I/O.
            BackendError: what one part met; the others may have been applied.
        """
        self._check_use()
        wanted = arguments.durability(durability)
        news = self._posting.new_events(posts)
        outcomes = await self._partitions.post_many(news, wanted, arguments.repeat_within_us(repeat_within))
        return [
            EventExists(new.event.id) if outcome is _CONFLICT else PostedId.of(new.event.id, outcome)
            for new, outcome in zip(news, outcomes, strict=True)
        ]

    # --- one event ---------------------------------------------------------------------------------------------------

    async def cancel(self, id: str, *, repeat_within: Timeout | None = None) -> CancelOutcome:
        """End an event in any live state (rule E2). A handler that was given it before may still run."""
        (outcome,) = await self.cancel_many([id], repeat_within=repeat_within)
        return outcome

    async def cancel_many(self, ids: Iterable[str], *, repeat_within: Timeout | None = None) -> list[CancelOutcome]:
        """The same for many, in order; up to 512 of them are one call."""
        self._check_use()
        within_us = arguments.repeat_within_us(repeat_within)
        return await self._partitions.cancel([arguments.event_id(id) for id in ids], within_us)

    async def confirm(self, event: str | Event[PayloadT], *, repeat_within: Timeout | None = None) -> ConfirmOutcome:
        """End an unconfirmed event (rule E1).

        Given an id, it confirms the last delivery of that id to this timer, as long as that is among its last 4,096.
        Only if there was none it ends the event whoever works on it: the operator's form.
        """
        self._check_use()
        if isinstance(event, Event):
            return await event.confirm(repeat_within=repeat_within)
        within_us = arguments.repeat_within_us(repeat_within)
        return await self._deliveries.confirm_id(arguments.event_id(event), within_us)

    async def change_delay(self, id: str, delay: Delay, *, repeat_within: Timeout | None = None) -> ChangeOutcome:
        """Move a scheduled event to so many milliseconds, or a timedelta, from now; anything else stays (rule E3)."""
        self._check_use()
        id = arguments.event_id(id)
        delay_us = arguments.delay_us(delay)
        within_us = arguments.repeat_within_us(repeat_within)
        store = self._partitions.of(id).store
        request = partial(store.backend.change_delay, id, delay_us=delay_us)
        return (await store.call(request, repeat_within_us=within_us)).value

    # --- inside ------------------------------------------------------------------------------------------------

    @override
    def _check_use(self) -> None:
        """A timer's tasks and futures live in one loop of one process (rule F8)."""
        loop = asyncio.get_running_loop()  # raises in a process that was forked within it
        if loop is self._loop:
            return
        if self._loop is None:
            self._loop, self._process = loop, os.getpid()
            return
        what = "event loop" if self._process == os.getpid() else "process"
        raise WrongProcessOrLoop(f"this timer was first used in another {what}; make one for each")
