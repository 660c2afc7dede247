"""The operations of a namespace: each is one class, whose attributes are its arguments and whose docstring is its own.

What holds for all of them stands in :mod:`dtimer.protocol.backend`; the numbers name rules.
A backend gets them as values. Callers have a method for each: :func:`method` makes it of the class, types included.
A history is a list of operations with their replies; the machine replays it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, Concatenate, Final, Generic, ParamSpec, cast

from attrs import field
from typing_extensions import TypeVar, override

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
    Applied,
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

P = ParamSpec("P")
ReplyT_co = TypeVar("ReplyT_co", covariant=True)

SAFE: Final = "safe"
UNSAFE: Final = ""
REPEATS: Final[dict[str, str]] = {}
"""For each operation, by its method: :attr:`Operation.repeat`."""


def _events(events: Sequence[NewEvent]) -> tuple[NewEvent, ...]:
    return tuple(events)


def _ids(ids: Sequence[str]) -> tuple[str, ...]:
    return tuple(ids)


def _receipts(receipts: Sequence[Receipt]) -> tuple[Receipt, ...]:
    return tuple(receipts)


def _extensions(extensions: Sequence[Extension]) -> tuple[Extension, ...]:
    return tuple(extensions)


def _letters(letters: Sequence[LetterName]) -> tuple[LetterName, ...]:
    return tuple(letters)


@frozen
class Operation(Generic[ReplyT_co]):
    """One call on a store; `ReplyT_co` is the value of its reply.

    Attributes:
        method: its name in errors and traces, and that of the method that callers have.
        repeat: `SAFE`: it may be repeated after a lost reply, whatever other clients have done since (rule F1): reads,
            and what names a receipt or an incarnation, which count once at most. Else what to do before it is repeated
            by hand, if that is known.
    """

    method: ClassVar[str]
    repeat: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "method" in vars(cls):
            REPEATS[cls.method] = cls.repeat

    def about(self) -> Sequence[str]:
        """The ids of what it is about: events, or a member; of a claim, the events that it confirms."""
        return ()


@frozen
class Read(Operation[ReplyT_co]):
    """An operation that changes nothing, and so has no number of its own (rule O1)."""

    repeat = SAFE


@frozen
class Open(Read[None]):
    """Reach the store, check that its schema is ours (F7), and learn the epoch; a new namespace is made."""

    method = "open"


@frozen
class Post(Operation[tuple[PostOutcome, ...]]):
    """Schedule events, in list order, each with a microsecond of its own (T4, T5, P1 to P5).

    Afterwards exactly one event has each id, which `if_exists` may have left as it was (P3).
    """

    method = "post"
    repeat = "another post would replace what is under the id by then: peek at the id first"
    events: tuple[NewEvent, ...] = field(converter=_events)

    @override
    def about(self) -> Sequence[str]:
        return [new.event.id for new in self.events]


@frozen
class Cancel(Operation[tuple[CancelOutcome, ...]]):
    """End events in any live state; no later claim gives them out (E2)."""

    method = "cancel"
    repeat = "another cancel would end what has been posted under the id since: peek at the id first"
    ids: tuple[str, ...] = field(converter=_ids)

    @override
    def about(self) -> Sequence[str]:
        return self.ids


@frozen
class ChangeDelay(Operation[ChangeOutcome]):
    """Move a scheduled event to now + delay; anything else is left alone and named (E3)."""

    method = "change_delay"
    repeat = "another change would count from then, and move what is under the id by then: peek at the id first"
    id: str
    delay_us: int

    @override
    def about(self) -> Sequence[str]:
        return (self.id,)


@frozen
class Claim(Operation[Claimed]):
    """Confirm what is finished, extend what is at work, then take what is due, in claim order, at most `room`
    (D1 to D6, E1, E4, E5, P7, T3, T4).

    A non-member or a fenced one takes nothing, and is told so (N1);
    it confirms and extends all the same, for a receipt alone says who is in charge of a delivery.
    A claim unparks its member, is its sign of life, suspects the armed node that did not come (W5),
    parks its member again when no room is left (D8), moves it to the ring's end when it took something (W4),
    and re-arms.
    `nonce` becomes part of every receipt of this claim. `pulse` tells all nodes that one of them looked (W1).
    """

    method = "claim"
    repeat = UNSAFE
    member: Member
    room: int = field(kw_only=True)
    confirm_timeout_us: int = field(kw_only=True)
    nonce: str = field(kw_only=True)
    confirming: tuple[Receipt, ...] = field(default=(), converter=_receipts, kw_only=True)
    extending: tuple[Extension, ...] = field(default=(), converter=_extensions, kw_only=True)
    pulse: bool = field(default=False, kw_only=True)

    @override
    def about(self) -> Sequence[str]:
        return [receipt.id for receipt in self.confirming]


@frozen
class Confirm(Operation[tuple[ConfirmOutcome, ...]]):
    """End unconfirmed events by their newest receipts, also past the deadline; an old one changes nothing (E1)."""

    method = "confirm"
    repeat = SAFE
    receipts: tuple[Receipt, ...] = field(converter=_receipts)

    @override
    def about(self) -> Sequence[str]:
        return [receipt.id for receipt in self.receipts]


@frozen
class ConfirmNewest(Operation[ConfirmOutcome]):
    """End an unconfirmed event whichever node holds its receipt: the operator's form (E1)."""

    method = "confirm_newest"
    repeat = "another confirm would end the delivery that is out by then: peek at the id first"
    id: str

    @override
    def about(self) -> Sequence[str]:
        return (self.id,)


@frozen
class GiveBack(Operation[ReleaseOutcome]):
    """Give a delivery back, due after a delay (E4). `failure` is kept as the event's last error (E5).

    Of a refusal the store decides the delay (F4): none, while the refusals are fewer than the members of the ring.
    It buries the event if the first one was `refused_for_us` ago or more.
    The method is `release`; :class:`dtimer.Release` is the way it is done.
    """

    method = "release"
    repeat = SAFE
    receipt: Receipt
    how: Release = field(kw_only=True)
    delay_us: int = field(kw_only=True)
    failure: Failure | None = field(default=None, kw_only=True)
    refused_for_us: int = field(default=0, kw_only=True)

    @override
    def about(self) -> Sequence[str]:
        return (self.receipt.id,)


@frozen
class Extend(Operation[tuple[ExtendOutcome, ...]]):
    """Move deadlines of deliveries, each to now + its timeout, in list order (E4, T4)."""

    method = "extend"
    repeat = SAFE
    extensions: tuple[Extension, ...] = field(converter=_extensions)

    @override
    def about(self) -> Sequence[str]:
        return [extension.receipt.id for extension in self.extensions]


@frozen
class Bury(Operation[BuryOutcome]):
    """Make a dead letter of an unconfirmed event (F4)."""

    method = "bury"
    repeat = SAFE
    receipt: Receipt
    detail: str

    @override
    def about(self) -> Sequence[str]:
        return (self.receipt.id,)


@frozen
class Peek(Read[Pending | None]):
    """A live event as it stands, or None (R1)."""

    method = "peek"
    id: str

    @override
    def about(self) -> Sequence[str]:
        return (self.id,)


@frozen
class Upcoming(Read[Page]):
    """One page of live events in claim order, all of one instant; at most ``PAGE_MAX_ITEMS`` (R2)."""

    method = "upcoming"
    start: Window | Cursor
    limit: int


@frozen
class Join(Operation[JoinOutcome]):
    """Put a member at the ring's end, fencing an earlier incarnation; it is itself fenced by a later one (N1).

    `TOOK_OVER` tells that the earlier one was alive, for two processes may have one node id; a repetition tells it
    again.
    """

    method = "join"
    repeat = SAFE
    member: Member

    @override
    def about(self) -> Sequence[str]:
        return (self.member.node,)


@frozen
class Leave(Operation[bool]):
    """Take a member out and hand its arm over (N1); False if this incarnation was not there."""

    method = "leave"
    repeat = SAFE
    member: Member

    @override
    def about(self) -> Sequence[str]:
        return (self.member.node,)


@frozen
class ListDeadLetters(Read[DeadLetterPage]):
    """One page of dead letters, oldest first. The method is `dead_letters`."""

    method = "dead_letters"
    cursor: DeadLetterCursor | None
    limit: int


@frozen
class Resend(Operation[ResendOutcome]):
    """Post a dead letter again, as new; it is kept when `if_exists` leaves another event in place."""

    method = "resend"
    repeat = "peek at the id, and look for it among the dead letters, first"
    letter: LetterName
    due: Due
    if_exists: IfExists

    @override
    def about(self) -> Sequence[str]:
        return (self.letter.id,)


@frozen
class Discard(Operation[tuple[DiscardOutcome, ...]]):
    """Forget dead letters."""

    method = "discard"
    repeat = "another event of the id may have been buried since: look at the dead letters first"
    letters: tuple[LetterName, ...] = field(converter=_letters)

    @override
    def about(self) -> Sequence[str]:
        return [letter.id for letter in self.letters]


@frozen
class Inspect(Read[Inspection]):
    """A namespace at one instant, as a whole."""

    method = "inspect"


@frozen
class ListBranches(Read[tuple[Branch, ...]]):
    """The last ``BRANCHES_MAX`` branches, the newest last: that of the server which answers (O2).

    The method is `branches`.
    """

    method = "branches"


# --- the methods that callers have ---------------------------------------------------------------------------


class Performer(ABC):
    """What carries out operations."""

    @abstractmethod
    async def perform(self, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
        """Carry out one operation.

        Raises:
            Unsupported: not this kind.
        """


def method(
    make: Callable[P, Operation[ReplyT_co]],
) -> Callable[Concatenate[Performer, P], Coroutine[Any, Any, Applied[ReplyT_co]]]:
    """The method that makes an operation of its arguments, and has it carried out."""

    def call(self: Performer, /, *args: P.args, **named: P.kwargs) -> Coroutine[Any, Any, Applied[ReplyT_co]]:
        return self.perform(make(*args, **named))

    call.__name__ = cast("type[Operation[object]]", make).method
    call.__doc__ = make.__doc__
    return call


class Operations(Performer):
    """Those that every backend carries out."""

    open = method(Open)
    post = method(Post)
    cancel = method(Cancel)
    change_delay = method(ChangeDelay)
    claim = method(Claim)
    confirm = method(Confirm)
    confirm_newest = method(ConfirmNewest)
    release = method(GiveBack)
    extend = method(Extend)
    bury = method(Bury)
    peek = method(Peek)
    upcoming = method(Upcoming)
    join = method(Join)
    leave = method(Leave)


class SupportsDeadLetters(Performer):
    """What an operator does with dead letters (E5)."""

    dead_letters = method(ListDeadLetters)
    resend = method(Resend)
    discard = method(Discard)


class SupportsInspection(Performer):
    """A look at the namespace as a whole."""

    inspect = method(Inspect)


class SupportsBranches(Performer):
    """Telling by which servers a namespace's history was made, so that no lost call goes untold (rule O2).

    Each reply names the branch that it belongs to; that of a store which never loses anything may be without one.
    """

    branches = method(ListBranches)
