"""What the clients of a small world know: what was promised to them, and what the next answers are judged by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from attrs import define, field, frozen

from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Branch, DeadLetter, Inspection, LastError, Member, Pending, Window
from dtimer.semantics import Machine
from dtimer.sim.checks.ledger import Dead, Entry

T = TypeVar("T")


@frozen
class View:
    """All that can be seen of a namespace at one instant.

    Attributes:
        branches: of its history; none where no server tells its name (O2).
        seq: the number of the last operation (O1).
        last_us: the last microsecond given out (T4).
    """

    look: Inspection
    pending: dict[str, Pending]
    letters: tuple[DeadLetter, ...]
    branches: tuple[Branch, ...]
    seq: int
    last_us: int

    @classmethod
    def of(cls, machine: Machine, at_us: int, server: str) -> View:
        """Of a machine with a few events, by operations that change nothing."""
        at_us = max(at_us, machine.last_us)

        def seen(read: Operation[T]) -> T:
            return machine.apply(read, at_us=at_us, reach=_unheard, server=server).value

        look = seen(_INSPECT)
        letters = seen(_LETTERS).items if look.dead_letters else ()
        # A name that is not known is shown as the branch that it would begin.
        branches = tuple(branch for branch in seen(_BRANCHES) if branch.seq < machine.seq) if server else ()
        pending = {pending.event.id: pending for pending in seen(_UPCOMING).items}
        return cls(look, pending, letters, branches, machine.seq, machine.last_us)


@frozen
class Refused:
    """The refusals of an event's payload (F4).

    Attributes:
        number: since a member last joined.
        since_us: when the first of all was.
        joins: how many joins there had been by the last one.
    """

    number: int
    since_us: int
    joins: int


@frozen
class LostCall:
    """A call whose client has no reply yet.

    Attributes:
        others: the events and members that were the subject of calls of other clients since, which were told of it.
    """

    operation: Operation[object]
    others: frozenset[str | Member] = frozenset()


@define
class Book:
    """Kept from what was asked and answered.

    Attributes:
        live, dead: the ledger's entries.
        took_over: for each member, whether its join has fenced another (N1).
        buried: when each id was buried last (E5).
        holders: which node was given each event last.
        errors: what went wrong with each event last (E5).
        refused: events whose payload was refused since an attempt last counted.
        joins: how many joins there were.
        lost: the call that has no reply yet.
    """

    live: dict[str, Entry] = field(factory=dict)
    dead: dict[str, tuple[Dead, ...]] = field(factory=dict)
    took_over: dict[Member, bool] = field(factory=dict)
    buried: dict[str, int] = field(factory=dict)
    holders: dict[str, str] = field(factory=dict)
    errors: dict[str, LastError] = field(factory=dict)
    refused: dict[str, Refused] = field(factory=dict)
    joins: int = 0
    lost: LostCall | None = None

    def copy(self) -> Book:
        return Book(
            self.live.copy(),
            self.dead.copy(),
            self.took_over.copy(),
            self.buried.copy(),
            self.holders.copy(),
            self.errors.copy(),
            self.refused.copy(),
            self.joins,
            self.lost,
        )

    def others_did(self, subjects: Iterable[str | Member]) -> None:
        """Another client was told that what it did to these was done."""
        if self.lost is not None:
            self.lost = LostCall(self.lost.operation, self.lost.others.union(subjects))


_INSPECT = op.Inspect()
_UPCOMING = op.Upcoming(Window(), 16)
_BRANCHES = op.ListBranches()
_LETTERS = op.ListDeadLetters(None, 16)


def _unheard(_: str) -> bool:
    return False
