"""A small world: the state machine, the clock of its host, and its clients. A move takes it to its next state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from attrs import define, evolve, field

from dtimer.limits import SECOND_US
from dtimer.protocol import operations as op
from dtimer.protocol.operations import SAFE, Operation, Read
from dtimer.protocol.values import (
    After,
    Applied,
    At,
    Claimed,
    Extension,
    NewEvent,
    Receipt,
)
from dtimer.semantics import Machine, StoreClock
from dtimer_conformance.history import Record
from dtimer_conformance.programs import ClaimMore, Leap, Listen, OnDelivery, OnLetter, Serve, Step, Wait
from dtimer_conformance.state_space.book import Book, LostCall, View
from dtimer_conformance.state_space.judge import Judge
from dtimer_conformance.state_space.moves import Alphabet, Lost, Part, Repeated, TimeOfDay

START_US: Final = 1_800_000_000 * SECOND_US
"""What the host's clock shows at first."""
RECEIPTS_MAX: Final = 3
"""Receipts of the newest deliveries are kept, up to this number: moves speak of no others."""


@define
class Recorded:
    """What a path did, as a program for :class:`dtimer_conformance.programs.Runner`, and what the machine answered.

    Attributes:
        program: with the time that begins at :data:`START_US`, and operations as they were made.
        replies: to its operations.
    """

    program: list[Step] = field(factory=list)
    replies: list[Applied[Any]] = field(factory=list)

    def difference(self, history: list[Record]) -> str | None:
        """Where a backend that was taken through the program, from that time on, has answered otherwise.

        Its epoch is its own, and so is the name of its server; all else is equal, times included. A server may count
        a listener that has just gone: where it has reached another one, nothing is compared from then on.
        """
        answers = [record for record in history if not isinstance(record.operation, Read)]
        for record, expected in zip(answers, self.replies, strict=True):
            reply = record.reply
            if [told.reached for told in reply.announced] != [told.reached for told in expected.announced]:
                return None
            if reply != evolve(expected, epoch=reply.epoch, branch=reply.branch):
                return f"{record.operation}\nexpected {expected}\n     got {reply}"
        return None


@define
class State:
    """One state, with what led to it as far as it matters.

    Attributes:
        machine: under test.
        clock: how the machine's time follows from that of its host.
        host_us: what the host's clock shows.
        hears: nodes that receive announcements.
        server: the name of the server that answers (O2).
        receipts: of the newest deliveries, the last one last.
        recorded: everything that was done, for a backend to do it too; None if it is not wanted.
    """

    machine: Machine
    clock: StoreClock
    judge: Judge
    host_us: int = START_US
    hears: frozenset[str] = frozenset()
    server: str = ""
    receipts: tuple[Receipt, ...] = ()
    book: Book = field(factory=Book)
    recorded: Recorded | None = None
    _claims: int = 0
    _view: View | None = None
    _viewed_us: int = 0

    @classmethod
    def begun(
        cls,
        alphabet: Alphabet,
        machine: Callable[[str], Machine] = Machine,
        clock: Callable[[], StoreClock] = StoreClock,
        *,
        recorded: bool = False,
    ) -> State:
        """The first state of an alphabet.

        Raises:
            RuleBroken: already then something is wrong.
        """
        state = cls(machine("epoch"), clock(), Judge(), recorded=Recorded() if recorded else None)
        for part in alphabet.begin:
            state.do(part)
        return state

    def copy(self) -> State:
        """Another that stands where this one does; it records nothing."""
        return State(
            self.machine.copy(),
            evolve(self.clock),
            self.judge,
            self.host_us,
            self.hears,
            self.server,
            self.receipts,
            self.book.copy(),
            None,
            self._claims,
            self._view,
            self._viewed_us,
        )

    @property
    def now_us(self) -> int:
        """The store's time, which never goes back (T2)."""
        return max(self.host_us + self.clock.skew_us, self.machine.last_us)

    def do(self, part: Part) -> bool:
        """Go on to the next state. False: that cannot be done here, and nothing has changed.

        Raises:
            RuleBroken: the answer, or the state that it leads to, is not what the rules say.
        """
        match part:
            case Wait(duration_us):
                self.host_us += duration_us
                self._note(part)
            case Leap(by_us):
                if self.host_us + by_us < 0:
                    # Clocks of servers show no time before 1970.
                    return False
                self.host_us += by_us
                self._note(part)
            case Listen(node, heard):
                if (node in self.hears) == heard:
                    return False
                self.hears = self.hears | {node} if heard else self.hears - {node}
                self._note(part)
            case Serve(server):
                if server == self.server:
                    return False
                self.server, self._view = server, None
                self._note(part)
            case Lost(call, arrives):
                return self._lose(call, arrives=arrives)
            case Repeated():
                return self._repeat()
            case _:
                operation = self._made(part)
                if operation is None or not self.clock.accepts(self.host_us):
                    return False
                reply = self._ask(operation)
                self.book.others_did(self.judge.done(operation, reply))
        return True

    def _made(self, part: Part) -> Operation[Any] | None:
        """The operation that is meant, in this state; None: there is none."""
        match part:
            case Operation():
                return part
            case TimeOfDay(event, offset_us):
                return op.Post((NewEvent(event, At(self.host_us + offset_us)),))
            case OnDelivery(which=which):
                return part.on(self.receipts[-1 - which]) if which < len(self.receipts) else None
            case OnLetter(which, if_exists):
                letters = self._seen(self.now_us).letters
                if which >= len(letters):
                    return None
                name = letters[which].name
                return op.Discard((name,)) if if_exists is None else op.Resend(name, After(0), if_exists)
            case ClaimMore():
                if any(which >= len(self.receipts) for which, _ in part.extending):
                    return None
                self._claims += 1
                return op.Claim(
                    member=part.member,
                    room=part.room,
                    confirm_timeout_us=part.confirm_timeout_us,
                    nonce=f"{self._claims:016x}",
                    confirming=[self.receipts[-1 - which] for which in part.confirming if which < len(self.receipts)],
                    extending=[
                        Extension(self.receipts[-1 - which], timeout_us) for which, timeout_us in part.extending
                    ],
                )
            case _:
                raise TypeError(f"no move of a small world: {part!r}")

    def _ask(self, operation: Operation[Any]) -> Applied[Any]:
        skew_us = self.clock.skew_us
        at_us = self.clock.read(self.host_us, self.machine.last_us)
        self.judge.time(self.host_us, at_us, skew_us, self.clock.skew_us)
        before = self._seen(at_us)
        reply: Applied[Any] = self.judge.guarded(
            lambda: self.machine.apply(
                operation, at_us=at_us, reach=self.hears.__contains__, skew_us=self.clock.skew_us, server=self.server
            )
        )
        self.judge.guarded(self.machine.check)
        after = View.of(self.machine, at_us, self.server)
        self.judge.judge(operation, reply, self.server, before=before, after=after, book=self.book)
        self._note(operation)
        if self.recorded is not None:
            self.recorded.replies.append(reply)
        if isinstance(reply.value, Claimed):
            given = tuple(delivery.receipt for delivery in reply.value.deliveries)
            self.receipts = (*self.receipts, *given)[-RECEIPTS_MAX:]
        # The microseconds that were given out have passed when the next call comes.
        ahead_us = self.machine.last_us - self.host_us - self.clock.skew_us
        if ahead_us > 0:
            self.host_us += ahead_us
            self._note(Wait(ahead_us))
        self._view, self._viewed_us = after, self.now_us
        return reply

    # --- lost calls (F1) ---------------------------------------------------------------------------------

    def _lose(self, operation: Operation[Any], *, arrives: bool) -> bool:
        if self.book.lost is not None or not self.clock.accepts(self.host_us):
            return False
        if arrives:
            self._ask(operation)
        # Of a call that is not repeated nothing more comes: its client was told that the outcome is unknown.
        if operation.repeat == SAFE:
            self.book.lost = LostCall(operation)
        return arrives or self.book.lost is not None

    def _repeat(self) -> bool:
        lost = self.book.lost
        if lost is None or not self.clock.accepts(self.host_us):
            return False
        before = self._seen(self.now_us)
        self._ask(lost.operation)
        self.judge.nothing_undone(lost, before, self._seen(self.now_us))
        self.book.lost = None
        return True

    def _seen(self, at_us: int) -> View:
        if self._view is None or (self._viewed_us != at_us and self._view.letters):
            self._view, self._viewed_us = View.of(self.machine, at_us, self.server), at_us
        return self._view

    def _note(self, step: Step) -> None:
        if self.recorded is not None:
            self.recorded.program.append(step)
