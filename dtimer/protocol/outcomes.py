"""What an operation did: one small enum for each.

Their truth value is the 0 or 1 that the original dtimer answered (rule E6): true when the call did what it asked for.
"""

from __future__ import annotations

from enum import Enum


class _Outcome(Enum):
    """What an operation did; the value is a word for people."""

    def __bool__(self) -> bool:
        return self in _TRUE

    def __int__(self) -> int:
        return int(bool(self))


class PostOutcome(_Outcome):
    """Rule P3."""

    CREATED = "created"
    """No live event had this id."""
    REPLACED = "replaced"
    """A live event had it and is gone; a receipt for it is void."""
    KEPT = "kept"
    """A live event had it and stays; this post changed nothing (`if_exists="keep"`)."""
    CONFLICT = "conflict"
    """A live event had it and stays, with `if_exists="error"`: the caller gets :class:`dtimer.EventExists`."""


class CancelOutcome(_Outcome):
    """Rule E2."""

    CANCELLED = "cancelled"
    """The event was scheduled, and will not be delivered."""
    STOPPED = "stopped"
    """The event was unconfirmed: it will not come again, but a handler may be running for it."""
    NOT_FOUND = "not_found"


class ChangeOutcome(_Outcome):
    """Rule E3."""

    MOVED = "moved"
    UNCONFIRMED = "unconfirmed"
    """The event has been delivered and waits for its confirm; nothing changed."""
    NOT_FOUND = "not_found"


class ConfirmOutcome(_Outcome):
    """Rule E1."""

    CONFIRMED = "confirmed"
    STALE = "stale"
    """The event lives, but this receipt is not for its newest delivery; nothing changed."""
    NOT_FOUND = "not_found"
    """No live event has this id: it has ended, never required a confirm, or never was.
    The operator's form also answers this for an event that is scheduled, since no delivery of it is out."""
    GONE = "gone"
    """The reply to a first attempt was lost, and its repetition found no live event: most likely the first attempt
    confirmed it, else the event has ended otherwise. Only a client answers this, never a store (rule F1)."""


class ReleaseOutcome(_Outcome):
    """Rules E4 and F4."""

    RELEASED = "released"
    EXHAUSTED = "exhausted"
    """The delivery was counted and no retries were left: the event has ended."""
    BURIED = "buried"
    """The payload was refused for the last time: the event is a dead letter."""
    STALE = "stale"
    NOT_FOUND = "not_found"


class ExtendOutcome(_Outcome):
    """Rule E4."""

    EXTENDED = "extended"
    STALE = "stale"
    NOT_FOUND = "not_found"


class BuryOutcome(_Outcome):
    """Rule F4."""

    BURIED = "buried"
    STALE = "stale"
    NOT_FOUND = "not_found"


class ResendOutcome(_Outcome):
    """Rule E5: a dead letter is sent again under the same `if_exists` as a post."""

    CREATED = "created"
    REPLACED = "replaced"
    KEPT = "kept"
    CONFLICT = "conflict"
    NOT_FOUND = "not_found"
    """No dead letter has this id."""
    UNREADABLE = "unreadable"
    """The dead letter is a record that the store could not read; its bytes can only be looked at or discarded."""


class DiscardOutcome(_Outcome):
    """Rule E5."""

    DISCARDED = "discarded"
    NOT_FOUND = "not_found"


class JoinOutcome(_Outcome):
    """Rule N1."""

    JOINED = "joined"
    ALREADY_JOINED = "already_joined"
    """This incarnation is a member already, and its join fenced no other; only its lease was renewed."""
    TOOK_OVER = "took_over"
    """Joined, now or by the call that this one repeats; an earlier incarnation was a member under this node id and is
    fenced now: two processes have one node id, unless the earlier one has crashed within its lease (rule N3).
    """
    FENCED = "fenced"
    """A later incarnation is a member under this node id; nothing changed."""


class ClaimStatus(_Outcome):
    """Rule N1."""

    JOINED = "joined"
    NOT_JOINED = "not_joined"
    """The store does not know the node: it was removed, or the store lost its writes."""
    FENCED = "fenced"
    """Another process has joined under this node id since."""


_TRUE: frozenset[_Outcome] = frozenset(
    {
        PostOutcome.CREATED,
        PostOutcome.REPLACED,
        CancelOutcome.CANCELLED,
        CancelOutcome.STOPPED,
        ChangeOutcome.MOVED,
        ConfirmOutcome.CONFIRMED,
        ConfirmOutcome.GONE,
        ReleaseOutcome.RELEASED,
        ReleaseOutcome.EXHAUSTED,
        ReleaseOutcome.BURIED,
        ExtendOutcome.EXTENDED,
        BuryOutcome.BURIED,
        ResendOutcome.CREATED,
        ResendOutcome.REPLACED,
        DiscardOutcome.DISCARDED,
        JoinOutcome.JOINED,
        JoinOutcome.ALREADY_JOINED,
        JoinOutcome.TOOK_OVER,
        ClaimStatus.JOINED,
    }
)
