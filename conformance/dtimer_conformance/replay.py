"""A history, replayed through the pure state machine: does the backend say what the rules say?

Every reply carries its place in the namespace's history and the store's time (O1), and whether each announcement was
heard (N3). So the machine can be taken through the same operations in the same order at the same times, with no
control over the store's clock and no tolerance for slow machines, and each reply must come out equal.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from dtimer.protocol.operations import Read
from dtimer.protocol.values import Announcement, Applied
from dtimer.semantics import Machine
from dtimer_conformance.history import Record


@frozen
class Difference:
    """The first reply that the rules do not explain."""

    record: Record
    expected: Applied[object]
    before: tuple[Record, ...]

    def __str__(self) -> str:
        """The operation, what was expected and what came, under the history before it."""
        lines = [_line(record) for record in self.before]
        lines += ["", f"then {self.record.operation}", f"expected {self.expected}", f"     got {self.record.reply}"]
        return "\n".join(lines)


def in_order(history: Iterable[Record]) -> list[Record]:
    """A history in the order that its replies claim; a read stands behind the operation whose number it shows."""
    return sorted(
        history,
        key=lambda record: (record.reply.seq, isinstance(record.operation, Read), record.reply.at_us),
    )


def replay(history: Iterable[Record]) -> Difference | None:
    """Take the machine through a history that begins with the namespace; None if every reply comes out equal.

    Raises:
        ValueError: the history has a gap, replies of two epochs, or times that go back: it has no order to replay.
    """
    records = in_order(history)
    if not records:
        return None
    machine = Machine(records[0].reply.epoch)
    for place, record in enumerate(records):
        reply = record.reply
        next_seq = machine.seq + (not isinstance(record.operation, Read))
        if (reply.epoch, reply.seq) != (machine.epoch, next_seq):
            raise ValueError(
                f"operation {next_seq} of epoch {machine.epoch} is missing: {reply.seq} of {reply.epoch} follows"
            )
        if reply.at_us < machine.last_us:
            raise ValueError(f"the store's time went back: {machine.last_us} was given out before {_line(record)}")
        heard = Heard(reply.announced)
        expected = machine.apply(
            record.operation, at_us=reply.at_us, reach=heard, skew_us=reply.skew_us, server=reply.branch
        )
        if expected != reply:
            return Difference(record, expected, tuple(records[:place]))
        machine.check()
    return None


class Heard:
    """Answers, in order, what the store found when it told somebody; one question too many shows as a difference."""

    def __init__(self, announced: tuple[Announcement, ...]) -> None:
        self._left = list(announced)

    def __call__(self, node: str) -> bool:
        return self._left.pop(0).reached if self._left else True


def _line(record: Record) -> str:
    reply = record.reply
    return f"{reply.seq:5} {reply.at_us:17} {record.operation} -> {reply.value}"
