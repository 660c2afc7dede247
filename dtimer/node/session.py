"""Every call of a timer to its backend passes here: what replies tell beside their values is checked in one place.

That is whether they belong to one history, and which acknowledged calls are lost (rules O1, O2 and T2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

from dtimer.epochs import epoch_after_reset
from dtimer.errors import (
    BackendError,
    OutcomeUnknown,
    StoreClockLeapt,
    StoreClockStepped,
    StoreLostWrites,
    StoreRestarted,
)
from dtimer.frozen import frozen
from dtimer.limits import BRANCHES_MAX, CALLS_REMEMBERED_MAX, REPEAT_WITHIN_US
from dtimer.node.context import TimerContext
from dtimer.node.observers import Observers
from dtimer.node.retry import retrying
from dtimer.node.store_clock import ClockBound
from dtimer.protocol.backend import Runtime, SupportsBranches, SupportsDurability, SupportsRepeatWithin, TimerBackend
from dtimer.protocol.outcomes import CancelOutcome, PostOutcome
from dtimer.protocol.values import AcknowledgedCall, Applied, Branch, Durability, NewEvent

T = TypeVar("T")

Done: TypeAlias = tuple[str, Sequence[str]]
"""A call: its operation, and the ids that it concerned."""
Did: TypeAlias = Callable[[T], Sequence[Done]]
"""Gives the calls that a reply acknowledges, from its value."""


@frozen
class HistoryMark:
    """What was known when a request was sent; its reply must not show an older state."""

    seq: int
    breaks: int


@frozen
class HistoryBreak:
    """What a reply showed of the store's history.

    Attributes:
        lost_writes: the store has gone back, or is another one.
        clock_reset: an operator has reset the store's clock; nothing is lost.
        calls: this timer's calls that are lost.
        step_us: by how much the clock of the store's host was set back since the last reply.
        elsewhere: the reply is from a branch that is not known: the branches must be asked for
            (:meth:`StoreHistory.compare_branches`).
        restarted: another server answers, and as far as is known nothing is lost.
        perhaps_lost: this timer's calls of which the server does not tell.
    """

    lost_writes: bool = False
    clock_reset: bool = False
    calls: tuple[AcknowledgedCall, ...] = ()
    step_us: int = 0
    elsewhere: bool = False
    restarted: bool = False
    perhaps_lost: tuple[AcknowledgedCall, ...] = ()


_Remembered: TypeAlias = tuple[str, int, str, tuple[str, ...]]
"""A call: the server that acknowledged it, the sequence number, operation and ids. Most are never looked at again."""

NOTHING: Final = HistoryBreak()
_ELSEWHERE: Final = HistoryBreak(elsewhere=True)


class StoreHistory:
    """The place of the newest reply in the store's history, and the calls that were acknowledged.

    Attributes:
        epoch: the namespace's; None before the first reply.
        branch: the name of the server whose branch of the history it is; empty if there are none.
        breaks: how often the history was broken.
        skew_us: by how much the store's time is ahead of its host's clock (rule T2).
    """

    def __init__(self) -> None:
        self.epoch: str | None = None
        self.branch = ""
        self.breaks = 0
        self._seq = 0
        self.skew_us = 0
        self._branches: tuple[Branch, ...] = ()
        self._left: set[str] = set()
        self._calls: deque[_Remembered] = deque()
        self._num_ids = 0

    def mark(self) -> HistoryMark:
        """What is known now, before a request is sent."""
        return HistoryMark(self._seq, self.breaks)

    def saw(self, applied: Applied[T], mark: HistoryMark, done: Sequence[Done] = ()) -> HistoryBreak:
        """A reply arrived. Replies may overtake each other, so it is judged by what was known at its request.

        Args:
            done: the calls that it acknowledges; none if it is that of a read.
        """
        if self.epoch is None:
            self._go_on(applied)
        elif applied.epoch != self.epoch and applied.epoch == epoch_after_reset(self.epoch):
            self.breaks += 1
            self.epoch, self.skew_us = applied.epoch, applied.skew_us
            # If another server answers as well, the next reply shows it.
            self._seq = applied.seq if applied.branch == self.branch else 0
            self._remember(applied, done)
            return HistoryBreak(clock_reset=True)
        if applied.epoch != self.epoch:
            if mark.breaks != self.breaks:
                # Sent before the break and answered from the old history: it says nothing about the new one.
                calls = tuple(AcknowledgedCall(operation, tuple(ids), applied.seq) for operation, ids in done)
                return HistoryBreak(lost_writes=True, calls=calls) if calls else NOTHING
            return self._broke(applied, self._forget(_none), done)
        if applied.branch != self.branch:
            self._remember(applied, done)
            return self._elsewhere(applied, went_back=applied.seq < mark.seq and mark.breaks == self.breaks)
        if applied.seq < mark.seq and mark.breaks == self.breaks:
            return self._broke(applied, self._forget(lambda _, seq: seq < applied.seq), done)
        self._remember(applied, done)
        self._seq = max(self._seq, applied.seq)
        if applied.skew_us > self.skew_us:
            step_us, self.skew_us = applied.skew_us - self.skew_us, applied.skew_us
            return HistoryBreak(step_us=step_us)
        return NOTHING

    def compare_branches(self, found: Applied[tuple[Branch, ...]]) -> HistoryBreak:
        """What the branches say about a reply from another server."""
        branches = found.value
        if self.epoch is not None and found.epoch == epoch_after_reset(self.epoch):
            return NOTHING  # the reset is found first, in the next reply
        if found.epoch != self.epoch:
            return self._broke(found, self._forget(_none))
        if not branches or found.branch != branches[-1].server or found.branch == self.branch:
            return NOTHING
        if _place(self._branches, found.branch) is not None:
            # A former server has answered, which is still up.
            return NOTHING
        place = _place(branches, self.branch)
        begins = branches[-1] if place is None else branches[place + 1]
        calls = self._forget(lambda branch, seq: _is_kept(branches, branch, seq))
        if len(branches) == BRANCHES_MAX:
            # The first branch is about to be dropped, so its calls are counted to the second, which has them as well.
            first, second = branches[0].server, branches[1].server
            self._calls = deque((second if call[0] == first else call[0], *call[1:]) for call in self._calls)
        self._branches = branches
        if calls or self._seq > begins.seq:
            return self._broke(found, calls)
        restarted = _process(found.branch) != _process(self.branch)
        self._go_on(found)
        return HistoryBreak(restarted=restarted)

    def _elsewhere(self, applied: Applied[T], *, went_back: bool) -> HistoryBreak:
        """Another server than the newest known one has answered."""
        if _place(self._branches, applied.branch) is not None:
            # The call went to a former server, which acknowledged it too late for the newest one to have it.
            calls = self._forget(lambda branch, seq: _is_kept(self._branches, branch, seq))
            return HistoryBreak(lost_writes=True, calls=calls) if calls else NOTHING
        if not (applied.branch.startswith("?") or self.branch.startswith("?")):
            return _ELSEWHERE
        late = applied.branch in self._left
        calls = self._forget(lambda branch, _: (branch == applied.branch) is not late)
        if not late:
            self._left.add(self.branch)
            if went_back:
                return self._broke(applied, calls)
            self._go_on(applied)
        return HistoryBreak(restarted=bool(calls), perhaps_lost=calls)

    def _broke(
        self, applied: Applied[T], calls: tuple[AcknowledgedCall, ...], done: Sequence[Done] = ()
    ) -> HistoryBreak:
        self.breaks += 1
        self._go_on(applied)
        self._remember(applied, done)
        return HistoryBreak(lost_writes=True, calls=calls)

    def _go_on(self, applied: Applied[T]) -> None:
        """Continue from the place of this reply."""
        self.epoch, self.branch, self._seq = applied.epoch, applied.branch, applied.seq
        self.skew_us = applied.skew_us

    # --- the calls ------------------------------------------------------------------------------------------

    def _remember(self, applied: Applied[T], done: Sequence[Done]) -> None:
        for operation, ids in done:
            self._calls.append((applied.branch, applied.seq, operation, tuple(ids)))
            self._num_ids += max(1, len(ids))
        while self._num_ids > CALLS_REMEMBERED_MAX and len(self._calls) > 1:
            self._num_ids -= max(1, len(self._calls.popleft()[3]))

    def _forget(self, is_kept: Callable[[str, int], bool]) -> tuple[AcknowledgedCall, ...]:
        """Forget the calls that are not kept, and return them."""
        lost = [call for call in self._calls if not is_kept(call[0], call[1])]
        self._calls = deque(call for call in self._calls if is_kept(call[0], call[1]))
        self._num_ids = sum(max(1, len(ids)) for _, _, _, ids in self._calls)
        return tuple(AcknowledgedCall(operation, ids, seq) for _, seq, operation, ids in lost)


@frozen
class SessionReply(Generic[T]):
    """The reply of a repeated call.

    Attributes:
        at_us: the store's time.
        skew_us: by how much the store's time is ahead of its host's clock.
        lost: the outcome of an earlier attempt is unknown.
    """

    value: T
    at_us: int
    skew_us: int
    lost: bool

    def known_outcome(self, operation: str, *traces: T) -> T:
        """The value.

        Args:
            traces: values that an earlier attempt, whose reply was lost, may have caused.

        Raises:
            OutcomeUnknown: the value is one of these, and there was such an attempt.
        """
        if self.lost and self.value in traces:
            raise OutcomeUnknown(operation, f"the reply was lost, and the repetition found it {self.value}")
        return self.value


def did(operation: str, *ids: str) -> Did[object]:
    """One call with these ids is acknowledged, whatever the value of its reply."""
    done = ((operation, ids),)
    return lambda _: done


class StoreSession:
    """Calls a backend, and finds lost writes, restarts and steps of the clock in its replies (rules O1, O2 and T2).

    Attributes:
        clock: a bound on the store's clock.
        history: the store's epoch, and its newest sequence number.
        repeat_within_us: for how long a call is repeated unless its caller says (rule F1).
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
        """Make one call, without repeating it.

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
        """Make a call, and repeat it as far as that is safe (rule F1)."""
        within_us = self.repeat_within_us if repeat_within_us is None else repeat_within_us
        applied, lost = await retrying(self.runtime, lambda: self.once(request, done), within_us)
        return SessionReply(applied.value, applied.at_us, applied.skew_us, lost)

    async def post(self, events: Sequence[NewEvent]) -> Sequence[PostOutcome]:
        """One call, which a batcher repeats."""
        return (await self.once(lambda: self.backend.post(events), _posted(events))).value

    async def post_durably(
        self, backend: SupportsDurability, durability: Durability, events: Sequence[NewEvent]
    ) -> Sequence[PostOutcome]:
        """One call, which a batcher repeats; the backend is that of the session."""
        return (await self.once(lambda: backend.post_durably(events, durability), _posted(events))).value

    async def cancel(self, ids: Sequence[str]) -> Sequence[CancelOutcome]:
        """One call, which a batcher repeats."""
        return (await self.once(lambda: self.backend.cancel(ids), did("cancel", *ids))).value

    async def _elsewhere(self) -> HistoryBreak:
        """Another server answers: ask which of the acknowledged calls it has (rule O2)."""
        if self._asking or not isinstance(self.backend, SupportsBranches):
            return NOTHING
        self._asking = True
        try:
            return self.history.compare_branches(await self.backend.branches())
        except BackendError:
            return NOTHING  # the next reply is from that server, too
        finally:
            self._asking = False

    def _found(self, finding: HistoryBreak) -> None:
        if finding.lost_writes:
            self._counters.lost_writes += 1
            self.clock.forget()
            self._reporter.report(StoreLostWrites(self.backend.namespace, finding.calls))
            self.losses.notify()
        if finding.clock_reset:
            # Nothing is lost, but the node is not a member any more, and is subscribed under the old epoch.
            self.clock.forget()
            self.losses.notify()
        if finding.restarted:
            self._counters.store_restarts += 1
            self.clock.forget()
            report = StoreRestarted(self.backend.namespace, finding.perhaps_lost)
            if finding.perhaps_lost or self._reporter.hooks:
                self._reporter.report(report)
            else:
                self._reporter.warn(str(report))  # as far as is known, nothing is lost
        if finding.step_us:
            self._counters.clock_steps += 1
            self._reporter.report(StoreClockStepped(finding.step_us))


def _posted(events: Sequence[NewEvent]) -> Did[object]:
    return did("post", *[new.event.id for new in events])


# --- of the history ----------------------------------------------------------------------------------------


def _none(_: str, __: int) -> bool:
    return False


def _place(branches: Sequence[Branch], server: str) -> int | None:
    """The index of the branch of this server, if that branch has ended."""
    return next((place for place, branch in enumerate(branches[:-1]) if branch.server == server), None)


def _is_kept(branches: Sequence[Branch], server: str, seq: int) -> bool:
    """Whether a call that this server has acknowledged under this number is in the history with these branches."""
    if branches[-1].server == server:
        return True
    place = _place(branches, server)
    return place is not None and seq <= branches[place + 1].seq


def _process(server: str) -> str:
    """The part of a server's name that only a restart changes; a promotion of a replica changes the other one."""
    return server.partition("-")[0]
