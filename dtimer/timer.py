"""What applications call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Final, Generic, Literal, Self, TypeVar, cast, overload

from typing_extensions import Unpack, override

from dtimer import _validation
from dtimer._validation import Delay, Durable, EventName, IfExistsName, PlainHandlers, Timeout
from dtimer.codecs.codec import Codec, JsonValue, PayloadT
from dtimer.codecs.json import JsonCodec
from dtimer.errors import DTimerError, EventExists
from dtimer.event import Ended, Event
from dtimer.event_iterator import Events
from dtimer.limits import (
    CONFIRM_TIMEOUT_DEFAULT_US,
    LEAVE_TIMEOUT_DEFAULT_US,
    MAX_EVENTS_DEFAULT,
    MAX_RUN_DEFAULT_US,
    PAYLOAD_MAX_BYTES,
    REFUSED_FOR_DEFAULT_US,
    SECOND_US,
)
from dtimer.loop_local import LoopLocal
from dtimer.metrics import Counters
from dtimer.node.context import TimerContext
from dtimer.node.hooks import Hooks
from dtimer.node.membership import Membership
from dtimer.node.partitions import Histories, Partitions
from dtimer.node.registry import Registry
from dtimer.node.session import did
from dtimer.node.settings import NodeIdentity, NodeSettings
from dtimer.node.settings_check import SettingsCheck
from dtimer.posts import Post, PostedId, PostEncoder, PostOptions, checked
from dtimer.protocol.backend import TimerBackend
from dtimer.protocol.outcomes import (
    CancelOutcome,
    ChangeOutcome,
    ConfirmOutcome,
    DiscardOutcome,
    PostOutcome,
    ResendOutcome,
)
from dtimer.protocol.values import LetterName, Window
from dtimer.queries.results import DeadEvent, Upcoming
from dtimer.queries.store_queries import Queries

R = TypeVar("R")

_CONFLICT: Final = PostOutcome.CONFLICT
"""Looked up once: an enum's member takes as long to find as an id to make, in Python 3.11."""


class DTimer(Generic[PayloadT]):
    """Posts events, and takes them when they are due, together with all other timers of the backend's namespace.

    Posting needs no :meth:`join`; taking does (rule P1).
    Its calls may be made in any event loop, thread and process; events come in the loop where it has joined (rule F8).
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
        node_name: str | None = None,
        max_events: int = MAX_EVENTS_DEFAULT,
        confirm_timeout: Timeout = CONFIRM_TIMEOUT_DEFAULT_US / SECOND_US,
        codec: None = None,
        payload_max_bytes: int = PAYLOAD_MAX_BYTES,
        max_run: Timeout = MAX_RUN_DEFAULT_US / SECOND_US,
        refused_for: Timeout = REFUSED_FOR_DEFAULT_US / SECOND_US,
        plain_handlers: PlainHandlers = "loop",
    ) -> None: ...

    @overload
    def __init__(
        self,
        backend: TimerBackend,
        *,
        node_id: str | None = None,
        node_name: str | None = None,
        max_events: int = MAX_EVENTS_DEFAULT,
        confirm_timeout: Timeout = CONFIRM_TIMEOUT_DEFAULT_US / SECOND_US,
        codec: Codec[PayloadT],
        payload_max_bytes: int = PAYLOAD_MAX_BYTES,
        max_run: Timeout = MAX_RUN_DEFAULT_US / SECOND_US,
        refused_for: Timeout = REFUSED_FOR_DEFAULT_US / SECOND_US,
        plain_handlers: PlainHandlers = "loop",
    ) -> None: ...

    def __init__(
        self,
        backend: TimerBackend,
        *,
        node_id: str | None = None,
        node_name: str | None = None,
        max_events: int = MAX_EVENTS_DEFAULT,
        confirm_timeout: Timeout = CONFIRM_TIMEOUT_DEFAULT_US / SECOND_US,
        codec: Codec[PayloadT] | None = None,
        payload_max_bytes: int = PAYLOAD_MAX_BYTES,
        max_run: Timeout = MAX_RUN_DEFAULT_US / SECOND_US,
        refused_for: Timeout = REFUSED_FOR_DEFAULT_US / SECOND_US,
        plain_handlers: PlainHandlers = "loop",
    ) -> None:
        """
        Args:
            backend: one namespace on one store.
            node_id: names this process among the nodes; a later join under the same id fences this one.
                Made at the join if not given.
            node_name: by which people know this process; it is never compared. Its host and number if not given.
            max_events: how many deliveries may be unfinished here at once (rule N2).
            confirm_timeout: seconds, or a timedelta, in which a delivery must be confirmed, unless its event says (D4).
            max_run: seconds, or a timedelta: for so long a handler may run. Until then the deadline of its delivery is
                extended while it does; then it is cancelled, and has failed; not if its event requires no confirm (D4).
            codec: makes bytes of payloads and back; JSON by default.
            payload_max_bytes: larger encoded payloads are refused (rule P6).
            refused_for: seconds, or a timedelta: when the codec of this timer refuses a payload, and the event was
                refused for the first time so long ago, it becomes a dead letter (rule F4).
            plain_handlers: where handlers for ``event`` run that are plain functions. ``"loop"`` is the event
                loop, which they block until they return; ``"thread"`` a thread each, in which they may block
                (in a simulator they run on the loop all the same). :meth:`Event.confirm` may be called there.

        Raises:
            InvalidArgument: one of them.
        """
        _validation.backend(backend)
        runtime = backend.runtime
        registry = Registry[PayloadT](_validation.max_events(max_events))
        settings = NodeSettings(
            identity=NodeIdentity(
                runtime,
                None if node_id is None else _validation.name(node_id, "node_id"),
                None if node_name is None else _validation.name(node_name, "node_name"),
            ),
            confirm_timeout_us=_validation.timeout_us(confirm_timeout, "confirm_timeout"),
            max_run_us=_validation.timeout_us(max_run, "max_run"),
            refused_for_us=_validation.timeout_us(refused_for, "refused_for"),
            in_threads=_validation.plain_handlers(plain_handlers) == "thread",
        )
        codec = cast("Codec[PayloadT]", JsonCodec()) if codec is None else codec
        _validation.codec(codec)
        self._encoder = PostEncoder(codec, _validation.payload_max_bytes(payload_max_bytes), runtime)

        self._context = context = TimerContext.of(runtime)
        histories = Histories()
        self._partitions = LoopLocal(lambda: Partitions(backend, context, histories))
        self._identity = settings.identity
        self._registry = registry
        self._hooks: dict[str, Hooks[...]] = {
            "error": context.reporter.hooks,
            "ended": context.ended,
            "ready": context.ready,
        }
        self._queries = Queries(self._partitions, codec)
        self._membership = Membership(context, settings, registry, codec, self._partitions)
        self._settings_check = SettingsCheck(backend, context)

    # --- being a node ------------------------------------------------------------------------------------------

    @property
    def node_id(self) -> str | None:
        """As it was given, or as it was made at the first join in this process; None before that."""
        return self._identity.id

    @property
    def node_name(self) -> str:
        """By which people know this process: as it was given, or else its host and number. It is never compared."""
        return self._identity.name

    @override
    def __repr__(self) -> str:
        return f"DTimer(node_id={self.node_id!r}, node_name={self.node_name!r}, joined={self.joined})"

    @property
    def joined(self) -> bool:
        """Whether this timer takes events, as far as it knows, in any event loop of this process."""
        return self._membership.joined

    @property
    def max_events(self) -> int:
        """How many deliveries may be unfinished here at once; setting 0 or less restores the initial value (N2)."""
        return self._registry.max_events

    @max_events.setter
    def max_events(self, value: int) -> None:
        self._registry.set_max_events(_validation.max_events_or_less(value))
        self._membership.look_again()

    @property
    def counters(self) -> Counters:
        """What this timer has done and met so far."""
        return self._context.counters.snapshot()

    async def join(self) -> None:
        """Begin to take events, in the running loop; nothing happens if it has begun (rule N1).

        Raises:
            WrongProcessOrLoop: it takes them in another loop of this process, which is not closed (rule F8).
            BackendError: the store cannot be reached or refuses; the timer has not joined.
        """
        with self._membership.node_here() as node:
            await node.join()
        self._settings_check.begin()

    async def leave(
        self,
        *,
        drain: bool = True,
        timeout: Timeout = LEAVE_TIMEOUT_DEFAULT_US / SECOND_US,  # noqa: ASYNC109  # of the handlers, not of the call
    ) -> None:
        """Cease to take events; harmless when it has not joined (rule N1). ``events()`` iterators come to their end.

        What arrives meanwhile goes back untouched, unless it requires no confirm and would be lost.
        A handler that calls this is not waited for.

        Args:
            drain: wait for the handlers that run; otherwise they just go on.
            timeout: seconds, or a timedelta; handlers that take longer are cancelled and reported.

        Raises:
            WrongProcessOrLoop: it has joined in another loop of this process, which is not closed (rule F8).
        """
        await self._leave(drain, timeout)
        self._tell_simulator()

    async def _leave(self, drain: bool, lasting: Timeout = LEAVE_TIMEOUT_DEFAULT_US / SECOND_US) -> None:
        timeout_us = _validation.timeout_us(lasting, "timeout")
        drain = _validation.flag(drain, "drain")
        with self._membership.node_here() as node:
            await node.leave(drain=drain, timeout_us=timeout_us)

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Who leaves with an error does not want to wait first: it may be about the very handlers that run.
        await self._leave(drain=kind is None or not issubclass(kind, Exception))
        if error is None:
            self._tell_simulator()

    def _tell_simulator(self) -> None:
        """The timer was left."""
        simulator = self._context.runtime.simulator
        if simulator is not None:
            simulator.tell()

    # --- taking events -------------------------------------------------------------------------------------------

    @overload
    def on(self, name: Literal["event"], handler: Callable[[Event[PayloadT]], R]) -> Callable[[Event[PayloadT]], R]: ...
    @overload
    def on(self, name: Literal["ended"], handler: Callable[[Ended[PayloadT]], R]) -> Callable[[Ended[PayloadT]], R]: ...
    @overload
    def on(self, name: Literal["error"], handler: Callable[[DTimerError], R]) -> Callable[[DTimerError], R]: ...
    @overload
    def on(self, name: Literal["ready"], handler: Callable[[], R]) -> Callable[[], R]: ...
    @overload
    def on(
        self, name: Literal["event"]
    ) -> Callable[[Callable[[Event[PayloadT]], R]], Callable[[Event[PayloadT]], R]]: ...
    @overload
    def on(
        self, name: Literal["ended"]
    ) -> Callable[[Callable[[Ended[PayloadT]], R]], Callable[[Ended[PayloadT]], R]]: ...
    @overload
    def on(self, name: Literal["error"]) -> Callable[[Callable[[DTimerError], R]], Callable[[DTimerError], R]]: ...
    @overload
    def on(self, name: Literal["ready"]) -> Callable[[Callable[[], R]], Callable[[], R]]: ...

    def on(self, name: EventName, handler: Callable[..., object] | None = None) -> Callable[..., object]:
        """Register a handler, a function or a coroutine function; without one, a decorator that does.

        * ``event``: an :class:`dtimer.Event` is due. Each of several handlers gets it; it is finished when all return.
        * ``ended``: an :class:`dtimer.Ended` event was exhausted or has expired, and this node alone is told.
        * ``error``: a :class:`dtimer.DTimerError` that no caller is given. Without a handler they are logged.
        * ``ready``: the timer has joined, or joined again by itself after the store had lost it.

        Raises:
            InvalidArgument: the name, or the handler is not a function.
            ConsumerConflict: for ``event``, while an ``events()`` iterator is open.
        """
        name = _validation.event_name(name)
        self._membership.leave_closed_loop()
        register = partial(self._register, name)
        return register if handler is None else register(handler)

    def off(self, name: EventName, handler: Callable[..., object]) -> None:
        """Take one registration of a handler back; harmless if there is none. It finishes the events it runs on."""
        name = _validation.event_name(name)
        (self._registry if name == "event" else self._hooks[name]).remove(handler)

    def _register(self, name: EventName, handler: Callable[..., object]) -> Callable[..., object]:
        _validation.handler(handler)
        # The overloads of `on` have checked that the handler fits the name.
        (self._registry if name == "event" else self._hooks[name]).add(handler)
        if name == "event":
            self._membership.look_again()
        return handler

    def events(self) -> Events[PayloadT]:
        """An iterator over events that are due, each given to exactly one iterator.

        It takes the next event when it is asked for one, so `max_events` iterators work on as many events at once.
        An event is finished when it is confirmed, released, its ``async with event`` block is left,
        or the next is asked for.

        Raises:
            ConsumerConflict: there are handlers for ``event``.
        """
        self._membership.leave_closed_loop()
        return Events(self._registry, self._membership)

    # --- posting ---------------------------------------------------------------------------------------------------

    async def post(
        self,
        payload: PayloadT,
        delay: Delay | None = None,
        *,
        at: datetime | None = None,
        id: str | None = None,
        if_exists: IfExistsName = "replace",
        headers: Mapping[str, str] | None = None,
        durability: Durable | None = None,
        repeat_within: Timeout | None = None,
        **options: Unpack[PostOptions],
    ) -> PostedId:
        """Schedule an event. Posts of one turn of the event loop travel together (rules P1 to P7).

        Args:
            payload: what the handler gets.
            delay: milliseconds, or a timedelta; 0 or less is at once. Either this or `at` is given.
            at: an aware datetime, by the store's clock; a past one is at once.
            id: names the event; made if not given.
            if_exists: what happens when a live event has the id.
            headers: small strings beside the payload.
            durability: how far it must have got before this returns; the backend's own if not given.
            repeat_within: seconds, or a timedelta, for which the call is repeated inside while it is known not to have
                been applied (rule F1); 0 is one try, and the backend's own if not given.
            options: `max_retries` and more: see :class:`dtimer.PostOptions`.

        Returns:
            The id, with the `outcome`.

        Raises:
            InvalidArgument: before any I/O.
            EventExists: with ``if_exists="error"``.
            OutcomeUnknown: it may have been scheduled.
            NotDurable: it has been, but is not known to have got as far as was asked for.
            BackendError: it has not been.
        """
        wanted = _validation.durability(durability)
        within_us = None if repeat_within is None else _validation.repeat_within_us(repeat_within)
        new = self._encoder.new_event(payload, delay, at, id, if_exists, headers, checked(options))
        id = new.event.id
        posts = self._partitions.here().of(id).posts(wanted)
        # The future itself: to await anything around it would cost as much as it does.
        (outcome,) = await posts.ask((new,), new.event.num_bytes, within_us)
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
        wanted = _validation.durability(durability)
        news = self._encoder.new_events(posts)
        outcomes = await self._partitions.here().post_many(news, wanted, _validation.repeat_within_us(repeat_within))
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
        """Cancel several events; the outcomes are in the order of the ids. Up to 512 ids travel in one call."""
        within_us = _validation.repeat_within_us(repeat_within)
        return await self._partitions.here().cancel(
            [_validation.event_id(id) for id in _validation.many(ids, "ids")], within_us
        )

    async def confirm(self, event: str | Event[PayloadT], *, repeat_within: Timeout | None = None) -> ConfirmOutcome:
        """End an unconfirmed event (rule E1).

        Given an id, it confirms the last delivery of that id to this timer, as long as that is among its last 4,096.
        Only if there was none it ends the event whoever works on it: the operator's form.
        """
        if isinstance(event, Event):
            return await event.confirm(repeat_within=repeat_within)
        within_us = _validation.repeat_within_us(repeat_within)
        id, node, partitions = _validation.event_id(event), self._membership.node, self._partitions.here()
        if node is None:
            return await partitions.of(id).acks.newest(id, within_us)
        return await node.dispatcher.confirm_id(id, partitions, within_us)

    async def change_delay(self, id: str, delay: Delay, *, repeat_within: Timeout | None = None) -> ChangeOutcome:
        """Make a scheduled event due in `delay` milliseconds, or a timedelta. Nothing else changes (rule E3)."""
        id = _validation.event_id(id)
        delay_us = _validation.delay_us(delay)
        within_us = _validation.repeat_within_us(repeat_within)
        session = self._partitions.here().of(id).session
        request = partial(session.backend.change_delay, id, delay_us=delay_us)
        return (await session.call(request, did("change_delay", id), repeat_within_us=within_us)).value

    # --- looking ---------------------------------------------------------------------------------------------------

    async def peek(self, id: str, *, repeat_within: Timeout | None = None) -> Upcoming[PayloadT] | None:
        """A live event as it stands; None if there is none (rule R1)."""
        return await self._queries.peek(_validation.event_id(id), _validation.repeat_within_us(repeat_within))

    async def upcoming(
        self,
        *,
        offset: Delay | None = None,
        duration: Delay | None = None,
        limit: int | None = None,
        repeat_within: Timeout | None = None,
    ) -> list[Upcoming[PayloadT]]:
        """Live events, scheduled and unconfirmed, in the order in which they can be claimed (rule R2).

        Args:
            offset: milliseconds, or a timedelta, from now to the first; without it, all that is overdue comes first.
            duration: milliseconds, or a timedelta, from there, or from now, to the last; no bound without it.
            limit: how many are listed at most.
            repeat_within: seconds, or a timedelta, for which the call for each page is repeated inside (rule F1).
        Negative ones, and a limit of 0, count as not given.
        """
        entries = self.iter_upcoming(offset=offset, duration=duration, limit=limit, repeat_within=repeat_within)
        return [entry async for entry in entries]

    def iter_upcoming(
        self,
        *,
        offset: Delay | None = None,
        duration: Delay | None = None,
        limit: int | None = None,
        repeat_within: Timeout | None = None,
    ) -> AsyncIterator[Upcoming[PayloadT]]:
        """List the events of `upcoming` page by page: a page shows one instant, and the next page a later one."""
        window = Window(_validation.window_us(offset, "offset"), _validation.window_us(duration, "duration"))
        return self._queries.upcoming(window, _validation.limit(limit), _validation.repeat_within_us(repeat_within))

    # --- dead letters ------------------------------------------------------------------------------------------

    async def dead_letters(
        self, *, limit: int | None = None, repeat_within: Timeout | None = None
    ) -> list[DeadEvent[PayloadT]]:
        """Events that ended unconfirmed and were kept, oldest first (rule E5).

        Raises:
            Unsupported: the backend keeps none.
        """
        letters = self._queries.dead_letters(_validation.limit(limit), _validation.repeat_within_us(repeat_within))
        return [letter async for letter in letters]

    async def resend(
        self,
        letter: DeadEvent[PayloadT] | str,
        delay: Delay | None = None,
        *,
        at: datetime | None = None,
        if_exists: IfExistsName = "replace",
        repeat_within: Timeout | None = None,
    ) -> ResendOutcome:
        """Post a dead letter again, as new; at once unless a delay or a time is given.

        Args:
            letter: one that was listed; an id means the letter of that id's last burial (rule E5).

        Raises as `post` and `dead_letters` do.
        """
        due = _validation.due(0 if delay is None and at is None else delay, at)
        within_us = _validation.repeat_within_us(repeat_within)
        name = _name_of(letter)
        outcome = await self._queries.resend(name, due, _validation.if_exists(if_exists), within_us)
        if outcome is ResendOutcome.CONFLICT:
            raise EventExists(name.id)
        return outcome

    async def discard(
        self, letter: DeadEvent[PayloadT] | str, *, repeat_within: Timeout | None = None
    ) -> DiscardOutcome:
        """Forget a dead letter: one that was listed, or that of an id's last burial. Raises as `dead_letters`."""
        return await self._queries.discard(_name_of(letter), _validation.repeat_within_us(repeat_within))


def _name_of(letter: DeadEvent[PayloadT] | str) -> LetterName:
    return letter.letter.name if isinstance(letter, DeadEvent) else LetterName(_validation.event_id(letter))
