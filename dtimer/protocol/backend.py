"""The boundary between the rules of scheduling and a store: what a backend must do.

A backend derives from :class:`TimerBackend` and carries out the operations of :mod:`dtimer.protocol.operations`;
the numbers name the rules of ``docs/reference/semantics.md``.
What holds for every operation:

* One call is one atomic operation, applied whole or not at all, validated before anything is written (F5).
* Every reply carries the namespace's epoch, its sequence number and the store's time, read once (O1, T1).
  `open`, `peek`, `upcoming`, `dead_letters`, `inspect` and `branches` show the current number;
  every other call adds one to it, whether or not it changed anything.
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
    """An event with a single waiter. A `set()` without a waiter wakes the next `wait()`."""

    def set(self) -> None: ...

    async def wait(self) -> None:
        """Return as soon as it has been set since the last wait."""
        ...

    def close(self) -> None:
        """The waiter is gone for good."""
        ...


class Simulator(Protocol):
    """What a simulator must know of the application's code: it moves its clock only while none of that code runs."""

    def asleep_until(self, task: asyncio.Task[None]) -> int | None:
        """Until when of :meth:`Runtime.now_us` this task waits for time alone; None if it does not, or is not known."""
        ...

    def working(self, name: str) -> AbstractContextManager[None]:
        """Between entry and exit the named piece of work is under way: a simulator holds its clock meanwhile."""
        ...

    def caught(self, error: BaseException) -> None:
        """Code of the application raised this, and no caller gets it (F3). For a simulator to raise."""
        ...

    def tell(self) -> None:
        """A timer was left: a simulator raises what :meth:`caught` was given, if it is for the test."""
        ...

    def posting(self, new: NewEvent) -> None:
        """The running code posts this event. A simulator may raise: it sees when posts lead to posts without end."""
        ...

    def handing(self, event: EventData) -> None:
        """The running context is about to handle this event, and may post; a simulator may raise, as above."""
        ...

    def on_overdue(self, look: Callable[[], None]) -> Callable[[], None]:
        """Call `look` when a node is to claim although no announcement says so, until the returned function is called.

        In real time nodes look every now and then (W1); a simulator sees when that would find something.
        """
        ...


class Runtime(Protocol):
    """Time and random numbers for a backend's timers, so that a simulator can replace both as a whole.

    A node reads no other clock, and draws from no other generator.
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
        """A new signal; errors name its waiter by `name`."""
        ...

    def executor(self) -> Executor | None:
        """A new pool of threads for calls that block; None where threads cannot be simulated: the loop makes them."""
        ...

    def process_name(self) -> str:
        """The name of the running process for people: its host and process id."""
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
        """How often nodes claim without an announcement (W1): ``Pace()``, unless announcements cannot get lost.

        It may change; a node goes by the new one from the next pulse on.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close connections and everything else that the backend opened. Idempotent."""

    @abstractmethod
    def wakeups(self, node: str, epoch: str) -> AbstractAsyncContextManager[AsyncIterator[Message]]:
        """Receive announcements to `node` and the pulses of all nodes, from entry on until exit.

        Messages that are published without a subscription are lost. The iterator raises :class:`dtimer.BackendError`
        as soon as it knows that its subscription has failed; it never waits without end on a connection that broke.
        """


@runtime_checkable
class SupportsExamination(Protocol):
    """Can check the settings of the store, as opposed to a namespace on it."""

    async def examine(self) -> tuple[Finding, ...]:
        """The settings that put events at risk. Raises :class:`dtimer.StoreDenied` if reading them is not allowed."""
        ...


@runtime_checkable
class SupportsPartitions(Protocol):
    """A namespace in parts, each an independent backend: its own epoch, history, clock, ring and arm.

    All rules hold within a part. An event belongs to the part that :func:`dtimer.protocol.partition_of` names.
    """

    @property
    def partitions(self) -> Sequence[TimerBackend]:
        """The parts in their order, always of the same number; a namespace in one piece has one."""
        ...


@runtime_checkable
class SupportsDurability(Protocol):
    """Can answer a post only when replicas or the disk have it."""

    async def post_durably(
        self, events: Sequence[NewEvent], durability: Durability
    ) -> Applied[tuple[PostOutcome, ...]]:
        """Post as :meth:`TimerBackend.post`, and wait for the durability; other calls do not wait meanwhile.

        Raises:
            NotDurable: the post was applied, but is not known to be durable in time.
        """
        ...


@runtime_checkable
class SupportsRepeatWithin(Protocol):
    """Says for how long a timer repeats its calls; for other backends that is ``REPEAT_WITHIN_US`` (F1)."""

    @property
    def repeat_within_us(self) -> int:
        """The time for calls whose callers do not give one; 0 is one attempt."""
        ...


@runtime_checkable
class SupportsClockReset(Protocol):
    """Can put a namespace's clock right, after its host's clock was set (rule T2)."""

    async def reset_clock(self) -> ClockReset:
        """Take the skew out of the clock and of all stored times, under a new epoch.

        The epoch is that of :func:`dtimer.epochs.epoch_after_reset`, and the number goes on.

        Raises:
            StoreRefused: nodes are joined; the error names them, and nothing was changed.
        """
        ...


@runtime_checkable
class SupportsPurge(Protocol):
    """Can remove a namespace: one that is not used any more, or one of a test."""

    async def purge(self) -> None:
        """Remove every trace of the namespace, its epoch included."""
        ...


class OperationMethods(TimerBackend, SupportsDeadLetters, SupportsInspection, SupportsBranches):
    """A backend that carries out every operation there is."""

    async def post_durably(
        self, events: Sequence[NewEvent], durability: Durability
    ) -> Applied[tuple[PostOutcome, ...]]:
        """Post as :meth:`post` does; a backend with replicas or a disk waits for them."""
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
