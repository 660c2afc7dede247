"""A small world: the state machine, the clock of its host, and its clients. A move takes it to its next state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, evolve, field

from dtimer.limits import SECOND_US
from dtimer.protocol import operations as op
from dtimer.protocol.operations import SAFE, Operation
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
from dtimer_conformance.programs import ClaimMore, Leap, Listen, OnDelivery, OnLetter, Serve, Step, Wait
from dtimer_conformance.state_space.book import Book, LostCall, View
from dtimer_conformance.state_space.judge import Judge
from dtimer_conformance.state_space.moves import Alphabet, Lost, Part, Repeated, TimeOfDay

START_US = 1_800_000_000 * SECOND_US
RECEIPTS_MAX = 3
"""Of so many deliveries the newest, receipts are kept: moves speak of no others."""


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
        program: everything that was done, for a backend to do it too; None where nobody asks for it.
    """

    machine: Machine
    clock: StoreClock
    judge: Judge
    host_us: int = START_US
    hears: frozenset[str] = frozenset()
    server: str = ""
    receipts: tuple[Receipt, ...] = ()
    book: Book = field(factory=Book)
    program: list[Step] | None = None
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
        """As the alphabet begins.

        Raises:
            RuleBroken: already then something is wrong.
        """
        state = cls(machine("epoch"), clock(), Judge(), program=[] if recorded else None)
        for part in alphabet.begin:
            state.do(part)
        return state

    def copy(self) -> State:
        """Another that stands where this one does."""
        return State(
            self.machine.copy(),
            evolve(self.clock),
            self.judge,
            self.host_us,
            self.hears,
            self.server,
            self.receipts,
            self.book.copy(),
            None if self.program is None else self.program.copy(),
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
                return self._lose(self._made(call), arrives=arrives)
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

    def _lose(self, operation: Operation[Any] | None, *, arrives: bool) -> bool:
        if operation is None or self.book.lost is not None or not self.clock.accepts(self.host_us):
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
        if self.program is not None:
            self.program.append(step)
