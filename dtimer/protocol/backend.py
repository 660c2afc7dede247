"""The boundary between the rules of scheduling and a store: what a backend must do, method by method.

Whoever writes a backend implements :class:`TimerBackend`;
the numbers name the rules of ``docs/reference/semantics.md``.
What holds for every method:

* One call is one atomic operation, applied whole or not at all, validated before anything is written (F5).
* Every reply carries the namespace's epoch, its sequence number and the store's time, read once (O1, T1).
  `open`, `peek`, `upcoming`, `dead_letters`, `inspect` and `branches` show the current number;
  every other call adds one to it, whatever it did.
* After every operation, if anything is queued and a member is eligible, one is armed for no later than
  the head's time (W2).
* What fails raises a :class:`dtimer.BackendError` that says whether it may have been applied.
  No method resends on its own (F1).
* Any event loop, thread or process may call. A backend that cannot serve a second one
  raises :class:`dtimer.WrongProcessOrLoop` there, before anything is sent (F8).
* Arguments arrive valid: within the limits of :mod:`dtimer.limits`, lists not empty and, like the room of a claim,
  not larger than ``BATCH_MAX_ITEMS``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol, runtime_checkable

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
    ClockReset,
    Cursor,
    DeadLetterCursor,
    DeadLetterPage,
    Due,
    Durability,
    EventData,
    Extension,
    Failure,
    Finding,
    IfExists,
    Inspection,
    LetterName,
    Member,
    Message,
    NewEvent,
    Pace,
    Page,
    Pending,
    Receipt,
    Release,
    Window,
)


class Cancellable(Protocol):
    """A callback that is due."""

    def cancel(self) -> None:
        """Forget it; harmless when it has run."""
        ...


class Signal(Protocol):
    """An alarm bell for one waiter. Rung while nobody waits, it is heard at the next wait."""

    def set(self) -> None: ...

    async def wait(self) -> None:
        """Return as soon as it has been rung since the last wait."""
        ...

    def close(self) -> None:
        """The waiter is gone for good."""
        ...


class Runtime(Protocol):
    """Time and chance as the backend's world has them, so that a simulator can replace both as a whole.

    A node reads no other clock and rolls no other dice.
    """

    def now_us(self) -> int:
        """A monotonic clock; it has nothing to do with the time of day."""
        ...

    def call_at(self, when_us: int, callback: Callable[[], None]) -> Cancellable:
        """Call back on the loop at `when_us` of :meth:`now_us`, or as soon after as the loop can."""
        ...

    async def sleep(self, duration_us: int, *, within: str | None = None) -> None:
        """Wait.

        Args:
            within: the call of the application that waits here for its handlers, if one does.
                A simulator says so when nothing moves its clock meanwhile.
        """
        ...

    def asleep_until(self, task: asyncio.Task[None]) -> int | None:
        """Until when of :meth:`now_us` this task waits for nothing but time; None if it does not, or none can know."""
        ...

    def signal(self, name: str) -> Signal:
        """A new alarm bell; `name` says in errors who waits for it."""
        ...

    def working(self, name: str) -> AbstractContextManager[None]:
        """Between entry and exit the named piece of work is under way: a simulator holds its clock meanwhile."""
        ...

    def executor(self) -> Executor | None:
        """A new pool of threads for calls that block; None where threads cannot be simulated: the loop makes them."""
        ...

    def caught(self, error: BaseException) -> None:
        """Code of the application raised this where no caller hears of it (F3). For a simulator to tell the test."""
        ...

    def tell(self) -> None:
        """A timer was left: where a simulator raises what it was told by :meth:`caught`, if it is for the test."""
        ...

    def posting(self, new: NewEvent) -> None:
        """The running code posts this. A simulator may raise, since it sees when posts lead to posts without end."""
        ...

    def handing(self, event: EventData) -> None:
        """The running context is about to handle this, and may post; a simulator may raise, as above."""
        ...

    def process_name(self) -> str:
        """By which people know the running process: its host and number."""
        ...

    def token(self, num_bytes: int) -> str:
        """Fresh random bytes, as lower-case hex."""
        ...

    def draw(self, below: int) -> int:
        """A random integer from 0 up to, not including, `below`."""
        ...


class TimerBackend(Protocol):
    """One namespace on one store."""

    @property
    def namespace(self) -> str: ...

    @property
    def runtime(self) -> Runtime: ...

    @property
    def pace(self) -> Pace:
        """How often nodes look without having been told (W1): ``Pace()``, unless announcements cannot get lost."""
        ...

    async def open(self) -> Applied[None]:
        """Reach the store, check that its schema is ours (F7), and learn the epoch; a new namespace is made."""
        ...

    async def close(self) -> None:
        """Give back connections and whatever else the backend opened. Idempotent."""
        ...

    async def post(self, events: Sequence[NewEvent]) -> Applied[tuple[PostOutcome, ...]]:
        """Schedule events, in list order, each with a microsecond of its own (T4, T5, P1 to P5).

        Afterwards exactly one event has each id, which `if_exists` may have left as it was (P3).
        """
        ...

    async def cancel(self, ids: Sequence[str]) -> Applied[tuple[CancelOutcome, ...]]:
        """End events in any live state; no later claim gives them out (E2)."""
        ...

    async def change_delay(self, id: str, *, delay_us: int) -> Applied[ChangeOutcome]:
        """Move a scheduled event to now + delay; anything else is left alone and named (E3)."""
        ...

    async def claim(
        self,
        member: Member,
        *,
        room: int,
        confirm_timeout_us: int,
        nonce: str,
        confirming: Sequence[Receipt] = (),
        extending: Sequence[Extension] = (),
        pulse: bool = False,
    ) -> Applied[Claimed]:
        """Confirm what is finished, extend what is at work, then take what is due, in claim order, at most `room`
        (D1 to D6, E1, E4, E5, P7, T3, T4).

        A non-member or a fenced one takes nothing, and is told so (N1);
        it confirms and extends all the same, for a receipt alone says who is in charge of a delivery.
        A claim unparks its member, is its sign of life, suspects the armed node that did not come (W5),
        parks its member again when no room is left (D8), moves it to the ring's end when it took something (W4),
        and re-arms.
        `nonce` becomes part of every receipt of this claim. `pulse` tells all nodes that somebody looked (W1).
        """
        ...

    async def confirm(self, receipts: Sequence[Receipt]) -> Applied[tuple[ConfirmOutcome, ...]]:
        """End unconfirmed events by their newest receipts, also past the deadline; an old one changes nothing (E1)."""
        ...

    async def confirm_newest(self, id: str) -> Applied[ConfirmOutcome]:
        """End an unconfirmed event whoever holds its receipt: the operator's form (E1)."""
        ...

    async def release(
        self, receipt: Receipt, *, how: Release, delay_us: int, failure: Failure | None = None, refused_for_us: int = 0
    ) -> Applied[ReleaseOutcome]:
        """Give a delivery back, due after a delay (E4). `failure` is kept as the event's last error (E5).

        Of a refusal the store decides the delay (F4): none, while the refusals are fewer than the members of the ring.
        It buries the event if the first one was `refused_for_us` ago or more.
        """
        ...

    async def extend(self, extensions: Sequence[Extension]) -> Applied[tuple[ExtendOutcome, ...]]:
        """Move deadlines of deliveries, each to now + its timeout, in list order (E4, T4)."""
        ...

    async def bury(self, receipt: Receipt, *, detail: str) -> Applied[BuryOutcome]:
        """Make a dead letter of an unconfirmed event (F4)."""
        ...

    async def peek(self, id: str) -> Applied[Pending | None]:
        """A live event as it stands, or None (R1)."""
        ...

    async def upcoming(self, start: Window | Cursor, *, limit: int) -> Applied[Page]:
        """One page of live events in claim order, all of one instant; at most ``PAGE_MAX_ITEMS`` (R2)."""
        ...

    async def join(self, member: Member) -> Applied[JoinOutcome]:
        """Put a member at the ring's end, fencing an earlier incarnation; it is itself fenced by a later one (N1).

        `TOOK_OVER` tells that the earlier one was alive, for two processes may have one node id.
        """
        ...

    async def leave(self, member: Member) -> Applied[bool]:
        """Take a member out and hand its arm over (N1); False if this incarnation was not there."""
        ...

    def wakeups(self, node: str, epoch: str) -> AbstractAsyncContextManager[AsyncIterator[Message]]:
        """Hear announcements to `node` and the pulses of all, from entry on, until it is left.

        What was said while nobody listened is lost. The iterator raises :class:`dtimer.BackendError`
        as soon as it knows that it hears nothing any more; it never waits for ever on a connection that broke.
        """
        ...


@runtime_checkable
class SupportsDeadLetters(Protocol):
    """What an operator does with dead letters (E5)."""

    async def dead_letters(self, cursor: DeadLetterCursor | None, *, limit: int) -> Applied[DeadLetterPage]:
        """One page of dead letters, oldest first."""
        ...

    async def resend(self, letter: LetterName, *, due: Due, if_exists: IfExists) -> Applied[ResendOutcome]:
        """Post a dead letter again, as new; it is kept when `if_exists` leaves another event in place."""
        ...

    async def discard(self, letters: Sequence[LetterName]) -> Applied[tuple[DiscardOutcome, ...]]:
        """Forget dead letters."""
        ...


@runtime_checkable
class SupportsInspection(Protocol):
    """A look at the namespace as a whole."""

    async def inspect(self) -> Applied[Inspection]: ...


@runtime_checkable
class SupportsBranches(Protocol):
    """Telling by which servers a namespace's history was made, so that no lost call goes untold (rule O2).

    Each reply names the branch that it belongs to; that of a store which never loses anything may be without one.
    """

    async def branches(self) -> Applied[tuple[Branch, ...]]:
        """The last ``BRANCHES_MAX`` branches, the newest last: that of the server which answers. A read."""
        ...


@runtime_checkable
class SupportsExamination(Protocol):
    """A look at the settings of the store, rather than at a namespace on it."""

    async def examine(self) -> tuple[Finding, ...]:
        """What in them puts events at risk. Raises :class:`dtimer.StoreDenied` if we may not look."""
        ...


@runtime_checkable
class SupportsPartitions(Protocol):
    """A namespace in parts, each an independent backend: its own epoch, history, clock, ring and arm.

    All rules hold within a part. An event belongs to the part that :func:`dtimer.protocol.partition_of` names.
    """

    @property
    def partitions(self) -> Sequence[TimerBackend]:
        """In their order, and always the same number of them; a namespace in one piece has one."""
        ...


@runtime_checkable
class SupportsDurability(Protocol):
    """Answering a post when it is safe from more than the crash of its caller."""

    async def post_durably(
        self, events: Sequence[NewEvent], durability: Durability
    ) -> Applied[tuple[PostOutcome, ...]]:
        """As :meth:`TimerBackend.post`, and wait; nobody else waits for that.

        Raises:
            NotDurable: it was applied, but is not known to have got so far in time.
        """
        ...


@runtime_checkable
class SupportsRepeatWithin(Protocol):
    """A backend that says how long a timer repeats its calls; without it that is ``REPEAT_WITHIN_US`` (F1)."""

    @property
    def repeat_within_us(self) -> int:
        """Of the calls whose callers do not say; 0 is one try."""
        ...


@runtime_checkable
class SupportsClockReset(Protocol):
    """Putting a namespace's clock right, after its host's was set (rule T2)."""

    async def reset_clock(self) -> ClockReset:
        """Take the skew out of the clock and of all times that are kept, under a new epoch.

        The epoch is that of :func:`dtimer.epochs.epoch_after_reset`, and the number goes on.

        Raises:
            StoreRefused: nodes are joined; it says which, and nothing was changed.
        """
        ...


@runtime_checkable
class SupportsPurge(Protocol):
    """Removing a namespace: one that is not used any more, or in tests."""

    async def purge(self) -> None:
        """Remove every trace of the namespace, its epoch included."""
        ...
