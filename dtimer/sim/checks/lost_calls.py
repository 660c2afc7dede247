"""Each acknowledged call that the store has lost is told to the timer that made it, and no other is (O1, O2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias, cast

from attrs import define, field, frozen
from typing_extensions import override

from dtimer.errors import DTimerError, StoreLostWrites
from dtimer.limits import BRANCHES_MAX, CALLS_REMEMBERED_MAX
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Applied, Claimed
from dtimer.sim.checks.honesty import Recent
from dtimer.sim.checks.violation import Complain
from dtimer.sim.faulty.backend import LinkedBackend
from dtimer.sim.faulty.host import Host
from dtimer.sim.faulty.observer import Observer

_Place: TypeAlias = tuple[str, str, int]
"""Epoch, branch and number: no two operations have the same."""
_MEMBERS: Final = (op.Join, op.Leave)


@frozen
class _Call:
    operation: str
    ids: tuple[str, ...]
    seq: int


@define
class _Calls:
    """Those of one timer: what was acknowledged to it and it has not been told to be lost, with when it was applied."""

    host: Host
    incarnation: int
    acknowledged: deque[tuple[_Call, int]] = field(factory=deque)
    num_ids: int = 0

    def note(self, call: _Call, applied_us: int) -> None:
        self.acknowledged.append((call, applied_us))
        self.num_ids += max(1, len(call.ids))
        while self.num_ids > CALLS_REMEMBERED_MAX and len(self.acknowledged) > 1:
            self.num_ids -= max(1, len(self.acknowledged.popleft()[0].ids))

    def remove(self, entry: tuple[_Call, int]) -> None:
        self.acknowledged.remove(entry)
        self.num_ids -= max(1, len(entry[0].ids))


class LostCalls(Observer):
    """Sees what the store applied and lost, and is told what was acknowledged and reported."""

    def __init__(self, now_us: Callable[[], int], complain: Complain) -> None:
        self._now_us = now_us
        self._complain = complain
        self._applied_us: Recent[_Place] = Recent()
        self._losses: list[tuple[int, int]] = []
        self._branches_began_us: dict[tuple[str, str], int] = {}
        self._calls: dict[str, _Calls] = {}

    # --- what is watched ---------------------------------------------------------------------------------

    @override
    def on_applied(
        self, host: str, number: int, namespace: str, operation: Operation[Any], applied: Applied[Any]
    ) -> None:
        self._branches_began_us.setdefault((applied.epoch, applied.branch), self._now_us())
        if not isinstance(operation, op.Read):
            self._applied_us.note((applied.epoch, applied.branch, applied.seq), self._now_us())

    @override
    def on_rolled_back(self, until_us: int | None) -> None:
        since_us = -1 if until_us is None else until_us
        if any(applied_us > since_us for applied_us in self._applied_us.values()):
            self._losses.append((since_us, self._now_us()))

    # --- what timers are told ------------------------------------------------------------------------------

    def backend(self, host: Host) -> LinkedBackend:
        """One for the only timer of the host's process."""
        calls = self._calls[host.name] = _Calls(host, host.incarnation)
        return host.backend(on_reply=partial(self._acknowledged, calls))

    def told(self, host: str, report: DTimerError) -> None:
        """A report to the `error` handlers of that timer."""
        if not isinstance(report, StoreLostWrites):
            return
        if not self._losses:
            self._complain("O1", host, "", "it was told of lost writes, and none were lost")
        calls = self._calls[host]
        for told in report.calls:
            call = _Call(told.operation, told.ids, told.seq)
            entries = [each for each in calls.acknowledged if each[0] == call]
            entry = next((each for each in entries if self._is_lost(each[1])), None)
            if entry is None and any(self._is_long_past(each[1]) for each in entries):
                continue
            if entry is None:
                self._complain(
                    "O2", host, _first(call.ids), f"it was told that its {_words(call)} is lost, which is not"
                )
            else:
                calls.remove(entry)

    def close(self) -> None:
        """All is well, and each timer has had a reply since."""
        for name, calls in self._calls.items():
            if calls.host.up and calls.host.incarnation == calls.incarnation:
                for call, applied_us in calls.acknowledged:
                    if self._is_lost(applied_us):
                        self._complain("O2", name, _first(call.ids), f"its {_words(call)} is lost, and it was not told")

    def _acknowledged(self, calls: _Calls, operation: Operation[Any], applied: Applied[Any]) -> None:
        if not isinstance(operation, op.Read):
            applied_us = self._applied_us[applied.epoch, applied.branch, applied.seq]
            for name, ids in _done(operation, applied.value):
                calls.note(_Call(name, tuple(ids), applied.seq), applied_us)

    def _is_long_past(self, applied_us: int) -> bool:
        """The store has forgotten by now which branch it is in, so that it may be told to be lost (rule O2)."""
        return sum(began_us > applied_us for began_us in self._branches_began_us.values()) >= BRANCHES_MAX

    def _is_lost(self, applied_us: int) -> bool:
        return any(until_us < applied_us <= at_us for until_us, at_us in self._losses)


def _done(operation: Operation[Any], value: object) -> Sequence[tuple[str, Sequence[str]]]:
    """What a timer has to remember of a call: a claim that brought and confirmed nothing is nothing to miss."""
    if isinstance(operation, op.Claim):
        taken = [delivery.receipt.id for delivery in cast("Claimed", value).deliveries]
        parts = (("confirm", operation.about()), ("claim", taken))
        return [part for part in parts if part[1]]
    return ((operation.method, () if isinstance(operation, _MEMBERS) else operation.about()),)


def _first(ids: Sequence[str]) -> str:
    return ids[0] if ids else ""


def _words(call: _Call) -> str:
    return f"{call.operation} number {call.seq} of {len(call.ids)} ids"
