"""Events as handlers and iterators get them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeAlias

from attrs import field, frozen
from typing_extensions import override

from dtimer._validation import Delay, Timeout, from_instant, repeat_within_us
from dtimer.codecs.codec import Codec, PayloadT, decode_headers
from dtimer.protocol.outcomes import BuryOutcome, ConfirmOutcome, ExtendOutcome, ReleaseOutcome
from dtimer.protocol.values import Delivery, EndedEvent, EndReason, EventData, Failure, Receipt
from dtimer.user_code import ends_the_program, ends_the_task


class EventActions(Protocol[PayloadT]):
    """The calls that an event makes to the node that has it."""

    def confirm(self, event: Event[PayloadT], repeat_within_us: int | None) -> Confirming: ...

    def confirm_at_end(self, event: Event[PayloadT]) -> Awaitable[object] | None:
        """The block of an event was left cleanly. None if other handlers of the event decide, too."""
        ...

    async def release(self, event: Event[PayloadT], delay: Delay, counted: bool) -> ReleaseOutcome: ...

    async def extend(self, event: Event[PayloadT], lasting: Timeout) -> ExtendOutcome: ...

    async def bury(self, event: Event[PayloadT], reason: str) -> BuryOutcome: ...

    def failed(self, event: Event[PayloadT], error: BaseException) -> None: ...

    def at_end(self, event: Event[PayloadT]) -> None:
        """The block of an event was left, and the confirm or release that followed is over."""
        ...


Outcome: TypeAlias = ConfirmOutcome | ReleaseOutcome | BuryOutcome


class PendingOutcome(Protocol):
    """A confirm, release or burial that was asked for."""

    @property
    def outcome(self) -> Outcome | None:
        """None before it is answered, and if it failed."""
        ...

    @property
    def failed(self) -> bool:
        """The call failed, so it is not known to have settled the event."""
        ...


class Asked:
    """A release or a burial that was asked for."""

    __slots__ = ("failed", "outcome")

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self.failed = False


ON_ITS_WAY: Final[PendingOutcome] = Asked()
"""A confirm that the event's loop is about to ask for."""


class DeliveryState:
    """The state of a delivery at its node, which alone writes it.

    Attributes:
        deadline_us: as far as is known, by the store's clock; None if it requires no confirm.
        lost: the answer to an extension was that the delivery is not in charge of the event any more.
        settling: the last confirm, release or burial that was asked for.
        withdrawn: the event was cancelled or replaced before the deadline.
    """

    __slots__ = ("_earlier", "deadline_us", "lost", "settling", "withdrawn")

    def __init__(self, deadline_us: int | None) -> None:
        self.deadline_us = deadline_us
        self.settling: PendingOutcome | None = None
        self.lost = False
        self.withdrawn = False
        self._earlier: tuple[PendingOutcome, ...] = ()

    def ask(self, settling: PendingOutcome) -> None:
        """A confirm, release or burial is asked for, perhaps not the first one."""
        if self.settling is not None and self.settling is not ON_ITS_WAY:
            self._earlier += (self.settling,)
        self.settling = settling

    @property
    def all(self) -> tuple[PendingOutcome, ...]:
        """Everything that was asked for."""
        return () if self.settling is None else (*self._earlier, self.settling)

    @property
    def asked(self) -> bool:
        """A confirm, a release or a burial was asked for, and has not failed."""
        settling = self.settling
        if settling is None or not settling.failed:  # as nearly always, and this is asked often
            return settling is not None
        return not all(earlier.failed for earlier in self._earlier)

    @property
    def pending(self) -> bool:
        """Something that was asked for has not been answered yet."""
        return any(settling.outcome is None and not settling.failed for settling in self.all)

    @property
    def settled(self) -> bool:
        """Something that was asked for has worked."""
        return any(settling.outcome for settling in self.all)

    @property
    def to_confirm(self) -> bool:
        """Leaving its block confirms it: no more than confirms was asked for, and all of them failed."""
        return self.settling is None or (not self.asked and not any(isinstance(one, Asked) for one in self.all))


class Confirming(Awaitable[ConfirmOutcome]):
    """A confirm that is on its way already. Awaiting it gives the outcome, or raises what went wrong.

    Who does not await it leaves failures to the ``error`` handlers.
    Like its event it belongs to one event loop, and raises WrongProcessOrLoop in another (rule F8).
    """

    __slots__ = ("_before_use", "_submission")

    def __init__(
        self, submission: Awaitable[Sequence[ConfirmOutcome]] | None, before_use: Callable[[], None] | None = None
    ) -> None:
        self._submission = submission
        self._before_use = before_use

    @override
    def __await__(self) -> Generator[object, None, ConfirmOutcome]:
        if self._submission is None:
            return ConfirmOutcome.NOT_FOUND
        if self._before_use is not None:
            self._before_use()
        return (yield from self._submission.__await__())[0]


class Event(Generic[PayloadT]):
    """One delivery of an event to this process.

    As a context manager it is confirmed when its block is left cleanly,
    and left to its retry policy when the block raises.
    If several handlers were given it, that is done once, when all of them have ended: it has failed if one has.

    Attributes:
        payload: what was posted.
        failure: what its block or a handler raised first; None if neither has.
    """

    __slots__ = ("__weakref__", "_actions", "_delivery", "_lost", "_skew_us", "_state", "failure", "payload")

    def __init__(
        self, payload: PayloadT, delivery: Delivery, actions: EventActions[PayloadT], skew_us: int = 0
    ) -> None:
        self.payload = payload
        self.failure: Failure | None = None
        self._state = DeliveryState(delivery.deadline_us)
        self._delivery = delivery
        self._lost: asyncio.Event | None = None
        self._actions = actions
        self._skew_us = skew_us

    @override
    def __repr__(self) -> str:
        return f"Event(id={self.id!r}, delivery_number={self.delivery_number}, num_retries={self.num_retries})"

    # --- what it is ----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._delivery.event.id

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that were posted beside the payload."""
        return decode_headers(self._delivery.event.headers)

    @property
    def data(self) -> EventData:
        """The event as the store has it."""
        return self._delivery.event

    @property
    def receipt(self) -> Receipt:
        """Names this delivery (rule E1)."""
        return self._delivery.receipt

    @property
    def max_retries(self) -> int:
        return self._delivery.event.max_retries

    @property
    def num_retries(self) -> int:
        """Counted deliveries before this one; 0 at first (rule D2)."""
        return self._delivery.num_retries

    @property
    def delivery_number(self) -> int:
        """Which delivery of the event this is, from 1, counted or not."""
        return self._delivery.receipt.delivery_number

    @property
    def requires_confirm(self) -> bool:
        """Whether it must be confirmed; if not, the store has forgotten it already."""
        return self._delivery.deadline_us is not None

    @property
    def due(self) -> datetime:
        """When it could be claimed from: its due time, or the deadline of the delivery before.

        Like all times of an event it is by the clock of the store's host (rule T6).
        """
        return from_instant(self._delivery.due_us - self._skew_us)

    @property
    def delivered_at(self) -> datetime:
        """When it was claimed."""
        return from_instant(self._delivery.at_us - self._skew_us)

    @property
    def lateness(self) -> timedelta:
        """From `due` to `delivered_at`."""
        return timedelta(microseconds=self._delivery.at_us - self._delivery.due_us)

    @property
    def deadline(self) -> datetime | None:
        """Until when no other node is given it, as far as is known here; None if it requires no confirm.

        While it is worked on it is moved (rule D4).
        """
        deadline_us = self._state.deadline_us
        return None if deadline_us is None else from_instant(deadline_us - self._skew_us)

    @property
    def lost(self) -> asyncio.Event:
        """Set as soon as an extension is answered that this delivery is in charge of nothing any more (rule D4).

        The event has been given to another node, was cancelled or replaced, or is a dead letter.
        ``await event.lost.wait()``, or ask ``event.lost.is_set()``.
        """
        if self._lost is None:
            self._lost = asyncio.Event()
        return self._lost

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of the last confirm, release or burial that was asked for here.

        None before it is answered, and if it raised an error.
        """
        settling = self._state.settling
        return settling.outcome if settling is not None else None

    @property
    def settled(self) -> bool:
        """It has been confirmed, released or buried here; or that was asked for, and is not answered yet."""
        return self._state.settled or self._state.pending

    # --- what can be done with it ----------------------------------------------------------------------

    def confirm(self, *, repeat_within: Timeout | None = None) -> Confirming:
        """End the event, also past its deadline as long as it was not claimed again (rule E1).

        It is on its way when this returns, so a plain function may call it too; await it for the outcome.
        An event that requires no confirm has nothing to confirm: the outcome is `NOT_FOUND`, without I/O.

        Args:
            repeat_within: as for :meth:`dtimer.DTimer.confirm`.
        """
        return self._actions.confirm(self, None if repeat_within is None else repeat_within_us(repeat_within))

    async def release(self, delay: Delay = 0, *, counted: bool = False) -> ReleaseOutcome:
        """Give it back, due after a delay in milliseconds or a timedelta (rule E4).

        Args:
            counted: as a failed attempt; without retries left the event is exhausted then.

        Raises:
            ConfirmNotRequired: the store has nothing that could be given back.
            InvalidArgument: the delay.
            BackendError: repeating it inside, as its receipt counts once at most, has not helped (rule F1).
        """
        return await self._actions.release(self, delay, counted)

    async def extend(self, timeout: Timeout) -> ExtendOutcome:  # noqa: ASYNC109  # not a time limit of the call
        """Move the deadline to `timeout` from now, in seconds or a timedelta (rule E4). Raises as `release` does."""
        return await self._actions.extend(self, timeout)

    async def bury(self, reason: str) -> BuryOutcome:
        """Make a dead letter of it, whatever was said when it was posted (rule F4). Raises as `release` does."""
        return await self._actions.bury(self, reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                if self._delivery.deadline_us is not None and self._state.to_confirm:
                    confirming = self._actions.confirm_at_end(self)
                    if confirming is not None:
                        await confirming
            elif not ends_the_task(error):
                self._actions.failed(self, error)
            # else: a cancelled or interrupted block says nothing about the event; it comes again at its deadline.
        finally:
            self._actions.at_end(self)


delivery_state: Final[Callable[[Event[Any]], DeliveryState]] = attrgetter("_state")
"""For the node; an application has no use for it."""


delivery_of: Final[Callable[[Event[Any]], Delivery]] = attrgetter("_delivery")
"""For the node's work on each event, as a property of an event costs it a call."""


def own_timeout_us(event: Event[Any]) -> int:
    """From its delivery to its deadline, before any extension; 0 if it requires no confirm."""
    delivery = delivery_of(event)
    return 0 if delivery.deadline_us is None else delivery.deadline_us - delivery.at_us


hears_of_its_loss: Final[Callable[[Event[Any]], object]] = attrgetter("_lost")
"""Whether its `lost` has been asked for, so that it may be waited for: not None then."""


@frozen(kw_only=True)
class Ended(Generic[PayloadT]):
    """An event that ended without having been confirmed; told to one node only (rules E5 and P7).

    Attributes:
        payload: None if it cannot be decoded; `payload_bytes` has it in any case.
        reason: `EXHAUSTED` or `EXPIRED`.
        num_retries: counted deliveries after the first.
        dead_letter: it is a dead letter now.
    """

    id: str
    payload: PayloadT | None = field(repr=False)
    payload_bytes: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    reason: EndReason
    max_retries: int
    num_retries: int
    dead_letter: bool


def decode_ended(ended: EndedEvent, codec: Codec[PayloadT], caught: Callable[[BaseException], None]) -> Ended[PayloadT]:
    """An event that a claim, or a counted release, found at its end, with its payload decoded.

    Args:
        caught: called with what the codec raises.
    """
    event = ended.event
    payload: PayloadT | None
    try:
        payload = codec.decode(event.payload)
    except BaseException as error:
        if ends_the_program(error):
            raise
        caught(error)
        # The event has ended, so no other node can decode it either; `payload_bytes` has the bytes.
        payload = None
    return Ended(
        id=event.id,
        payload=payload,
        payload_bytes=event.payload,
        headers=decode_headers(event.headers),
        reason=ended.reason,
        max_retries=event.max_retries,
        num_retries=max(ended.num_counted - 1, 0),
        dead_letter=ended.dead_letter,
    )


EventHandler = Callable[[Event[PayloadT]], object]
"""A plain function, or a coroutine function, that takes an event."""
