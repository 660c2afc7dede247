"""The frozen values that cross the boundary between dtimer and a store.

Every time is an integer in microseconds, and its name ends in ``_us``.
A time of day (``at_us``, ``due_us``, ``deadline_us``) counts from 1970 on the store's own clock,
which alone tells the time (rule T1).
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Generic, TypeAlias

from attrs import field, fields
from typing_extensions import TypeVar

from dtimer.frozen import frozen
from dtimer.limits import DELAY_MAX_US, POLL_MAX_US, PULSE_JITTER_US, PULSE_SILENCE_US
from dtimer.protocol.outcomes import ClaimStatus, ConfirmOutcome, ExtendOutcome
from dtimer.safe_repr import printable

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class IfExists(Enum):
    """What a post does when a live event has its id already (rule P3)."""

    REPLACE = "replace"
    KEEP = "keep"
    ERROR = "error"


class EventState(Enum):
    """Where a live event stands."""

    SCHEDULED = "scheduled"
    UNCONFIRMED = "unconfirmed"


class EndReason(Enum):
    """Why an event ended without having been confirmed or cancelled."""

    EXHAUSTED = "exhausted"
    """Its last retry went unconfirmed (rule E5)."""
    EXPIRED = "expired"
    """It could not be delivered before it expired (rule P7)."""
    REFUSED = "refused"
    """Its payload was refused by codecs for too long (rule F4)."""
    BURIED = "buried"
    """A handler buried it (rule F4)."""
    UNREADABLE = "unreadable"
    """The store could not read the record (rule F4)."""


class Release(Enum):
    """How a delivery is given back (rules E4 and F4)."""

    COUNTED = "counted"
    """It counts as an attempt; without retries left the event is exhausted."""
    UNCOUNTED = "uncounted"
    """It does not count as an attempt: the node is leaving, say."""
    FAILED = "failed"
    """It is not given back before its deadline, but the failure is stored as the event's last error."""
    REFUSED = "refused"
    """Uncounted, because the payload could not be decoded; the store says when it comes again, or buries the event."""


class Parked(Enum):
    """Why a ring member is passed over for now; its next claim ends it."""

    FULL = "full"
    SUSPECT = "suspect"
    UNREACHED = "unreached"


@frozen
class After:
    """Due `delay_us` after the store takes the event; 0 or less is at once."""

    delay_us: int


@frozen
class At:
    """Due at a time of day; a past one is at once."""

    due_us: int


Due: TypeAlias = After | At


@frozen
class RetryPolicy:
    """When an event whose handler failed comes again: after a fixed or a growing delay, with a cap (rule D3).

    Attributes:
        delay_us: the delay after the first failure.
        factor: each further failure multiplies the delay by it; 1 keeps the delay fixed.
        delay_max_us: the cap.
    """

    delay_us: int
    factor: float = 1.0
    delay_max_us: int = DELAY_MAX_US

    def delay_after(self, num_retries: int) -> int:
        """The delay in us after a failed delivery that had `num_retries` counted ones before it."""
        delay = float(self.delay_us)
        for _ in range(num_retries):
            if self.factor == 1.0 or delay >= self.delay_max_us:
                break
            delay *= self.factor
        return int(min(delay, self.delay_max_us))  # in this order: the product may be infinite


class FieldKind(Enum):
    """The kind of values that a field of an event has besides its default, and so how a store keeps them."""

    WHOLE = "whole"
    """A whole number, not negative."""
    FLAG = "flag"
    """True."""
    RETRY = "retry"
    """A :class:`RetryPolicy`."""


WHOLE, FLAG, RETRY = FieldKind


@frozen
class EventField:
    """What a store must know of a field to keep it.

    Attributes:
        letter: names the field in a record; a letter that was used is not used again.
        default: the value that is not stored.
    """

    name: str
    letter: str
    kind: FieldKind
    default: object


def kept(letter: str, kind: FieldKind, default: T) -> T:
    """A field of an event that stores keep with it."""
    made: T = field(default=default, metadata={"letter": letter, "kind": kind})
    return made


@frozen
class EventData:
    """What was posted under an id. Stores keep all of it and interpret only what their rules name.

    This is the one list of the fields of an event: the Redis backend keeps, and the conformance suite tries, what
    `EVENT_FIELDS` reads off it. What a user gives for them is in :class:`dtimer.posts.PostOptions`.

    Attributes:
        id: 1 to 512 bytes of UTF-8.
        payload: opaque bytes, given back as they are on every delivery (rule P4).
        headers: small opaque bytes beside the payload, at most 1 KiB.
        max_retries: counted deliveries after the first; 0 with `dead_letter` unset is at most once, nothing to confirm.
        confirm_timeout_us: how long a delivery may stay unconfirmed; None leaves it to the claiming node (rule D4).
        expires_after_us: not delivered later than its due time plus this (rule P7).
        dead_letter: becomes a dead letter when it ends without confirm or cancel (rule E5).
        retry: what a node does after a handler failed; opaque to the store.
        max_run_us: for how long a handler may run; None leaves it to the node. Opaque to the store (rule D4).
    """

    id: str
    payload: bytes
    headers: bytes = b""
    max_retries: int = kept("r", WHOLE, 0)
    confirm_timeout_us: int | None = kept("c", WHOLE, None)
    expires_after_us: int | None = kept("x", WHOLE, None)
    dead_letter: bool = kept("k", FLAG, False)
    retry: RetryPolicy | None = kept("p", RETRY, None)
    max_run_us: int | None = kept("m", WHOLE, None)

    @property
    def requires_confirm(self) -> bool:
        """Whether its deliveries must be confirmed."""
        return self.max_retries > 0 or self.dead_letter

    @property
    def num_bytes(self) -> int:
        """Its size for the limits on a call and a reply (rule D5)."""
        return len(self.payload) + len(self.headers)


EVENT_FIELDS: Final = tuple(
    EventField(each.name, each.metadata["letter"], each.metadata["kind"], each.default)
    for each in fields(EventData)
    if each.metadata
)
"""The fields that a store keeps beside id, payload and headers, in their order."""


@frozen
class NewEvent:
    """One item of a post."""

    event: EventData
    due: Due
    if_exists: IfExists = IfExists.REPLACE


@frozen
class Receipt:
    """Names one delivery: needed to confirm, release or extend it (rule E1).

    Attributes:
        delivery_number: which delivery of the event it is, from 1, counted or not.
        nonce: the claim's own random token, so that no delivery of a replaced event has the same receipt.
    """

    id: str
    delivery_number: int
    nonce: str


@frozen
class Extension:
    """Moves a deadline to `timeout_us` after the operation that carries this (rule E4)."""

    receipt: Receipt
    timeout_us: int


@frozen
class Delivery:
    """A delivery of one event to one node.

    Attributes:
        due_us: the time from which the event could be claimed: its due time, or the deadline of the delivery before.
        at_us: when it was claimed; no other delivery has the same microsecond (rule T4).
        num_retries: earlier counted deliveries (rule D2).
        deadline_us: until when no other node is given it; None for an event that requires no confirm.
    """

    event: EventData
    receipt: Receipt
    due_us: int
    at_us: int
    num_retries: int
    deadline_us: int | None


@frozen(kw_only=True)
class EndedEvent:
    """An event that a claim found exhausted or expired, reported to the claiming node alone (rules E5 and P7).

    Attributes:
        delivery_number: of its last delivery; 0 if it had none.
        num_counted: how many of its deliveries counted.
        dead_letter: it is a dead letter now.
    """

    event: EventData
    reason: EndReason
    delivery_number: int
    num_counted: int
    dead_letter: bool


@frozen
class Unreadable:
    """A record that the store could not read; it is a dead letter now, with its bytes (rule F4)."""

    id: str
    raw: bytes


@frozen
class Member:
    """A node at the ring; a later join under the same node id has another incarnation.

    Attributes:
        incarnation: digits, lower-case letters and hyphens, greater as text than those of earlier joins.
        poll_us: the longest time between its claims; after ten times that the store removes it (rule N3).
    """

    node: str
    incarnation: str
    poll_us: int = POLL_MAX_US


@frozen
class Pace:
    """How often nodes claim without an announcement, as insurance against announcements that got lost (rule W1).

    A backend whose announcements cannot get lost may set a slower one.

    Attributes:
        pulse_silence_us: a node makes a fallback claim when it has received no pulse for this time
        pulse_jitter_us: and for a random time up to this one, so that the nodes do not claim together.
        poll_us: the longest time between two claims of a node, which renew its lease.
        stretch_deadlines: a deadline may be moved to when a handler that merely sleeps will wake up, or by as long as
            the handler has run already, since no node of this backend crashes meanwhile (rule D4).
    """

    pulse_silence_us: int = PULSE_SILENCE_US
    pulse_jitter_us: int = PULSE_JITTER_US
    poll_us: int = POLL_MAX_US
    stretch_deadlines: bool = False


@frozen(kw_only=True)
class Claimed:
    """What a claim brought.

    Attributes:
        status: whether the member may claim; if not, nothing was taken.
        confirmed: outcomes of the receipts that the claim carried, in their order.
        extended: outcomes of the extensions that the claim carried, in their order.
        more: the claim stopped at one of its limits although more may be due: claim again.
        come_at_us: when the claiming node, which is armed, is to claim again (rule W4); None if it is not armed.
    """

    status: ClaimStatus
    confirmed: tuple[ConfirmOutcome, ...] = ()
    extended: tuple[ExtendOutcome, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    ended: tuple[EndedEvent, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    more: bool = False
    come_at_us: int | None = None


@frozen(kw_only=True)
class Pending:
    """A live event as `peek` and `upcoming` show it (rules R1 and R2).

    Attributes:
        next_us: its due time, or its deadline when it is unconfirmed.
        num_retries: counted deliveries before the one that is next (scheduled) or out (unconfirmed).
        delivery_number: of its newest delivery; 0 if it has had none.
    """

    event: EventData
    state: EventState
    next_us: int
    num_retries: int
    delivery_number: int


@frozen
class Window:
    """Which part of the queue `upcoming` shows, relative to the store's now; None is open (rule R2)."""

    offset_us: int | None = None
    duration_us: int | None = None


@frozen
class Cursor:
    """Where a page of `upcoming` ended: the last entry's place, and the window's absolute end."""

    after_us: int
    after_id: str
    until_us: int | None


@frozen
class Page:
    """Entries in claim order; `next` is None at the end."""

    items: tuple[Pending, ...]
    next: Cursor | None


@frozen
class Failure:
    """The failure of a delivery as its node reported it: an exception's type and text, each of 1 KiB at most."""

    type: str
    text: str


@frozen(kw_only=True)
class LastError:
    """The last failure of an event.

    Attributes:
        delivery_number: of the delivery that failed, from 1.
        node: the node that had it.
        at_us: when the node reported it, or the deadline that passed.
        failure: what the node reported; None if the delivery was not confirmed in time, and nothing was reported.
    """

    delivery_number: int
    node: str
    at_us: int
    failure: Failure | None

    def __str__(self) -> str:
        """One line for people."""
        what = "not confirmed in time" if self.failure is None else f"{self.failure.type}: {self.failure.text}"
        return printable(f"{what} (delivery {self.delivery_number}, node {self.node})")


@frozen(kw_only=True)
class DeadLetter:
    """An event that ended unconfirmed and was kept.

    Attributes:
        event: None when its record could not be read; `raw` has the bytes then.
        detail: the reason that a handler gave for burying it.
        buried_us: when it was buried; no other letter has the same microsecond (rule T4). Names it, with the id.
        due_us: when it was due: by its post, or the last change of its delay.
        delivery_number: of its last delivery; 0 if it had none.
        num_counted: how many of its deliveries counted.
        last_error: None if no delivery failed, or if the store could not read the error.
    """

    id: str
    event: EventData | None
    raw: bytes
    reason: EndReason
    detail: str
    buried_us: int
    due_us: int
    delivery_number: int
    num_counted: int
    last_error: LastError | None

    @property
    def name(self) -> LetterName:
        return LetterName(self.id, self.buried_us)


@frozen
class LetterName:
    """Names a dead letter (rule E5).

    Attributes:
        buried_us: that of the letter; None names the letter of the id's last burial, as long as it is there.
    """

    id: str
    buried_us: int | None = None


@frozen
class DeadLetterCursor:
    """Where a page of dead letters ended."""

    after_us: int
    after_id: str


@frozen
class DeadLetterPage:
    """Dead letters, oldest first; `next` is None at the end."""

    items: tuple[DeadLetter, ...]
    next: DeadLetterCursor | None


@frozen
class Announcement:
    """An armed node was told when to claim; `reached` is the store's hint whether it received that (rule N3)."""

    node: str
    due_us: int
    reached: bool


@frozen
class Branch:
    """A part of a namespace's history that one server has written (rule O2).

    Attributes:
        server: the name of that server, which changes with each restart and each promotion.
        seq: the sequence number at which it began; later calls of the branch before are not in this history.
    """

    server: str
    seq: int


@frozen
class AcknowledgedCall:
    """A call other than a read that a timer was told is done (rule O2).

    Attributes:
        operation: the method of :class:`dtimer.TimerBackend` that was called.
        ids: of the events that it concerned; for a claim, of those that it took.
        seq: its sequence number in the history of the namespace.
    """

    operation: str
    ids: tuple[str, ...]
    seq: int


@frozen
class Applied(Generic[T_co]):
    """A reply: a value, and its place in the namespace's one history (rule O1).

    Attributes:
        epoch: the namespace's random name, made with it; another one means that the store was emptied.
        seq: counts the operations that may change the namespace; a read shows the current one.
        at_us: the store's time, read once.
        announced: the nodes that were told to claim, in order.
        skew_us: by how much the store's time runs ahead of its host's clock (rule T2).
        branch: the name of the server whose branch of the history this is (rule O2). Empty if the store has no
            branches. One that begins with ``?`` stands for a server that does not tell its name, as long as some
            connection to it lasts.
    """

    epoch: str
    seq: int
    at_us: int
    value: T_co
    announced: tuple[Announcement, ...] = ()
    skew_us: int = 0
    branch: str = ""


@frozen
class Wakeup:
    """An announcement as the node receives it: claim at `due_us` (rule T1: never an interval)."""

    due_us: int
    at_us: int
    seq: int


@frozen
class Pulse:
    """The message to all nodes when one of them made a fallback claim (rule W1)."""

    node: str
    at_us: int
    seq: int


@frozen
class Malformed:
    """A message on a wake-up channel that dtimer did not write; it changes nothing."""

    raw: bytes


Message: TypeAlias = Wakeup | Pulse | Malformed


@frozen
class Arm:
    """The store's record of the node that was told to claim, and of the time.

    Attributes:
        at_us: the later of the due time and the time of the announcement; the grace of W5 is counted from here.
    """

    node: str
    due_us: int
    at_us: int


@frozen
class RingMember:
    """A member as the ring knows it, with the reason for which it is passed over, and when its lease ends."""

    node: str
    incarnation: str
    parked: Parked | None
    expires_us: int


@frozen(kw_only=True)
class Inspection:
    """A namespace at one instant, for people and for checks.

    Attributes:
        live: scheduled and unconfirmed events.
        delivered: live events that have been delivered at least once.
        head_us: when the first live event is due, or past its deadline.
        arm: which node was told to claim, and for when.
        ring: all members in ring order, the parked ones included.
    """

    live: int
    delivered: int
    dead_letters: int
    dead_letters_dropped: int
    head_us: int | None
    arm: Arm | None
    ring: tuple[RingMember, ...]


@frozen(kw_only=True)
class ClockReset:
    """What a reset of the clock did (rule T2).

    Attributes:
        skew_us: by how much the store's time was ahead of its host's clock, and all times were made earlier.
        events: the live events whose times were changed.
        dead_letters: the dead letters whose times were changed.
    """

    skew_us: int
    events: int = 0
    dead_letters: int = 0


@frozen(kw_only=True)
class Durability:
    """How far a post must have got before its caller is answered, beyond the store's own acknowledgement.

    Attributes:
        replicas: how many must have it; on their disks, if `disk` is set.
        disk: the append-only file of the store must have it, on disk.
        within_us: how long to wait for that.
    """

    replicas: int = 0
    disk: bool = False
    within_us: int


class Risk(Enum):
    """How the settings of a store can lose events that it acknowledged, or its clock bring them early."""

    EVICTION = "eviction"
    """It may drop our keys when its memory is full."""
    NO_PERSISTENCE = "no_persistence"
    """It writes nothing to disk."""
    CLOCK = "clock"
    """The namespace's clock is ahead of the store's host's, which was wrong for a while or was set back (rule T2)."""


@frozen
class Finding:
    """Something about the store that puts events at risk; `detail` names it and says what to do."""

    risk: Risk
    detail: str


__all__ = [
    "EVENT_FIELDS",
    "AcknowledgedCall",
    "After",
    "Announcement",
    "Applied",
    "Arm",
    "At",
    "Branch",
    "Claimed",
    "ClockReset",
    "Cursor",
    "DeadLetter",
    "DeadLetterCursor",
    "DeadLetterPage",
    "Delivery",
    "Due",
    "Durability",
    "EndReason",
    "EndedEvent",
    "EventData",
    "EventField",
    "EventState",
    "Extension",
    "Failure",
    "FieldKind",
    "Finding",
    "IfExists",
    "Inspection",
    "LastError",
    "LetterName",
    "Malformed",
    "Member",
    "Message",
    "NewEvent",
    "Pace",
    "Page",
    "Parked",
    "Pending",
    "Pulse",
    "Receipt",
    "Release",
    "RetryPolicy",
    "RingMember",
    "Risk",
    "Unreadable",
    "Wakeup",
    "Window",
]
