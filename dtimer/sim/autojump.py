"""Virtual time that moves by itself: in a block, and only to where somebody or something waits.

Whenever the world is at rest, the clock jumps to its next timer, provided that one of these lies there or beyond:

* the end of somebody's wait for virtual time itself: a sleep, a timeout, a pause of a node;
* the time of the first event of the queue, if it is still to come.

The timers by which idle nodes look by themselves, for ever, are therefore met on the way but lead nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from dtimer.limits import SECOND_US
from dtimer.sim.durations import MICROSECOND
from dtimer.sim.errors import SimMisuse, SimStuck
from dtimer.sim.whereabouts import whereabouts
from dtimer.sim.work import Hold, current_task
from dtimer.sim.world import World

NODES_COME_WITHIN_US = SECOND_US
"""A node goes by its own estimate of the store's time, which lags when many items were given a microsecond each."""


class Autojump:
    """What moves the clock during one block, which belongs to the task that makes this.

    Attributes:
        error: why the block was ended before its time.
    """

    def __init__(self, world: World, head_us: Callable[[], int | None], limit_us: int) -> None:
        """
        Args:
            head_us: the time of the queue's first event, if there is one.
            limit_us: how much virtual time the block may take.
        """
        self.error: BaseException | None = None
        self._world = world
        self._head_us = head_us
        self._limit_us = limit_us
        self._end_us = world.clock.now_us + limit_us
        self._block = Hold(world.work, "the autojump block")
        self._block.task = current_task()
        self._turns = asyncio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Move the clock during the block; raises what ended it."""
        self._world.refuse_within_work("autojump")
        if self._world.turns is not None:
            raise SimMisuse("autojump()", "was called within the block of another one: time jumps already")
        self._world.turns = self._turns
        try:
            async with asyncio.timeout(None) as scope:
                mover = asyncio.get_running_loop().create_task(self._move(scope), name="dtimer: autojump")
                try:
                    yield
                finally:
                    mover.cancel()
                    await asyncio.wait([mover])
        except TimeoutError:
            if self.error is None:
                raise
        finally:
            self._world.turns = None
        if self.error is not None:
            raise self.error
        self._world.tell()

    async def _move(self, scope: asyncio.Timeout) -> None:
        while True:
            try:
                # For one turn only: whoever moves the clock by hand comes in between.
                async with self._turns:
                    await self._turn()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                # Nobody awaits this task: whatever it is, the block raises it.
                if self.error is None:
                    self.error = error
                    scope.reschedule(asyncio.get_running_loop().time())
                if isinstance(error, SimStuck):
                    # The way out of the block may wait for virtual time as well: for handlers that hang, say.
                    self._world.work.give_up()

    async def _turn(self) -> None:
        """Move to the next timer, or wait until something happens that may lead to one."""
        await self._world.settle()
        self._world.tell()
        if self._world.moved_by_hand:
            return
        if self._leads_on():
            await self._jump()
        else:
            await self._until_stirred()

    def _leads_on(self) -> bool:
        """Whether the next timer is on the way to something."""
        next_us = self._world.clock.next_us()
        if next_us is None:
            return False
        if self._world.sleepers:
            return True
        head_us = self._head_us()
        return head_us is not None and next_us <= head_us + NODES_COME_WITHIN_US

    async def _jump(self) -> None:
        next_us = self._world.clock.next_us()
        assert next_us is not None, "there is something to jump to"
        if next_us > self._end_us and self.error is None:
            raise SimStuck(
                f"the autojump block is not over, and {self._limit_us * MICROSECOND} of virtual time is its limit",
                (whereabouts(self._block),),
            )
        await self._world.fire(next_us)

    async def _until_stirred(self) -> None:
        if await self._world.until(lambda: True) or self._world.moved_by_hand or self.error is not None:
            return
        raise SimStuck(
            "virtual time has nothing to move to: nobody sleeps, no event is to come, and nothing has happened for "
            f"{self._world.hang_after_s:g} s of real time",
            (whereabouts(self._block),),
        )
