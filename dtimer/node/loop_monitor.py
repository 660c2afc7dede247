"""Notices an event loop that was blocked, and by which handler if it was one."""

from __future__ import annotations

from dtimer.errors import LoopBlocked
from dtimer.limits import LOOP_BLOCKED_AGAIN_US, LOOP_BLOCKED_US
from dtimer.node.context import TimerContext


class LoopMonitor:
    """Watches the event loop of one timer, by the runtime's clock: in virtual time nothing blocks."""

    def __init__(self, context: TimerContext) -> None:
        self.now_us = context.runtime.now_us
        self._reporter = context.reporter
        self._counters = context.counters
        self._noticed_us = self._quiet_until_us = -1

    def ran(self, since_us: int, label: str, id: str) -> None:
        """A plain function has returned, during which nothing else ran on the loop since `since_us`."""
        took_us = self.now_us() - since_us
        if took_us >= LOOP_BLOCKED_US:
            what = f"by the {label}{id!r}, a plain function: make it await, or let such run in threads"
            self._blocked(took_us, f'{what} (plain_handlers="thread")')

    def rang(self, at_us: int) -> None:
        """An alarm that was set for `at_us` has fired."""
        late_us = self.now_us() - at_us
        # Unless a handler made it late, which was reported just now.
        if late_us >= LOOP_BLOCKED_US and self._noticed_us < at_us:
            self._blocked(late_us, "or more, by code that does not await, or the process was stopped")

    def _blocked(self, blocked_us: int, by: str) -> None:
        self._counters.loop_blocks += 1
        self._noticed_us = now_us = self.now_us()
        if now_us >= self._quiet_until_us:
            self._quiet_until_us = now_us + LOOP_BLOCKED_AGAIN_US
            self._reporter.report(LoopBlocked(blocked_us, by))
