"""Who runs next, and when time moves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from typing import Any, Final

from dtimer.sim.loop.burial import bury
from dtimer.sim.loop.handles import SimHandle, SimTimer
from dtimer.sim.loop.process import Process
from dtimer.sim.loop.stuck import all_wait, goes_on
from dtimer.sim.rng import draw

COMPACT_ABOVE: Final = 64
"""With more cancelled timers than this, and than living ones, the heap is rebuilt without them (as asyncio does)."""


class Schedule:
    """The part of the loop that decides about the order.

    Processes that have something to do at this instant are run in rounds, each until it has nothing left to do. When
    none has, time moves to the next timer.
    """

    def __init__(self, seed: int, steps_max: int) -> None:
        self.seed = seed
        self.now_us = 0
        self._steps_max = steps_max
        self._steps = 0
        self._steps_add_up = False
        self._stopping = False
        self._timers: list[tuple[int, int, SimTimer]] = []
        self._timers_set = 0
        self._timers_cancelled = 0
        self._processes: list[Process] = []
        self._awake: list[Process] = []
        self._round: list[Process] = []
        self._dying: list[Process] = []
        self._hooks_of: Process | None = None

    @property
    def processes(self) -> tuple[Process, ...]:
        """Those that live, in the order in which they were made."""
        return tuple(self._processes)

    def failed(self, handle: SimHandle | SimTimer, error: BaseException) -> None:
        """A callback raised."""
        raise NotImplementedError

    # --- what changes the order -------------------------------------------------------------------------

    def wake(self, process: Process) -> None:
        """A dormant process has something to do."""
        process.dormant = False
        process.listed = True
        self._awake.append(process)

    def timer_cancelled(self) -> None:
        """One that stands in the heap. It leaves it later: taking it out at once would cost a search."""
        self._timers_cancelled += 1
        if self._timers_cancelled > COMPACT_ABOVE and self._timers_cancelled * 2 > len(self._timers):
            self._keep_timers(lambda timer: timer.callback is not None)

    def killed(self, process: Process) -> None:
        """Its timers go now, its coroutines before any other process runs."""
        self._processes.remove(process)
        self._keep_timers(lambda timer: timer.callback is not None and timer.process is not process)
        self._dying.append(process)

    def _keep_timers(self, keep: Callable[[SimTimer], bool]) -> None:
        # In place: `_move_time` may hold the list.
        self._timers[:] = [entry for entry in self._timers if keep(entry[2])]
        heapify(self._timers)
        self._timers_cancelled = 0

    def set_timer(
        self,
        process: Process,
        when_us: int | None,
        callback: Callable[..., object],
        args: tuple[Any, ...] = (),
        context: Context | None = None,
    ) -> SimTimer:
        """Call back in a process; when is in us since the start, and None means never.

        Without a context it is done in the process's own, not in a copy: what the callback sets there stays set.
        """
        process.timers += 1
        if context is None:
            context = process.context
        timer = SimTimer(when_us, callback, args, context, process, process.timers)
        if when_us is not None and process.alive:
            timer.scheduled = True
            self._timers_set += 1
            heappush(self._timers, (when_us if when_us > self.now_us else self.now_us, self._timers_set, timer))
        return timer

    # --- running ----------------------------------------------------------------------------------------

    def _go(self) -> None:
        """Run until `_stopping` is set."""
        while not self._stopping:
            if self._dying:
                self._bury()
            if self._round:
                self._run(self._round.pop())
            elif self._awake:
                self._begin_round()
            elif (alone := self._move_time()) is not None:
                self._run(alone)
        self._bury()

    def _bury(self) -> None:
        while self._dying:
            bury(self._dying.pop(0))

    def _begin_round(self) -> None:
        self._round, self._awake = self._awake, []
        if len(self._round) > 1:
            now_us = self.now_us
            self._round.sort(key=lambda process: draw(process.order_key, now_us), reverse=True)

    def _run(self, process: Process) -> None:
        """Let a process go on until it has nothing left to do."""
        if self._hooks_of is not process:
            self._hooks_of = process
            sys.set_asyncgen_hooks(*process.generator_hooks)
        ready = process.ready
        take = ready.popleft
        steps, steps_max = self._steps, self._steps_max
        try:
            while ready:
                handle = take()
                callback = handle.callback
                if callback is None:
                    continue
                steps += 1
                if steps > steps_max:
                    ready.appendleft(handle)
                    raise goes_on(process, self.now_us, steps_max)
                try:
                    handle.context.run(callback, *handle.arguments)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self.failed(handle, error)
                if self._stopping:
                    break
        finally:
            self._steps = steps
            process.listed = False
            process.dormant = process.alive and not process.paused
            if ready:
                self.wake(process)

    def _move_time(self) -> Process | None:
        """To the next timer. All of that microsecond become ready.

        When it is alone, as nearly always, its process is a round by itself, and is what is returned.
        """
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heappop(timers)
            self._timers_cancelled -= 1
        if not timers:
            raise all_wait(self.processes, self.now_us)
        when_us, _, timer = heappop(timers)
        if when_us > self.now_us:
            self.now_us = when_us
            if not self._steps_add_up:
                self._steps = 0
        if timers and timers[0][0] == when_us:
            self._make_all_ready(when_us, timer)
            return None
        timer.scheduled = False
        process = timer.process
        process.inbox.append(timer)
        if not process.dormant:
            return None
        process.dormant = False
        process.listed = True
        return process

    def _make_all_ready(self, when_us: int, first: SimTimer) -> None:
        timers = self._timers
        due = [first]
        while timers and timers[0][0] == when_us:
            timer = heappop(timers)[2]
            if timer.callback is None:
                self._timers_cancelled -= 1
            else:
                due.append(timer)
        # It matters within each process only. Sorting keeps what is drawn equal in the order in which it was set.
        due.sort(key=lambda timer: draw(timer.process.ties_key, timer.number))
        for timer in due:
            timer.scheduled = False
            process = timer.process
            process.inbox.append(timer)
            if process.dormant:
                self.wake(process)
