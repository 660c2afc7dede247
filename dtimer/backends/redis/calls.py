"""How each operation is asked of a server: the arguments of its script, and what reads the reply.

An operation has one entry in `CALLS`; its script is ``lua/<method>.lua``, whose header says what it takes and returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from attrs import frozen

from dtimer.backends.redis.wire import replies
from dtimer.backends.redis.wire.records import write_record
from dtimer.backends.redis.wire.replies import each_of, one_of
from dtimer.backends.redis.wire.resp import Argument, Reply, pack_row, utf8
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import After, At, Due, Extension, IfExists, NewEvent, Receipt, Window

OperationT = TypeVar("OperationT", bound=Operation[Any])


@frozen
class Call(Generic[OperationT]):
    """One kind of operation on its way.

    Attributes:
        args: the arguments of its script.
        read: what makes the value of its reply.
    """

    kind: type[OperationT]
    args: Callable[[OperationT], Sequence[Argument]]
    read: Callable[[OperationT], Callable[[Reply], object]]


def _call(
    kind: type[OperationT], args: Callable[[OperationT], Sequence[Argument]], read: Callable[[Reply], object]
) -> Call[Any]:
    """One whose replies are read without regard to what was asked."""
    return Call(kind, args, lambda _: read)


def _claim(claim: op.Claim) -> Sequence[Argument]:
    member = claim.member
    args: list[Argument] = [member.node, member.incarnation, claim.room, claim.confirm_timeout_us, claim.nonce]
    args += (int(claim.pulse), member.poll_us, len(claim.confirming))
    return args + _flat(claim.confirming) + _with_timeouts(claim.extending)


def _release(release: op.GiveBack) -> Sequence[Argument]:
    delay = _due(After(release.delay_us))
    args: list[Argument] = [*_flat((release.receipt,)), release.how.value, delay, release.refused_for_us]
    if release.failure is not None:
        args += (release.failure.type, release.failure.text)
    return args


def _upcoming(upcoming: op.Upcoming) -> Sequence[Argument]:
    start = upcoming.start
    if isinstance(start, Window):
        return (upcoming.limit, "w", _or_empty(start.offset_us), _or_empty(start.duration_us))
    return (upcoming.limit, "c", start.after_us, start.after_id, _or_empty(start.until_us))


def _dead_letters(listed: op.ListDeadLetters) -> Sequence[Argument]:
    cursor = listed.cursor
    return (listed.limit,) if cursor is None else (listed.limit, cursor.after_us, cursor.after_id)


def _discard(discard: op.Discard) -> Sequence[Argument]:
    return [part for letter in discard.letters for part in (letter.id, _or_empty(letter.buried_us))]


def _resend(resend: op.Resend) -> Sequence[Argument]:
    letter = resend.letter
    return (letter.id, _or_empty(letter.buried_us), _due(resend.due), _IF_EXISTS[resend.if_exists])


CALLS: Final[Mapping[type[Operation[Any]], Call[Any]]] = {
    call.kind: call
    for call in (
        _call(op.Open, lambda _: (), replies.nothing),
        _call(op.Post, lambda post: (_letters(post.events),), each_of(replies.POST)),
        _call(op.Cancel, lambda cancel: cancel.ids, each_of(replies.CANCEL)),
        _call(op.ChangeDelay, lambda change: (change.id, _due(After(change.delay_us))), one_of(replies.CHANGE)),
        Call(op.Claim, _claim, lambda claim: replies.claimed(claim.nonce)),
        _call(op.Confirm, lambda confirm: _flat(confirm.receipts), each_of(replies.CONFIRM)),
        _call(op.ConfirmNewest, lambda confirm: (confirm.id,), one_of(replies.CONFIRM)),
        _call(op.GiveBack, _release, one_of(replies.RELEASE)),
        _call(op.Extend, lambda extend: _with_timeouts(extend.extensions), each_of(replies.EXTEND)),
        _call(op.Bury, lambda bury: (*_flat((bury.receipt,)), bury.detail), one_of(replies.BURY)),
        Call(op.Peek, lambda peek: (peek.id,), lambda peek: replies.peeked(peek.id)),
        _call(op.Upcoming, _upcoming, replies.page),
        _call(
            op.Join, lambda join: (join.member.node, join.member.incarnation, join.member.poll_us), one_of(replies.JOIN)
        ),
        _call(op.Leave, lambda leave: (leave.member.node, leave.member.incarnation), replies.truth),
        _call(op.ListDeadLetters, _dead_letters, replies.dead_letter_page),
        _call(op.Resend, _resend, one_of(replies.RESEND)),
        _call(op.Discard, _discard, each_of(replies.DISCARD)),
        _call(op.Inspect, lambda _: (), replies.inspection),
        _call(op.ListBranches, lambda _: (), replies.branches),
    )
}

_IF_EXISTS: Final = {IfExists.REPLACE: "r", IfExists.KEEP: "k", IfExists.ERROR: "e"}


def rows_of(operation: Operation[Any]) -> list[bytes]:
    """What follows the arguments of a post: of each event its id, when it is due, and what is kept of it."""
    if not isinstance(operation, op.Post):
        return []
    return [
        pack_row(utf8(new.event.id), _due(new.due), write_record(new.event, wall=isinstance(new.due, At)))
        for new in operation.events
    ]


def _letters(events: Sequence[NewEvent]) -> str:
    """What to do if they exist: a letter for each, or one for all."""
    first = events[0].if_exists
    for new in events:
        if new.if_exists is not first:
            return "".join([_IF_EXISTS[new.if_exists] for new in events])
    return _IF_EXISTS[first]


def _due(due: Due) -> bytes:
    """A time, or, not above 0, a delay times -1."""
    if isinstance(due, After):
        return b"%d" % -due.delay_us if due.delay_us > 0 else b"0"
    return b"%d" % due.due_us if due.due_us > 0 else b"0"


def _flat(receipts: Sequence[Receipt]) -> list[Argument]:
    return [part for receipt in receipts for part in (receipt.id, receipt.delivery_number, receipt.nonce)]


def _with_timeouts(extensions: Sequence[Extension]) -> list[Argument]:
    return [part for each in extensions for part in (*_flat((each.receipt,)), each.timeout_us)]


def _or_empty(number: int | None) -> Argument:
    return b"" if number is None else number
