"""Sees that an event waits in vain, for nodes that do not look by themselves all the time.

Where no announcement can be lost, a node need not look unless it is told to (rule W1).
What announcements do not tell is that the armed node has ended without leaving, or that another join fenced a node.
The store of a simulator sees both, and has all nodes look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from dtimer.limits import DAY_US, PULSE_SILENCE_US, SECOND_US
from dtimer.protocol.backend import Cancellable
from dtimer.protocol.outcomes import JoinOutcome
from dtimer.protocol.values import Applied

SELDOM_US: Final = 30 * DAY_US
"""How long nodes go without looking where no announcement gets lost: a test of a year costs a dozen looks."""
JITTER_US: Final = SECOND_US
OVERDUE_US: Final = PULSE_SILENCE_US
"""An event that has waited this long is one for which a fallback claim would come."""


class Looks:
    """What to call when the nodes are to look, in the order in which they were made."""

    def __init__(self) -> None:
        self._all: dict[object, Callable[[], None]] = {}

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, look: Callable[[], None]) -> Callable[[], None]:
        """Call this one too, until the returned function is called."""
        key = object()
        self._all[key] = look

        def remove() -> None:
            self._all.pop(key, None)

        return remove

    def clear(self) -> None:
        self._all.clear()

    def notify(self) -> None:
        for look in tuple(self._all.values()):
            look()


class Overdue:
    """Of one namespace."""

    def __init__(
        self,
        looks: Looks,
        now_us: Callable[[], int],
        call_at: Callable[[int, Callable[[], None]], Cancellable],
    ) -> None:
        """
        Args:
            looks: notified when every node is to look.
            now_us: a clock.
            call_at: calls back at a time of that clock.
        """
        self._looks = looks
        self._now_us = now_us
        self._call_at = call_at
        self._head_us: int | None = None
        self._timer: Cancellable | None = None

    def applied(self, applied: Applied[object], head_us: int | None) -> None:
        """The store has applied an operation.

        Args:
            head_us: when the first event of the queue can be claimed, by this clock; None if there is none.
        """
        if not self._looks:
            head_us = None  # no node, and so no timer either: it would be something to wait for
        if head_us != self._head_us:
            self._head_us = head_us
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if head_us is not None:
                self._timer = self._call_at(max(head_us, self._now_us()) + OVERDUE_US, self._looks.notify)
        if applied.value is JoinOutcome.TOOK_OVER:
            self._call_at(self._now_us() + OVERDUE_US, self._looks.notify)

    def forget(self) -> None:
        """The timers are gone, and the nodes with them."""
        self._looks.clear()
        self._head_us = self._timer = None
