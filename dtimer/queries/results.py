"""Events as the store has them, live ones and dead letters: the results of queries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Generic

from attrs import field, frozen
from typing_extensions import override

from dtimer._validation import from_instant
from dtimer.codecs.codec import Codec, PayloadT, decode_headers
from dtimer.errors import PayloadNotDecodable
from dtimer.protocol.values import DeadLetter, EndReason, EventData, EventState, LastError, Pending
from dtimer.user_code import ends_the_program


@frozen(repr=False)
class Upcoming(Generic[PayloadT]):
    """A live event as it stood when the store was asked (rules R1 and R2)."""

    _pending: Pending
    _at_us: int
    _codec: Codec[PayloadT] = field(eq=False)

    @override
    def __repr__(self) -> str:
        """Without the payload, which may be large."""
        return (
            f"Upcoming(id={self.id!r}, state={self.state.value}, time_left={self.time_left}, "
            f"num_retries={self.num_retries}, max_retries={self.max_retries})"
        )

    _skew_us: int = 0

    @property
    def id(self) -> str:
        return self._pending.event.id

    @property
    def payload(self) -> PayloadT:
        """Decoded when asked for, so that one bad payload spoils no list.

        Raises:
            PayloadNotDecodable: the codec refused it.
        """
        return _decoded(self._codec, self._pending.event)

    @property
    def payload_bytes(self) -> bytes:
        return self._pending.event.payload

    @property
    def headers(self) -> Mapping[str, str]:
        return decode_headers(self._pending.event.headers)

    @property
    def state(self) -> EventState:
        return self._pending.state

    @property
    def max_retries(self) -> int:
        return self._pending.event.max_retries

    @property
    def num_retries(self) -> int:
        """Counted deliveries before the next one, or before the one that is out."""
        return self._pending.num_retries

    @property
    def delivery_number(self) -> int:
        """Of its newest delivery, from 1, counted or not; 0 if it has had none."""
        return self._pending.delivery_number

    @property
    def time_left(self) -> timedelta:
        """Until it is due, or until its deadline; negative when that is past."""
        return timedelta(microseconds=self._pending.next_us - self._at_us)

    @property
    def due(self) -> datetime | None:
        """When it is due, by the clock of the store's host; None while it is unconfirmed."""
        return self._next if self.state is EventState.SCHEDULED else None

    @property
    def deadline(self) -> datetime | None:
        """Until when it may be confirmed for sure, by the clock of the store's host; None unless it is unconfirmed."""
        return self._next if self.state is EventState.UNCONFIRMED else None

    @property
    def _next(self) -> datetime:
        return from_instant(self._pending.next_us - self._skew_us)


@frozen(repr=False)
class DeadEvent(Generic[PayloadT]):
    """A dead letter: an event that ended unconfirmed and was kept (rule E5)."""

    letter: DeadLetter
    _codec: Codec[PayloadT] = field(eq=False)

    @override
    def __repr__(self) -> str:
        """Without the payload, which may be large."""
        return (
            f"DeadEvent(id={self.id!r}, reason={self.reason.value}, detail={self.detail!r}, "
            f"buried_at={self.buried_at.isoformat()})"
        )

    _skew_us: int = 0

    @property
    def id(self) -> str:
        return self.letter.id

    @property
    def payload(self) -> PayloadT:
        """Raises `PayloadNotDecodable` if the codec refuses it, or the store could not read the record."""
        if self.letter.event is None:
            raise PayloadNotDecodable(self.letter.id, self.letter.raw, "its record could not be read")
        return _decoded(self._codec, self.letter.event)

    @property
    def payload_bytes(self) -> bytes:
        """The payload's bytes, or the whole record's if it could not be read."""
        return self.letter.raw if self.letter.event is None else self.letter.event.payload

    @property
    def reason(self) -> EndReason:
        return self.letter.reason

    @property
    def detail(self) -> str:
        """The reason that a handler gave for burying the event; otherwise the last error, in one line."""
        return self.letter.detail or ("" if self.last_error is None else str(self.last_error))

    @property
    def last_error(self) -> LastError | None:
        """The last failure of the event, and its node; None without one, as for an event that expired undelivered."""
        return self.letter.last_error

    @property
    def failed_at(self) -> datetime | None:
        """When the last failure was reported, or the deadline that passed, by the clock of the store's host."""
        return None if self.last_error is None else from_instant(self.last_error.at_us - self._skew_us)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that were posted beside the payload; empty if the record could not be read."""
        return {} if self.letter.event is None else decode_headers(self.letter.event.headers)

    @property
    def due(self) -> datetime:
        """When the event was due, by its post or the last change of its delay."""
        return from_instant(self.letter.due_us - self._skew_us)

    @property
    def buried_at(self) -> datetime:
        """When it was buried, by the clock of the store's host; no other letter of its partition has the same time."""
        return from_instant(self.letter.buried_us - self._skew_us)

    @property
    def max_retries(self) -> int:
        return 0 if self.letter.event is None else self.letter.event.max_retries

    @property
    def delivery_number(self) -> int:
        """Of its last delivery, from 1, counted or not; 0 if it had none."""
        return self.letter.delivery_number

    @property
    def num_retries(self) -> int:
        """Counted deliveries after the first."""
        return max(self.letter.num_counted - 1, 0)


def _decoded(codec: Codec[PayloadT], event: EventData) -> PayloadT:
    try:
        return codec.decode(event.payload)
    except BaseException as error:
        if ends_the_program(error):
            raise
        raise PayloadNotDecodable(event.id, event.payload, "the codec refused it") from error
