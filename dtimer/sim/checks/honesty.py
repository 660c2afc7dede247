"""What users are told is what the store did, and they are given no more than they asked for (E1, F1, N1, N2, P5).

Callers and programs report what they were told; what the store did is seen where it is applied.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, TypeVar

from attrs import define
from typing_extensions import override

from dtimer.limits import REPEAT_WITHIN_US, SECOND_US
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.outcomes import ConfirmOutcome, PostOutcome
from dtimer.protocol.values import Applied, Claimed, Receipt
from dtimer.sim.checks.violation import Complain
from dtimer.sim.faulty.observer import Observer

REMEMBERED_US: Final = 2 * REPEAT_WITHIN_US + 60 * SECOND_US
"""So long after it was applied somebody may still be told: all repetitions are over, and nobody paused for longer."""

KeyT = TypeVar("KeyT")
_PUT: Final = frozenset({PostOutcome.CREATED, PostOutcome.REPLACED})


class Recent(OrderedDict[KeyT, int]):
    """Things that have been, with their moments; they are forgotten after a while."""

    def note(self, key: KeyT, now_us: int) -> None:
        self[key] = now_us
        self.move_to_end(key)
        while next(iter(self.values())) < now_us - REMEMBERED_US:
            self.popitem(last=False)


class Honesty(Observer):
    """Sees what the store applied, and is told what callers were told."""

    def __init__(self, now_us: Callable[[], int], complain: Complain) -> None:
        self._now_us = now_us
        self._complain = complain
        self._put: Recent[str] = Recent()
        self._confirmed: Recent[Receipt] = Recent()

    # --- what is watched ---------------------------------------------------------------------------------

    @override
    def on_applied(
        self, host: str, number: int, namespace: str, operation: Operation[Any], applied: Applied[Any]
    ) -> None:
        now_us = self._now_us()
        if isinstance(operation, op.Post):
            for new, outcome in zip(operation.events, applied.value, strict=False):
                if outcome in _PUT:
                    self._posted(host, new.event.id, new.event.payload, now_us)
        elif isinstance(operation, op.Confirm):
            self._note_confirmed(operation.receipts, applied.value, now_us)
        elif isinstance(operation, op.Claim):
            claimed: Claimed = applied.value
            self._note_confirmed(operation.confirming, claimed.confirmed, now_us)

    def _posted(self, host: str, id: str, payload: bytes, now_us: int) -> None:
        if payload.hex() in self._put:
            self._complain("F1", host, id, "its post was applied a second time: others may have acted in between")
        self._put.note(payload.hex(), now_us)

    def _note_confirmed(self, receipts: Any, outcomes: Any, now_us: int) -> None:
        for receipt, outcome in zip(receipts, outcomes, strict=False):
            if outcome is ConfirmOutcome.CONFIRMED:
                self._confirmed.note(receipt, now_us)

    # --- what callers were told ---------------------------------------------------------------------------

    def told_posted(self, id: str, payload: bytes) -> None:
        """A post of this payload, which no other post has, was said to have put its event there."""
        if payload.hex() not in self._put:
            self._complain("P5", "client", id, "its post was said to have worked, and was never applied")

    def told_not_posted(self, id: str, payload: bytes, why: str) -> None:
        """It was said to have changed nothing, and nobody has put another event in its place since."""
        if payload.hex() in self._put:
            self._complain("F1", "client", id, f"its post was applied, and its caller was told {why}")

    def told_confirmed(self, host: str, receipt: Receipt) -> None:
        """A confirm by this receipt was said to have worked."""
        if receipt not in self._confirmed:
            self._complain("E1", host, receipt.id, "it was said to be confirmed, and no confirm was applied")


@define
class Watch:
    """One process's program, as it sees itself (N1, N2).

    Attributes:
        leaving: `leave` has been called.
        left: it has returned.
        unfinished: handlers that run.
    """

    host: str
    max_events: int
    complain: Complain
    leaving: bool = False
    left: bool = False
    unfinished: int = 0

    def begins(self, id: str, *, requires_confirm: bool) -> None:
        """A handler is called."""
        self.unfinished += 1
        if self.unfinished > self.max_events:
            words = f"{self.unfinished} handlers run where {self.max_events} events at most may be unfinished"
            self.complain("N2", self.host, id, words)
        if self.left:
            self.complain("N1", self.host, id, "a handler was started after leave() had returned")
        elif self.leaving and requires_confirm:
            self.complain("N1", self.host, id, "a handler was started after leave() had been called")

    def ends(self) -> None:
        """It has returned, or raised."""
        self.unfinished -= 1
