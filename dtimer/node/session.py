"""The way to the backend. Every reply passes here, so what they tell beside their values is seen in one place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from dtimer.errors import (
    BackendError,
    OutcomeUnknown,
    StoreClockLeapt,
    StoreClockStepped,
    StoreLostWrites,
    StoreRestarted,
)
from dtimer.frozen import frozen
from dtimer.limits import REPEAT_WITHIN_US
from dtimer.node.context import TimerContext
from dtimer.node.observers import Observers
from dtimer.node.retry import retrying
from dtimer.node.store_clock import ClockBound
from dtimer.node.store_history import NOTHING, Done, HistoryBreak, StoreHistory
from dtimer.protocol.backend import Runtime, SupportsBranches, SupportsRepeatWithin, TimerBackend
from dtimer.protocol.values import Applied

T = TypeVar("T")

Did: TypeAlias = Callable[[T], Sequence[Done]]
"""What was acknowledged, given the value of a reply."""


@frozen
class SessionReply(Generic[T]):
    """The reply of a repeated call.

    Attributes:
        at_us: the store's time.
        skew_us: by how much that is ahead of its host's clock.
        lost: an earlier try's outcome is unknown.
    """

    value: T
    at_us: int
    skew_us: int
    lost: bool

    def known_outcome(self, operation: str, *traces: T) -> T:
        """The value.

        Args:
            traces: values that an earlier try, whose reply was lost, may itself have brought about.

        Raises:
            OutcomeUnknown: it is one of these, and there was such a try.
        """
        if self.lost and self.value in traces:
            raise OutcomeUnknown(operation, f"the reply was lost, and the repetition found it {self.value}")
        return self.value


def did(operation: str, *ids: str) -> Did[object]:
    """A call of one kind, whatever its reply says."""
    done = ((operation, ids),)
    return lambda _: done


class StoreSession:
    """A backend, watched (rules O1, O2 and T2).

    Attributes:
        clock: where the store's clock stands.
        history: its epoch and newest number.
        repeat_within_us: how long a call is repeated whose caller has not said (rule F1).
        losses: is told after the store was found to have lost writes, or to have no members after a clock reset.
    """

    def __init__(self, backend: TimerBackend, context: TimerContext, history: StoreHistory) -> None:
        self.backend = backend
        self.runtime: Runtime = backend.runtime
        self.clock = ClockBound()
        self.history = history
        self.repeat_within_us = (
            backend.repeat_within_us if isinstance(backend, SupportsRepeatWithin) else REPEAT_WITHIN_US
        )
        self.losses = Observers()
        self._asking = False
        self._reporter = context.reporter
        self._counters = context.counters

    async def once(self, request: Callable[[], Awaitable[Applied[T]]], done: Did[T] | None = None) -> Applied[T]:
        """One call.

        Args:
            done: what was acknowledged, given the reply's value; None for a read.
        """
        mark = self.history.mark()
        sent_us = self.runtime.now_us()
        applied = await request()
        finding = self.history.saw(applied, mark, () if done is None else done(applied.value))
        if finding is not NOTHING:
            self._found(await self._elsewhere() if finding.elsewhere else finding)
        if applied.epoch == self.history.epoch:
            leap_us = self.clock.learn(applied.at_us, self.runtime.now_us(), sent_us=sent_us)
            if leap_us:
                self._counters.clock_leaps += 1
                self._reporter.report(StoreClockLeapt(leap_us))
        return applied

    async def call(
        self,
        request: Callable[[], Awaitable[Applied[T]]],
        done: Did[T] | None = None,
        *,
        repeat_within_us: int | None = None,
    ) -> SessionReply[T]:
        """A call that is repeated as far as that is safe (rule F1)."""
        within_us = self.repeat_within_us if repeat_within_us is None else repeat_within_us
        applied, lost = await retrying(self.runtime, lambda: self.once(request, done), within_us)
        return SessionReply(applied.value, applied.at_us, applied.skew_us, lost)

    async def _elsewhere(self) -> HistoryBreak:
        """Another server answers: what has come along to it (rule O2)?"""
        if self._asking or not isinstance(self.backend, SupportsBranches):
            return NOTHING
        self._asking = True
        try:
            return self.history.compare_branches(await self.backend.branches())
        except BackendError:
            return NOTHING  # the next reply is from there, too
        finally:
            self._asking = False

    def _found(self, finding: HistoryBreak) -> None:
        if finding.lost_writes:
            self._counters.lost_writes += 1
            self.clock.forget()
            self._reporter.report(StoreLostWrites(self.backend.namespace, finding.calls))
            self.losses.notify()
        if finding.clock_reset:
            # Nothing is lost, but a node has no member there any more, and listens under another epoch.
            self.clock.forget()
            self.losses.notify()
        if finding.restarted:
            self._counters.store_restarts += 1
            self.clock.forget()
            report = StoreRestarted(self.backend.namespace, finding.perhaps_lost)
            if finding.perhaps_lost or self._reporter.hooks:
                self._reporter.report(report)
            else:
                self._reporter.warn(str(report))  # no error, for all that is known
        if finding.step_us:
            self._counters.clock_steps += 1
            self._reporter.report(StoreClockStepped(finding.step_us))
