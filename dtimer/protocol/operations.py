"""The operations of a namespace, as values: one class for each method of :class:`dtimer.TimerBackend`.

A history is a list of these with their replies; the machine replays it.
"""

from __future__ import annotations

from typing import ClassVar, Generic

from typing_extensions import TypeVar

from dtimer.frozen import frozen
from dtimer.protocol.outcomes import (
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    ConfirmOutcome,
    DiscardOutcome,
    ExtendOutcome,
    JoinOutcome,
    PostOutcome,
    ReleaseOutcome,
    ResendOutcome,
)
from dtimer.protocol.values import (
    Branch,
    Claimed,
    Cursor,
    DeadLetterCursor,
    DeadLetterPage,
    Due,
    Extension,
    Failure,
    IfExists,
    Inspection,
    LetterName,
    Member,
    NewEvent,
    Page,
    Pending,
    Receipt,
    Release,
    Window,
)

ReplyT_co = TypeVar("ReplyT_co", covariant=True)


@frozen
class Operation(Generic[ReplyT_co]):
    """One call on a store; `ReplyT_co` is the value of its reply.

    Attributes:
        method: the method of :class:`dtimer.TimerBackend` that it is.
    """

    method: ClassVar[str]


@frozen
class Read(Operation[ReplyT_co]):
    """An operation that changes nothing, and so has no number of its own (rule O1)."""


@frozen
class Open(Read[None]):
    method = "open"


@frozen
class Post(Operation[tuple[PostOutcome, ...]]):
    method = "post"
    events: tuple[NewEvent, ...]


@frozen
class Cancel(Operation[tuple[CancelOutcome, ...]]):
    method = "cancel"
    ids: tuple[str, ...]


@frozen
class ChangeDelay(Operation[ChangeOutcome]):
    method = "change_delay"
    id: str
    delay_us: int


@frozen(kw_only=True)
class Claim(Operation[Claimed]):
    method = "claim"
    member: Member
    room: int
    confirm_timeout_us: int
    nonce: str
    confirming: tuple[Receipt, ...] = ()
    extending: tuple[Extension, ...] = ()
    pulse: bool = False


@frozen
class Confirm(Operation[tuple[ConfirmOutcome, ...]]):
    method = "confirm"
    receipts: tuple[Receipt, ...]


@frozen
class ConfirmNewest(Operation[ConfirmOutcome]):
    method = "confirm_newest"
    id: str


@frozen(kw_only=True)
class GiveBack(Operation[ReleaseOutcome]):
    """The method `release`; :class:`dtimer.Release` is the way it is done."""

    method = "release"
    receipt: Receipt
    how: Release
    delay_us: int
    failure: Failure | None = None
    refused_for_us: int = 0


@frozen
class Extend(Operation[tuple[ExtendOutcome, ...]]):
    method = "extend"
    extensions: tuple[Extension, ...]


@frozen
class Bury(Operation[BuryOutcome]):
    method = "bury"
    receipt: Receipt
    detail: str


@frozen
class Peek(Read[Pending | None]):
    method = "peek"
    id: str


@frozen
class Upcoming(Read[Page]):
    method = "upcoming"
    start: Window | Cursor
    limit: int


@frozen
class Join(Operation[JoinOutcome]):
    method = "join"
    member: Member


@frozen
class Leave(Operation[bool]):
    method = "leave"
    member: Member


@frozen
class ListDeadLetters(Read[DeadLetterPage]):
    """The method `dead_letters`."""

    method = "dead_letters"
    cursor: DeadLetterCursor | None
    limit: int


@frozen
class Resend(Operation[ResendOutcome]):
    method = "resend"
    letter: LetterName
    due: Due
    if_exists: IfExists


@frozen
class Discard(Operation[tuple[DiscardOutcome, ...]]):
    method = "discard"
    letters: tuple[LetterName, ...]


@frozen
class Inspect(Read[Inspection]):
    method = "inspect"


@frozen
class ListBranches(Read[tuple[Branch, ...]]):
    """The method `branches`."""

    method = "branches"
