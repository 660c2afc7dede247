"""Every error of dtimer, split by whose fault it is and by what is known about the outcome.

* Yours: :class:`InvalidArgument` and its kin, raised at the caller; nothing was done.
* The store's: :class:`BackendError`, which names the operation and says whether it may have been applied.
* Reports: problems that a node meets on its own. The ``error`` handlers get them, or the log; no caller does.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from typing_extensions import override

from dtimer.protocol.operations import REPEATS, SAFE
from dtimer.protocol.outcomes import ConfirmOutcome
from dtimer.protocol.values import AcknowledgedCall, Unreadable
from dtimer.safe_repr import printable

SHOWN_CALLS: Final = 10
"""Of those that are lost, in the text of a report."""


class DTimerError(Exception):
    """The base of all errors of dtimer."""


# --- yours ------------------------------------------------------------------------------------------


class InvalidArgument(DTimerError, ValueError):
    """An argument was refused before any I/O.

    Attributes:
        argument: its name.
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument} {problem}")
        self.argument = argument
        self.problem = problem


class PayloadNotEncodable(InvalidArgument):
    """The codec could not encode the payload; the guide "Use your own codec" has one for other types."""


class PayloadTooLarge(InvalidArgument):
    """The encoded payload is over the limit (rule P6)."""


class PayloadNotDecodable(DTimerError):
    """The codec refused the payload of an event that was looked at; the original error is the cause.

    Attributes:
        payload: the bytes; of a dead letter whose record could not be read they are the record's.
    """

    def __init__(self, id: str, payload: bytes, problem: str) -> None:
        super().__init__(f"the payload of event {id!r} cannot be decoded: {problem}")
        self.id = id
        self.payload = payload


class EventExists(DTimerError):
    """``if_exists="error"``, and a live event has this id; nothing changed (rule P3)."""

    def __init__(self, id: str) -> None:
        super().__init__(f"a live event has the id {id!r} already")
        self.id = id


class ConfirmNotRequired(DTimerError):
    """The event is at most once: it is gone from the store, so there is nothing to release or extend."""


class WrongProcessOrLoop(DTimerError):
    """An object that serves one event loop of one process was used in another; nothing was sent (rule F8)."""


class Unsupported(DTimerError):
    """The backend lacks an ability that not every backend must have."""


class ConsumerConflict(DTimerError):
    """Handlers and an open ``events()`` iterator cannot share a timer: each event goes to one of them."""


# --- the store's ------------------------------------------------------------------------------------


class Known(Enum):
    """What is known of an operation that failed."""

    NOT_APPLIED = "it was not applied"
    PERHAPS_APPLIED = "it may have been applied"
    APPLIED = "it was applied"


REPEATABLE: Final = frozenset(
    {name for name, repeat in REPEATS.items() if repeat is SAFE} | {"migrate_partitions", "upgrade_namespace"}
)
"""What may be repeated after a lost reply, whatever other clients have done since (rule F1): the operations that are
`SAFE`, and an operator's two, which finish what was begun.
"""


class BackendError(DTimerError):
    """The store, or the way to it, failed.

    Attributes:
        operation: the method of :class:`dtimer.TimerBackend` that failed.
        known: whether it may have been applied.
        safe_to_repeat: whether calling it again can do no harm, whatever other clients have done since.
    """

    known = Known.NOT_APPLIED

    def __init__(self, operation: str, problem: str) -> None:
        self.operation = operation
        self.problem = printable(problem)
        super().__init__(operation, self.problem)

    @property
    def safe_to_repeat(self) -> bool:
        return self.known is Known.NOT_APPLIED or self.operation in REPEATABLE

    @override
    def __str__(self) -> str:
        repeat = "safe" if self.safe_to_repeat else "not safe"
        words = f"{self.operation}: {self.problem}; {self.known.value}; {repeat} to repeat"
        first = REPEATS.get(self.operation)
        if self.known is Known.PERHAPS_APPLIED and first and first is not SAFE:
            words += f": {first}"
        return words


class StoreUnreachable(BackendError):
    """The request was never sent, or not whole."""


class OutcomeUnknown(BackendError):
    """The request was sent and its reply was lost (rule F1)."""

    known = Known.PERHAPS_APPLIED


class NotDurable(BackendError):
    """It was applied, and did not get as far as was asked for in time; it may still, or be lost with the primary."""

    known = Known.APPLIED


class StoreRefused(BackendError):
    """The store answered with an error and applied nothing."""


class StoreFull(StoreRefused):
    """The store has no memory left for what would be added."""


class StoreReadOnly(StoreRefused):
    """The server is a replica."""


class StoreNotWritable(StoreRefused):
    """The server takes no writes for now: too few of its replicas are there, or it cannot write to its disk."""


class StoreBusy(StoreRefused):
    """The server is loading its data, running a long script, or has a clock of another century: try again."""


class StoreDenied(StoreRefused):
    """Authentication or permissions are missing."""


class SchemaMismatch(StoreRefused):
    """The namespace was written by an incompatible version of dtimer; the text says what to upgrade (rule F7)."""


class PartitionsMismatch(StoreRefused):
    """The namespace is kept in another number of partitions, or is being moved into one."""


class StoreCorrupt(StoreRefused):
    """A key of the namespace has a type that dtimer did not give it (rule F5)."""


class BackendClosed(BackendError):
    """The backend was closed."""


# --- reports to the error handlers ------------------------------------------------------------------


class Report(DTimerError):
    """Something a node met on its own."""


class HandlerFailed(Report):
    """A handler raised; the original error is the cause (rule F3)."""

    def __init__(self, id: str, problem: str) -> None:
        super().__init__(f"the handler of event {id!r} {problem}")
        self.id = id


class ConfirmedTooLate(Report):
    """A confirm came after the deadline, when another delivery or a dead letter had taken its place (rule D4).

    The work was done, and is or was done once more elsewhere, or the event was reported as exhausted.

    Attributes:
        outcome: what the confirm was answered.
    """

    def __init__(self, id: str, outcome: ConfirmOutcome) -> None:
        super().__init__(
            f"event {id!r} was confirmed too late: its deadline had passed, and it was given out again or ended; "
            "was the event loop blocked, or the store away? A handler's deadline is extended while it runs"
        )
        self.id = id
        self.outcome = outcome


class PayloadRefused(Report):
    """The codec refused a payload; the original error is the cause (rule F4).

    Attributes:
        payload: the bytes, since an event that requires no confirm exists nowhere else now.
    """

    def __init__(self, id: str, payload: bytes, what_happened: str) -> None:
        super().__init__(f"the payload of event {id!r} cannot be decoded; {what_happened}")
        self.id = id
        self.payload = payload


class RecordUnreadable(Report):
    """The store met a record that dtimer did not write, and set it aside (rule F4)."""

    def __init__(self, record: Unreadable) -> None:
        super().__init__(f"the record of event {record.id!r} cannot be read; its bytes are kept as a dead letter")
        self.record = record


class MalformedWakeup(Report):
    """A message on a wake-up channel was not dtimer's; it changed nothing."""

    def __init__(self, raw: bytes) -> None:
        super().__init__(f"a malformed wake-up was ignored: {raw[:80]!r}")
        self.raw = raw


class NodeFenced(Report):
    """Another process joined under this node's id; this one takes no more events (rule N1)."""


class NodeIdDisputed(Report):
    """The join of this node fenced another one under its id, which the store took for alive (rule N1).

    Two live processes have one id, which is a mistake: each join of one takes the events from the other.
    Or the other has crashed a moment ago, perhaps as this one's predecessor, and then all is well.
    """

    def __init__(self, node: str, name: str) -> None:
        super().__init__(
            f"node {node!r}: this process, {name}, has joined, and another one under the same id, which the store took "
            "for alive, takes no more events. If that one crashed a moment ago, ignore this; "
            "if not, two processes have the same node_id: give each one of its own"
        )


class StoreLostWrites(Report):
    """The store went back in its own history: a restart or failover lost acknowledged writes (rules O1 and O2).

    Attributes:
        calls: those of this timer's that are lost, oldest first: posts are gone, what was confirmed comes again.
            Of calls long ago that are lost, too, the last 4,096 ids are known.
    """

    def __init__(self, namespace: str, calls: tuple[AcknowledgedCall, ...] = ()) -> None:
        told = listed(calls) if calls else "none that had an id was this timer's"
        super().__init__(f"namespace {namespace!r} has lost acknowledged writes: {told}")
        self.calls = calls


class StoreRestarted(Report):
    """The store's server was restarted, or another one has taken over from it (rule O2).

    Attributes:
        perhaps_lost: calls of this timer's that were acknowledged before, if the server does not tell whether it has
            lost any: its user may not run INFO. Empty if nothing is lost that was acknowledged to this timer.
    """

    def __init__(self, namespace: str, perhaps_lost: tuple[AcknowledgedCall, ...] = ()) -> None:
        words = "nothing is lost that was acknowledged to this timer"
        if perhaps_lost:
            words = f"INFO is denied, so whether these are lost is not known: {listed(perhaps_lost)}"
        super().__init__(f"the server of namespace {namespace!r} was restarted, or another one has taken over; {words}")
        self.perhaps_lost = perhaps_lost


def listed(calls: tuple[AcknowledgedCall, ...]) -> str:
    """Calls for people: the last few, by operation and id."""
    named = [f"{call.operation} of {id!r}" for call in calls for id in call.ids]
    named += [call.operation for call in calls if not call.ids]
    more = len(named) - SHOWN_CALLS
    return ", ".join(named[-SHOWN_CALLS:]) + (f" and {more} more of this timer's" if more > 0 else "")


class StoreClockLeapt(Report):
    """The store's clock has leapt ahead; what came due by it is delivered (rule T2).

    The leap is measured by this process's monotonic clock, which stands still while the host is suspended.

    Attributes:
        leap_us: by how much, at least.
    """

    def __init__(self, leap_us: int) -> None:
        super().__init__(
            f"the store's clock leapt ahead by {leap_us / 1e6:.3f} s, unless this host was suspended for so long; "
            "what is due by it is delivered"
        )
        self.leap_us = leap_us


class StoreClockStepped(Report):
    """The clock of the store's host was set back; the store's time goes on (rule T2)."""

    def __init__(self, step_us: int) -> None:
        super().__init__(
            f"the clock of the store's host was set back by {step_us / 1e6:.3f} s; if it had been ahead for a while, "
            "`dtimer clock-reset` puts right what was posted with at= before"
        )
        self.step_us = step_us


class NodeStopped(Report):
    """The node takes no more events although it was not told to leave; the cause, if any, says why (rule N4).

    Its task was cancelled, its backend was closed, or the program is being ended. `join` starts it again.
    """


class LoopBlocked(Report):
    """The event loop did not go round for a while: a handler, or other code, did not await (rule N4).

    Attributes:
        blocked_s: for how long, at least.
    """

    def __init__(self, blocked_us: int, by: str) -> None:
        super().__init__(
            f"the event loop was blocked for {blocked_us / 1e6:.1f} s {by}; nothing else in it ran meanwhile"
        )
        self.blocked_s = blocked_us / 1e6


class NodeDisturbed(Report):
    """A claim or a subscription failed; the node tries again by itself. The cause says why (rule N4)."""
