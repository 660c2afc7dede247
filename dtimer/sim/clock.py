"""The simulator's clock: integer microseconds since 1970, moved by hand. It runs nothing and waits for nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from heapq import heapify, heappop, heappush
from typing import Final

from dtimer.limits import MILLISECOND_US

COMPACT_ABOVE: Final = 64
"""With more cancelled timers than this, and than living ones, the heap is rebuilt without them (as asyncio does)."""


class VirtualTimer:
    """A callback that is due at `when_us`; runs in the context it was made in, as a loop's timers do."""

    __slots__ = ("_callback", "_clock", "context", "when_us")

    def __init__(self, clock: VirtualClock, when_us: int, callback: Callable[[], None]) -> None:
        self.when_us = when_us
        self.context: Context = copy_context()
        self._clock = clock
        self._callback: Callable[[], None] | None = callback

    @property
    def live(self) -> bool:
        """It has neither run nor been cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Forget the callback; harmless when it has run."""
        if self._callback is not None:
            self._callback = None
            self._clock.forgot_one()

    def run(self) -> None:
        """Call back, unless it was cancelled since it was taken off the clock."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class VirtualClock:
    """Timers in the order of their times, those of one time in the order they were set.

    A timer that lies ahead fires on the next full millisecond, the grain of a real event loop's timers.
    Whether :meth:`take_due` reaches it goes by its own time, so that a timer for the very end of an advance is reached.

    Attributes:
        now_us: the virtual time.
        moves: how often it was moved to something that was waited for; the store gives out microseconds in between.
        on_move: called after each move, before anything happens at the new time.
    """

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us
        self.moves = 0
        self.on_move: Callable[[], None] | None = None
        self._heap: list[tuple[int, int, VirtualTimer]] = []
        self._set = 0
        self._cancelled = 0

    def call_at(self, when_us: int, callback: Callable[[], None]) -> VirtualTimer:
        """Set a timer; one for the past is due at once."""
        timer = VirtualTimer(self, when_us, callback)
        self._set += 1
        heappush(self._heap, (when_us, self._set, timer))
        return timer

    def move(self, to_us: int) -> None:
        """Move to a time that was waited for, if that is ahead; nothing is fired."""
        if to_us > self.now_us:
            self.moves += 1
            self.catch_up(to_us)

    def catch_up(self, now_us: int) -> None:
        """Move to `now_us` if that is ahead, firing nothing: the store gave out the microseconds up to it."""
        if now_us > self.now_us:
            self.now_us = now_us
            if self.on_move is not None:
                self.on_move()

    def next_us(self) -> int | None:
        """The time of the next timer, if there is one."""
        self._drop_cancelled_head()
        return self._heap[0][0] if self._heap else None

    def take_due(self, until_us: int) -> list[VirtualTimer]:
        """Move to the next timer at or before `until_us` and take off all that are due there; empty if there is none.

        The time may end up to a millisecond behind `until_us`, since the timer fires on the grid.
        """
        self._drop_cancelled_head()
        if not self._heap or self._heap[0][0] > until_us:
            return []

        first_us = self._heap[0][0]
        if first_us > self.now_us:
            self.move(-(-first_us // MILLISECOND_US) * MILLISECOND_US)

        due: list[VirtualTimer] = []
        while self._heap and self._heap[0][0] <= min(self.now_us, until_us):
            timer = heappop(self._heap)[2]
            if timer.live:
                due.append(timer)
            else:
                self._cancelled -= 1
        return due

    def forget_all(self) -> None:
        """No timer that is set is to fire."""
        for _, _, timer in tuple(self._heap):
            timer.cancel()

    def forgot_one(self) -> None:
        """A timer was cancelled. It leaves the heap later: taking it out at once would cost a search."""
        self._cancelled += 1
        if self._cancelled > max(COMPACT_ABOVE, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if entry[2].live]
            heapify(self._heap)
            self._cancelled = 0

    def _drop_cancelled_head(self) -> None:
        while self._heap and not self._heap[0][2].live:
            heappop(self._heap)
            self._cancelled -= 1
