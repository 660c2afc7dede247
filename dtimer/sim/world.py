"""The simulated world: its clock, the work under way in it, and the only place where virtual time moves.

Time moves from timer to timer, and only when the world is at rest.
At rest means that no work holds the clock, and that the ordinary tasks of the user have had their turns as well.
It is moved by hand, or by itself in a block of ``autojump.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Any, Final

from dtimer.sim.clock import VirtualClock
from dtimer.sim.errors import SimMisuse, SimStuck
from dtimer.sim.untold import Untold
from dtimer.sim.watchdog import Tick
from dtimer.sim.whereabouts import whereabouts
from dtimer.sim.work import Work, current_task

QUIET_TURNS: Final = 16
"""So many turns of the loop in which no work begins or ends make the world at rest.
A reaction through a queue or a future takes one or two; sixteen leave room for a chain of them."""
SPIN_TURNS: Final = 64
"""Work that ends within so many turns costs no thread to watch over it."""
RESTLESS_TURNS: Final = 1_000_000
"""Work that always causes more work at the same instant is told from much work by this: some seconds of computing."""
TICKS_TO_HANG: Final = 4
"""Real time is counted in so many ticks, each begun by the loop: a call that blocks it is one tick, not a hang."""


class World:
    """Moves virtual time.

    Attributes:
        clock: set timers and read the time here.
        work: tell here what is under way.
        hang_after_s: so much real time without a change is a hang.
        asleep: tasks that wait for nothing but virtual time, and until when.
        sleepers: how many wait for virtual time itself.
        untold: what handlers raised and the test must hear of.
        turns: who moves the clock by itself hands it over here, if anybody does.
    """

    def __init__(self, *, start_us: int, hang_after_s: float, raise_asserts: bool = True) -> None:
        self.untold = Untold(raise_asserts=raise_asserts)
        self.clock = VirtualClock(start_us)
        self.work = Work()
        self.turns: asyncio.Lock | None = None
        self.hang_after_s = hang_after_s
        self.asleep: dict[asyncio.Task[Any], int] = {}
        self.sleepers = 0
        self.enter: Callable[[], None] = _nothing
        """Called where time is moved or waited for: raises if that is in another event loop than it may be."""
        self._mover: str | None = None

    @property
    def moved_by_hand(self) -> bool:
        """Somebody moves the clock, or waits for the turn to do so."""
        return self._mover is not None

    async def advance(self, duration_us: int) -> None:
        """Let all that is under way come to rest, then let this much time pass with everything that happens in it.

        Raises:
            SimStuck: the work under way does not end.
            SimMisuse: called from inside of work, or while the time is being moved already.
            BaseException: what a handler raised for the test.
        """
        async with self._moving("advance"):
            await self.settle()
            self.tell()
            await self._on_to(self.clock.now_us + duration_us)

    async def advance_to(self, to_us: int) -> None:
        """As :meth:`advance`, to a time; one that has passed by the time all has come to rest is reached already."""
        async with self._moving("advance_to"):
            await self.settle()
            self.tell()
            await self._on_to(to_us)

    async def _on_to(self, target_us: int) -> None:
        await self.fire(target_us)
        self.clock.move(target_us)

    async def run_until_idle(self) -> None:
        """Let all that is under way come to rest, with the timers that are due already; raises like :meth:`advance`."""
        async with self._moving("run_until_idle"):
            await self.settle()
            self.tell()
            await self.fire(self.clock.now_us)

    async def sleep(self, duration_us: int) -> None:
        """Wait for virtual time; the work that the caller is part of does not hold the clock meanwhile."""
        if duration_us <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        suspension = self.work.suspend_current()
        task = current_task()
        if task is not None:
            self.asleep[task] = self.clock.now_us + duration_us

        def wake() -> None:
            # Here, not when the sleeper runs again: by then the clock might have moved on.
            suspension.end()
            if task is not None:
                self.asleep.pop(task, None)
            if not woken.done():
                woken.set_result(None)

        try:
            with self._alarm(duration_us, wake):
                await woken
        finally:
            suspension.end()
            if task is not None:
                self.asleep.pop(task, None)

    async def wait(self, duration_us: int, within: str) -> None:
        """As :meth:`sleep`, for a call that waits for handlers.

        Raises:
            SimStuck: nothing moves the clock, and nothing happens, for too long.
        """
        sleeping = asyncio.get_running_loop().create_task(self.sleep(duration_us))
        try:
            spun = idle_ticks = 0
            while not sleeping.done():
                if spun < SPIN_TURNS:
                    spun += 1
                    await asyncio.sleep(0)
                    continue
                changes = self.work.changes
                tick = Tick(self.hang_after_s / TICKS_TO_HANG)
                end = partial(_end, tick)
                sleeping.add_done_callback(end)
                await tick.wait()
                sleeping.remove_done_callback(end)
                moving = self.moved_by_hand or self.turns is not None
                idle_ticks = 0 if moving or self.work.changes != changes else idle_ticks + 1
                if idle_ticks == TICKS_TO_HANG:
                    raise SimStuck(
                        f"{within} waits for what does not end: virtual time is moved neither by advance() nor in an "
                        f"autojump() block, and nothing has happened for {self.hang_after_s:g} s of real time",
                        tuple(whereabouts(hold) for hold in self.work.under_way),
                    )
        finally:
            sleeping.cancel()

    def begin_anew(self) -> None:
        """The event loop was closed: nothing that is under way or waits in it comes to its end any more."""
        self.work.give_up()
        self.clock.forget_all()

    def tell(self) -> None:
        """Raise what the test has yet to hear, unless this is called from inside of work."""
        if self.untold and self.work.of_caller() is None:
            error = self.untold.take()
            assert error is not None, "there is something"
            raise error

    @asynccontextmanager
    async def timeout(self, duration_us: int) -> AsyncGenerator[None]:
        """As `asyncio.timeout`, in virtual time. The block is cancelled, and raises a TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as scope:
            with self._alarm(duration_us, lambda: scope.reschedule(loop.time())):
                yield

    @contextmanager
    def _alarm(self, duration_us: int, callback: Callable[[], None]) -> Generator[None]:
        """Somebody waits in this block, and that long at most."""
        self.enter()
        timer = self.clock.call_at(self.clock.now_us + duration_us, callback)
        self.sleepers += 1
        self.work.stir()
        try:
            yield
        finally:
            self.sleepers -= 1
            timer.cancel()

    def refuse_within_work(self, call: str) -> None:
        """Raises SimMisuse if the caller is part of some work."""
        self.enter()
        own = self.work.of_caller()
        if own is not None:
            raise SimMisuse(
                f"{call}()",
                f"would wait for its own caller, which is part of {own.name}",
                "wait there with sim.sleep()",
            )

    @asynccontextmanager
    async def _moving(self, call: str) -> AsyncGenerator[None]:
        self.refuse_within_work(call)
        if self._mover is not None:
            raise SimMisuse(
                f"{call}()", f"was called while {self._mover}() is under way: only one at a time moves the clock"
            )
        self._mover = call
        self.work.stir()
        try:
            async with self.turns or nullcontext():
                yield
        finally:
            self._mover = None

    async def fire(self, until_us: int) -> None:
        """Let time pass to the last timer until then. The world must be at rest, and is so afterwards."""
        loop = asyncio.get_running_loop()
        while due := self.clock.take_due(until_us):
            for timer in due:
                # The loop runs it, as it runs its own timers: in its context, with errors in its exception handler.
                loop.call_soon(timer.run, context=timer.context)
            await self.settle()
            self.tell()

    async def settle(self) -> None:
        """Return when the world is at rest; raises SimStuck when it does not come to it."""
        loop = asyncio.get_running_loop()
        quiet = spun = 0
        for _ in range(RESTLESS_TURNS):
            if self.work.held and (spun >= SPIN_TURNS or _nothing_ready(loop)):
                await self._until_released()
                spun = 0
            changes = self.work.changes
            await asyncio.sleep(0)
            if self.work.held or self.work.changes != changes:
                quiet = 0
                spun += 1
                continue
            quiet += 1
            if quiet == QUIET_TURNS or _nothing_ready(loop):
                return
        raise SimStuck(
            f"virtual time stands still: work goes on and on at one instant, for {RESTLESS_TURNS} turns of the loop",
            self._pieces(),
        )

    async def _until_released(self) -> None:
        """Return when no work was held for once; raises SimStuck when nothing changes for too long."""
        if not await self.until(lambda: not self.work.held):
            raise SimStuck(
                f"virtual time stands still: this work has not moved for {self.hang_after_s:g} s of real time",
                self._pieces(),
            )

    async def until(self, condition: Callable[[], bool]) -> bool:
        """Whether a change led to the condition; False when nothing has changed for too much real time."""
        idle_ticks = 0
        while idle_ticks < TICKS_TO_HANG:
            changes = self.work.changes
            tick = Tick(self.hang_after_s / TICKS_TO_HANG)
            self.work.on_change = partial(_end_if, condition, tick)
            try:
                reached = await tick.wait()
            finally:
                self.work.on_change = None
            if self.work.changes == changes:
                idle_ticks += 1
            # A change at the very end of a tick ends it no more.
            elif reached or condition():
                return True
            else:
                idle_ticks = 0
        return False

    def _pieces(self) -> tuple[str, ...]:
        return tuple(whereabouts(hold) for hold in self.work.active)


def _nothing() -> None:
    return None


def _end_if(condition: Callable[[], bool], tick: Tick) -> None:
    if condition():
        tick.end()


def _end(tick: Tick, _: object) -> None:
    tick.end()


def _nothing_ready(loop: asyncio.AbstractEventLoop) -> bool:
    """The loop knows of nothing to run, so that further turns would change nothing.

    asyncio's own loops can be asked, though it is not documented; of any other loop we do not know.
    """
    ready = getattr(loop, "_ready", None)
    return ready is not None and not ready
