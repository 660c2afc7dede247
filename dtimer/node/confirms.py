"""Confirms on their way to the store (rules E1 and F1).

While a node is joined they ride on its claims, or go alone when it has none to make.
Otherwise their own sender takes them.
Either way they are repeated for some seconds, and one that finds nothing after a lost reply is called GONE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from dtimer.counters import Tally
from dtimer.errors import Known
from dtimer.limits import REPEAT_WITHIN_US
from dtimer.node.lane import Lane
from dtimer.node.outbox import Batch, Ticket
from dtimer.node.repeat import PASSING
from dtimer.node.store import Store
from dtimer.outcomes import ConfirmOutcome
from dtimer.values import Receipt

ConfirmBatch: TypeAlias = Batch[Receipt, ConfirmOutcome]


class Confirms:
    """All confirms of one timer."""

    def __init__(self, store: Store, tally: Tally, unheard: Callable[[Exception], None]) -> None:
        self.lane: Lane[Receipt, ConfirmOutcome] = Lane("confirm", self._send, unheard)
        self._store = store
        self._tally = tally

    def submit(self, receipt: Receipt) -> Ticket[Receipt, ConfirmOutcome]:
        return self.lane.submit((receipt,))

    async def newest(self, id: str) -> ConfirmOutcome:
        """End the event whoever holds its receipt."""
        answer = await self._store.call(lambda: self._store.backend.confirm_newest(id))
        outcome = _after_a_lost_reply(answer.value) if answer.lost else answer.value
        self._count([outcome])
        return outcome

    # --- carried by a node -------------------------------------------------------------------------------

    def take(self) -> ConfirmBatch | None:
        """What rides on the next call."""
        return self.lane.outbox.take()

    def answered(self, batch: ConfirmBatch, outcomes: Sequence[ConfirmOutcome]) -> None:
        if any(ticket.lost for ticket in batch.tickets):
            lost = [ticket.lost for ticket in batch.tickets for _ in ticket.items]
            outcomes = [
                _after_a_lost_reply(outcome) if was else outcome for outcome, was in zip(outcomes, lost, strict=True)
            ]
        self._count(outcomes)
        batch.answer(outcomes)

    def failed(self, batch: ConfirmBatch, error: BaseException) -> None:
        """The call that carried them failed: they go with the next one, unless that has been tried for long."""
        if not isinstance(error, PASSING):
            batch.fail(error)
            return
        now_us = self._store.runtime.now_us()
        again: list[Ticket[Receipt, ConfirmOutcome]] = []
        for ticket in batch.tickets:
            ticket.lost = ticket.lost or error.known is Known.PERHAPS_APPLIED
            if ticket.give_up_us is None:
                ticket.give_up_us = now_us + REPEAT_WITHIN_US
            if now_us < ticket.give_up_us:
                again.append(ticket)
            else:
                batch.fail_one(ticket, error)
        self.lane.outbox.put_back(again)

    # --- sent alone ----------------------------------------------------------------------------------------

    async def _send(self, receipts: Sequence[Receipt]) -> Sequence[ConfirmOutcome]:
        answer = await self._store.call(lambda: self._store.backend.confirm(receipts))
        outcomes: Sequence[ConfirmOutcome] = answer.value
        if answer.lost:
            outcomes = [_after_a_lost_reply(outcome) for outcome in outcomes]
        self._count(outcomes)
        return outcomes

    def _count(self, outcomes: Sequence[ConfirmOutcome]) -> None:
        # That `bool(outcome)` says the same is E6; asking each costs more than all else that is done with it here.
        self._tally.confirmed += outcomes.count(ConfirmOutcome.CONFIRMED) + outcomes.count(ConfirmOutcome.GONE)


def _after_a_lost_reply(outcome: ConfirmOutcome) -> ConfirmOutcome:
    return ConfirmOutcome.GONE if outcome is ConfirmOutcome.NOT_FOUND else outcome
