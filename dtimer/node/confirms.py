"""Confirms on their way to the store (rules E1 and F1).

While a node is joined they ride on its claims, or go alone when it has none to make.
Otherwise their own sender takes them.
Either way they are repeated for some seconds: a receipt counts once at most, whatever others have done since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from dtimer.errors import OutcomeUnknown
from dtimer.metrics import RunningCounters
from dtimer.node.lane import Lane
from dtimer.node.outbox import Batch, Ticket
from dtimer.node.store import Store, did
from dtimer.protocol.outcomes import ConfirmOutcome
from dtimer.protocol.values import Receipt

ConfirmBatch: TypeAlias = Batch[Receipt, ConfirmOutcome]


class Confirms:
    """All confirms of one timer."""

    def __init__(self, store: Store, counters: RunningCounters, unheard: Callable[[Exception], None]) -> None:
        self.lane: Lane[Receipt, ConfirmOutcome] = Lane(
            "confirm",
            self._send,
            unheard,
            runtime=store.runtime,
            repeat_within_us=store.repeat_within_us,
            answered=self.answered,
            kept=True,
        )
        self.on_vain: Callable[[object, Receipt, ConfirmOutcome], None] | None = None
        """Called with the ticket's owner and its receipt for each confirm that ended nothing."""
        self._store = store
        self._counters = counters

    def submit(self, receipt: Receipt, repeat_within_us: int | None = None) -> Ticket[Receipt, ConfirmOutcome]:
        return self.lane.submit((receipt,), 0, repeat_within_us)

    async def newest(self, id: str, repeat_within_us: int | None = None) -> ConfirmOutcome:
        """End the event whoever holds its receipt."""
        backend = self._store.backend
        done = did("confirm_newest", id)
        answer = await self._store.call(lambda: backend.confirm_newest(id), done, repeat_within_us=repeat_within_us)
        self._count([answer.value])
        return answer.value

    # --- carried by a node -------------------------------------------------------------------------------

    def take(self) -> ConfirmBatch | None:
        """What rides on the next call."""
        return self.lane.outbox.take()

    def answered(self, batch: ConfirmBatch, outcomes: Sequence[ConfirmOutcome]) -> None:
        """The call that carried them was answered; each caller is told what is known."""
        if any(ticket.lost for ticket in batch.tickets):
            outcomes = self._after_lost_replies(batch, outcomes)
        if self._count(outcomes) == len(outcomes) or self.on_vain is None:
            batch.answer(outcomes)
            return
        told = [(ticket.owner, ticket.items[0]) for ticket in batch.tickets]
        # First, since a delivery may have been confirmed twice, and only the second time in vain.
        batch.answer(outcomes)
        for (owner, receipt), outcome in zip(told, outcomes, strict=False):
            if not outcome:
                self.on_vain(owner, receipt, outcome)

    def _after_lost_replies(self, batch: ConfirmBatch, outcomes: Sequence[ConfirmOutcome]) -> list[ConfirmOutcome]:
        """What is known of those for whom this was not the first try (rule F1)."""
        known = list(outcomes)
        tickets = [ticket for ticket in batch.tickets for _ in ticket.items]
        for place, (ticket, outcome) in enumerate(zip(tickets, outcomes, strict=False)):
            if not ticket.lost:
                continue
            if outcome is ConfirmOutcome.NOT_FOUND:
                known[place] = ConfirmOutcome.GONE
            elif outcome is ConfirmOutcome.STALE:
                # Either it was delivered again, or the first try worked and another event has the id since.
                problem = "the reply was lost, and by now another delivery or another event stands under the id"
                batch.fail_one(ticket, OutcomeUnknown("confirm", problem))
        return known

    def failed(self, batch: ConfirmBatch, error: BaseException) -> None:
        """The call that carried them failed: they go with the next one, unless that has been tried for long."""
        now_us = self._store.runtime.now_us()
        self.lane.outbox.failed(batch, error, began_us=now_us, again_us=now_us + 1)

    # --- sent alone ----------------------------------------------------------------------------------------

    async def _send(self, receipts: Sequence[Receipt]) -> Sequence[ConfirmOutcome]:
        done = did("confirm", *[receipt.id for receipt in receipts])
        return (await self._store.once(lambda: self._store.backend.confirm(receipts), done)).value

    def _count(self, outcomes: Sequence[ConfirmOutcome]) -> int:
        # That `bool(outcome)` says the same is E6; asking each costs more than all else that is done with it here.
        confirmed = outcomes.count(ConfirmOutcome.CONFIRMED) + outcomes.count(ConfirmOutcome.GONE)
        self._counters.confirmed += confirmed
        return confirmed
