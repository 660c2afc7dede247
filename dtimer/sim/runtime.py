"""Time and chance of the simulated world."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager

from dtimer.protocol.backend import Cancellable, Signal
from dtimer.protocol.values import EventData, NewEvent
from dtimer.runtime import process_name
from dtimer.sim.descent import Descent
from dtimer.sim.overdue import Looks, Overdue
from dtimer.sim.signal import SimSignal
from dtimer.sim.world import World


class SimRuntime:
    """The :class:`dtimer.protocol.Runtime` of a simulator: the same seed and the same calls give the same run.

    Attributes:
        overdue: sees that an event waits in vain.
    """

    def __init__(self, world: World, *, seed: int) -> None:
        self._world = world
        self._looks = Looks()
        self.overdue = Overdue(self._looks, self.now_us, self.call_at)
        self._descent = Descent(lambda: world.clock.moves, self.now_us)
        self._random = random.Random(seed)

    @property
    def simulator(self) -> SimRuntime:
        return self

    def now_us(self) -> int:
        return self._world.clock.now_us

    def call_at(self, when_us: int, callback: Callable[[], None]) -> Cancellable:
        return self._world.clock.call_at(when_us, callback)

    async def sleep(self, duration_us: int, *, within: str | None = None) -> None:
        if within is None:
            await self._world.sleep(duration_us)
        else:
            await self._world.wait(duration_us, within)

    def asleep_until(self, task: asyncio.Task[None]) -> int | None:
        return self._world.asleep.get(task)

    def signal(self, name: str) -> Signal:
        return SimSignal(self._world.work, name)

    def working(self, name: str) -> AbstractContextManager[None]:
        return self._world.work.working(name)

    def executor(self) -> Executor | None:
        """Threads would make each run another one."""
        return None

    def caught(self, error: BaseException) -> None:
        """It is reported, and told to the test if it is for the test."""
        self._world.untold.add(error)

    def tell(self) -> None:
        self._world.tell()

    def posting(self, new: NewEvent) -> None:
        self._descent.posting(new, self.caught)

    def handing(self, event: EventData) -> None:
        self._descent.handing(event, self.caught)

    def on_overdue(self, look: Callable[[], None]) -> Callable[[], None]:
        return self._looks.add(look)

    def process_name(self) -> str:
        return process_name()

    def token(self, num_bytes: int) -> str:
        return self._random.randbytes(num_bytes).hex()

    def draw(self, below: int) -> int:
        return self._random.randrange(below)
