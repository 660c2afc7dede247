"""A recorder, judged: its replies are those of the pure machine, in the order they claim, and that order is real."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

from attrs import frozen

from dtimer.protocol.operations import Operation, Read
from dtimer.protocol.values import Applied
from dtimer.semantics import Machine
from dtimer_conformance.explain import brief, explained, line, lines_of
from dtimer_conformance.history import Record
from dtimer_conformance.replay import Difference, Heard, in_order


@frozen
class Violation:
    """What a history breaks.

    Attributes:
        before: the history up to it.
    """

    rule: str
    problem: str
    before: tuple[str, ...]


def check_history(history: Iterable[Record], lost: Sequence[Operation[object]] = ()) -> Violation | None:
    """The first thing in a history, of any number of clients, that the rules do not explain.

    Args:
        lost: operations whose replies were lost. Where a number is missing, one of them may have been applied.
    """
    by_epoch: dict[str, list[Record]] = {}
    for record in history:
        by_epoch.setdefault(record.reply.epoch, []).append(record)
    for epoch, records in by_epoch.items():
        finding = against_real_time(records) or _replayed(epoch, in_order(records), list(lost))
        if finding is not None:
            return finding
    return None


def against_real_time(history: Sequence[Record]) -> Violation | None:
    """O1: what was answered before another was sent comes before it in the history, and in the store's time."""
    newest: Record | None = None
    arrivals = sorted(history, key=lambda record: record.arrived)
    position = 0
    for record in sorted(history, key=lambda record: record.sent):
        while position < len(arrivals) and arrivals[position].arrived < record.sent:
            known = arrivals[position]
            if newest is None or (known.reply.seq, known.reply.at_us) > (newest.reply.seq, newest.reply.at_us):
                newest = known
            position += 1
        if newest is None:
            continue
        step = 0 if isinstance(record.operation, Read) else 1
        pair = (line(newest), line(record))
        if record.reply.seq < newest.reply.seq + step:
            return Violation("O1", "an operation that was sent after another's reply claims a place before it", pair)
        if record.reply.at_us < newest.reply.at_us:
            return Violation("T2", "an operation that was sent after another's reply has an earlier time", pair)
    return None


def _replayed(epoch: str, records: list[Record], lost: list[Operation[object]]) -> Violation | None:
    return _Replay(records, lost).run(Machine(epoch), 0, lost)


@frozen
class _Replay:
    records: list[Record]
    lost: list[Operation[object]]

    def run(self, machine: Machine, place: int, lost: list[Operation[object]]) -> Violation | None:
        """Go on from a place. Where something is missing, try what was lost; the first trouble met is the finding."""
        for index in range(place, len(self.records)):
            record = self.records[index]
            if record.reply.seq != machine.seq + (not isinstance(record.operation, Read)):
                return self._gap(machine, index, lost)
            finding = self._step(machine, index)
            if finding is not None:
                return finding
        return None

    def _step(self, machine: Machine, index: int) -> Violation | None:
        record = self.records[index]
        reply = record.reply
        if reply.at_us < machine.last_us:
            problem = f"the store's time went back: {machine.last_us} was given out before\n{line(record)}"
            return Violation("T2", problem, lines_of(self.records[:index]))
        expected: Applied[object] = machine.apply(
            record.operation,
            at_us=reply.at_us,
            reach=Heard(reply.announced),
            skew_us=reply.skew_us,
            server=reply.branch,
        )
        if expected != reply:
            rule, problem = explained(Difference(record, expected, ()))
            return Violation(rule, problem, lines_of(self.records[:index]))
        return None

    def _gap(self, machine: Machine, index: int, lost: list[Operation[object]]) -> Violation | None:
        reply = self.records[index].reply
        next_us, skew_us, server = reply.at_us, reply.skew_us, reply.branch
        for chosen, operation in enumerate(lost):
            rest = lost[:chosen] + lost[chosen + 1 :]
            for at_us in sorted({machine.last_us, max(next_us, machine.last_us)}):
                for heard in (_none_reached, _all_reached):
                    tried = copy.deepcopy(machine)
                    tried.apply(operation, at_us=at_us, reach=heard, skew_us=skew_us, server=server)
                    if self.run(tried, index, rest) is None:
                        return None
        record = self.records[index]
        wanted = machine.seq + (not isinstance(record.operation, Read))
        problem = (
            f"the operation with number {wanted} is missing, or two have one number; what follows is\n{line(record)}"
        )
        if lost:
            problem += "\nnone of the operations whose replies were lost explains it:\n  " + "\n  ".join(
                map(brief, lost)
            )
        return Violation("O1", problem, lines_of(self.records[:index]))


def _none_reached(_: str) -> bool:
    return False


def _all_reached(_: str) -> bool:
    return True
