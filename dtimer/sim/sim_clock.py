"""What tests do with virtual time: tell it, move it, wait for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Final

from dtimer import _validation
from dtimer._validation import Delay
from dtimer.errors import InvalidArgument
from dtimer.limits import MILLISECOND_US
from dtimer.sim.autojump import Autojump
from dtimer.sim.durations import MICROSECOND, duration_us
from dtimer.sim.frozen_time import frozen
from dtimer.sim.world import World

AUTOJUMP_LIMIT: Final = timedelta(days=366)
"""A test about more than a year says so; one that goes round and round ends within seconds."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class SimClock:
    """The clock of a :class:`dtimer.SimBackend`, which stands still unless it is moved.

    It is moved by hand, with :meth:`advance`, or by itself in a block of :meth:`autojump`.
    A duration is a `timedelta`, or a number of milliseconds as in `DTimer.post`.
    One that is negative, not finite, no duration at all, or over a hundred years is an InvalidArgument.
    """

    def __init__(self, world: World, head_us: Callable[[], int | None]) -> None:
        self._world = world
        self._head_us = head_us

    @property
    def now(self) -> datetime:
        """The virtual time of day, in UTC."""
        # Not made from a timestamp: a float could not hold the microseconds.
        return EPOCH + self._world.clock.now_us * MICROSECOND

    async def advance(self, duration: Delay) -> None:
        """Let virtual time pass, and return when everything that happens in it has happened and come to rest.

        What is under way is finished first; the duration counts from there.
        The clock may come out up to a millisecond further, the grain of timers.

        Raises:
            SimStuck: time cannot move, because work does not end; says which, and where it hangs.
            SimMisuse: called in a handler (use :meth:`sleep` there), or while time is being moved by hand already.
        """
        await self._world.advance(duration_us("duration", duration))

    async def advance_to(self, at: datetime) -> None:
        """As :meth:`advance`, to the end of the millisecond of a time of day, an aware datetime. Raises as that does.

        (An event that is posted for two hours later is due some microseconds after that.)

        Raises:
            InvalidArgument: it is none, or lies in the past: time never goes back.
        """
        to_us = _validation.instant_us(at)
        if to_us < self._world.clock.now_us:
            raise InvalidArgument("at", f"is {at.isoformat()}, and it is {self.now.isoformat()}: time never goes back")
        await self._world.advance_to(to_us + MILLISECOND_US - 1)

    async def run_until_idle(self) -> None:
        """Return when everything that is to happen now has happened; no time passes. Raises as :meth:`advance` does."""
        await self._world.run_until_idle()

    async def sleep(self, duration: Delay) -> None:
        """Wait for virtual time to pass, in a handler say: while all that a handler does is sleep, time moves on.

        Somebody else must move it: :meth:`advance`, or an :meth:`autojump` block.
        """
        await self._world.sleep(duration_us("duration", duration))

    def timeout(self, duration: Delay) -> AbstractAsyncContextManager[None]:
        """As `asyncio.timeout`, in virtual time: ``async with sim.timeout(…)`` raises a TimeoutError when it is over.

        A handler that does anything but :meth:`sleep` in it holds the clock, and so its own timeout.
        """
        return self._world.timeout(duration_us("duration", duration))

    def working(self, name: str) -> AbstractContextManager[None]:
        """A block during which time stands still: ``with sim.working("the name for errors"):``.

        A handler, and every call of a timer, is in one already.
        In :meth:`autojump` a test needs it around what it does in real time, which the simulator cannot see.
        """
        return self._world.work.working(name)

    def autojump(self, *, limit: Delay = AUTOJUMP_LIMIT) -> AbstractAsyncContextManager[None]:
        """A block in which virtual time moves by itself: ``async with sim.autojump():``.

        Whenever everything is at rest, as at the end of an :meth:`advance`, it jumps to the next moment at which
        anything is to happen: somebody's sleep or timeout is over, or an event comes due or past its deadline.
        It stands still if there is no such moment, however often idle nodes would look by themselves.

        :meth:`advance` and :meth:`run_until_idle` work in the block too; nothing else moves the time meanwhile.

        Args:
            limit: how much virtual time the block may take.

        Raises:
            SimStuck: instead of the block, which is cancelled. Work does not end; or there is nothing to wait for,
                and the block waits; or the limit is reached.
            SimMisuse: called in a handler, or in another such block.
        """
        return Autojump(self._world, self._head_us, duration_us("limit", limit)).running()

    def frozen_time(self) -> AbstractContextManager[None]:
        """A block in which `datetime.now()` and `time.time()` tell the virtual time, everywhere in the process.

        It needs the package freezegun.

        Raises:
            ModuleNotFoundError: that is not installed.
        """
        return frozen(self._world.clock, lambda: self.now)
