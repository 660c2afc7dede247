"""A bound on the store's clock, from the replies that arrived here (rule T1). Pure: the local time is an argument.

A reply that carries the store's time `at_us` and arrives at the local time `now_us` proves that the store's clock is at
`at_us` or later by then. Of all such bounds the greatest is the best, and none is ever ahead of the store.
So a node that claims by it is never early, and late by no more than the fastest reply took to arrive.
A clock that is set back breaks this; the next reply shows it, and the bounds are forgotten.
"""

from __future__ import annotations

from dtimer.limits import CLOCK_LEAP_US, CLOCK_WINDOW_US


class ClockBound:
    """The greatest lower bound on (store's clock - local clock) that recent replies gave.

    Bounds are forgotten by halves, since two clocks drift: an old one would come to be ahead of the store.
    """

    def __init__(self) -> None:
        self._window_start_us = 0
        self._current_us: int | None = None
        self._previous_us: int | None = None
        # The least upper bound that the newest reply gave, and when.
        self._most_us: int | None = None
        self._most_since_us = 0

    def learn(self, at_us: int, now_us: int, *, sent_us: int) -> int:
        """A reply with the store's time `at_us` arrived at the local time `now_us`; its request was sent at `sent_us`.

        Returns:
            By how much the store's clock has leapt ahead of the local one since the reply before, at least; mostly 0.
        """
        leap_us = 0
        if self._most_us is not None and now_us - self._most_since_us < CLOCK_WINDOW_US:
            leap_us = at_us - now_us - self._most_us
        self._most_us, self._most_since_us = at_us - sent_us, now_us
        bound_us = self.offset_us()
        if bound_us is not None and bound_us > at_us - sent_us:
            # The store's clock stood at `at_us` after `sent_us`, so it is not that far ahead: it was set back.
            self.forget()
        if self._current_us is None or now_us - self._window_start_us >= CLOCK_WINDOW_US:
            self._window_start_us = now_us
            self._previous_us = self._current_us
            self._current_us = at_us - now_us
        else:
            self._current_us = max(self._current_us, at_us - now_us)
        return leap_us if leap_us >= CLOCK_LEAP_US else 0

    def forget(self) -> None:
        """Forget the bounds: the next reply may come from another clock, of another server or another epoch."""
        self._current_us = self._previous_us = self._most_us = None

    def offset_us(self) -> int | None:
        """The bound; None before the first reply."""
        if self._current_us is None:
            return None
        return self._current_us if self._previous_us is None else max(self._current_us, self._previous_us)

    def local_us(self, store_us: int) -> int | None:
        """The local time at which the store's clock shows `store_us` or more.

        The local clock's resolution of a microsecond does not make it early, since no reply arrives that fast.
        """
        offset_us = self.offset_us()
        return None if offset_us is None else store_us - offset_us

    def store_us(self, now_us: int) -> int | None:
        """A time that the store's clock has reached at the local time `now_us`."""
        offset_us = self.offset_us()
        return None if offset_us is None else now_us + offset_us
