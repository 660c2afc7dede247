"""The boundary between the rules of scheduling and a store: what a backend must do.

A backend derives from :class:`TimerBackend` and carries out the operations of :mod:`dtimer.protocol.operations`;
the numbers name the rules of ``docs/reference/semantics.md``.
What holds for every operation:

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
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol, runtime_checkable

from dtimer.protocol.operations import Operations, SupportsBranches, SupportsDeadLetters, SupportsInspection
from dtimer.protocol.outcomes import PostOutcome
from dtimer.protocol.values import (
    Applied,
    ClockReset,
    Durability,
    EventData,
    Finding,
    Message,
    NewEvent,
    Pace,
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


class Simulator(Protocol):
    """What a simulator is told of the application's code, as it moves its clock while none of that is under way."""

    def asleep_until(self, task: asyncio.Task[None]) -> int | None:
        """Until when of :meth:`Runtime.now_us` this task waits for time alone; None if it does not, or is not known."""
        ...

    def working(self, name: str) -> AbstractContextManager[None]:
        """Between entry and exit the named piece of work is under way: a simulator holds its clock meanwhile."""
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


class Runtime(Protocol):
    """Time and chance as the backend's world has them, so that a simulator can replace both as a whole.

    A node reads no other clock and rolls no other dice.
    """

    @property
    def simulator(self) -> Simulator | None:
        """None in real time, which goes on by itself."""
        ...

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

    def signal(self, name: str) -> Signal:
        """A new alarm bell; `name` says in errors who waits for it."""
        ...

    def executor(self) -> Executor | None:
        """A new pool of threads for calls that block; None where threads cannot be simulated: the loop makes them."""
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


class TimerBackend(Operations):
    """One namespace on one store.

    An operation comes to :meth:`perform` as a value; the methods by which callers ask for one are inherited.
    """

    @property
    @abstractmethod
    def namespace(self) -> str: ...

    @property
    @abstractmethod
    def runtime(self) -> Runtime: ...

    @property
    @abstractmethod
    def pace(self) -> Pace:
        """How often nodes look without having been told (W1): ``Pace()``, unless announcements cannot get lost."""

    @abstractmethod
    async def close(self) -> None:
        """Give back connections and whatever else the backend opened. Idempotent."""

    @abstractmethod
    def wakeups(self, node: str, epoch: str) -> AbstractAsyncContextManager[AsyncIterator[Message]]:
        """Hear announcements to `node` and the pulses of all, from entry on, until it is left.

        What was said while there was no listener is lost. The iterator raises :class:`dtimer.BackendError`
        as soon as it knows that it hears nothing any more; it never waits without end on a connection that broke.
        """


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


class OperationMethods(TimerBackend, SupportsDeadLetters, SupportsInspection, SupportsBranches):
    """A backend that carries out every operation there is."""

    async def post_durably(
        self, events: Sequence[NewEvent], durability: Durability
    ) -> Applied[tuple[PostOutcome, ...]]:
        """As :meth:`post`, unless there are other copies to wait for."""
        return await self.post(events)


__all__ = [
    "Cancellable",
    "OperationMethods",
    "Runtime",
    "Signal",
    "SupportsBranches",
    "SupportsClockReset",
    "SupportsDeadLetters",
    "SupportsDurability",
    "SupportsExamination",
    "SupportsInspection",
    "SupportsPartitions",
    "SupportsPurge",
    "SupportsRepeatWithin",
    "TimerBackend",
]
