"""Batches of confirms (rules E1 and F1).

While a node is joined, its claims carry the confirms, or it sends them alone when it has no claim to make.
Without a node their batcher sends them.
Either way a failed confirm is repeated for some seconds. That is safe: a receipt counts once at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from dtimer.errors import ConfirmedTooLate, OutcomeUnknown
from dtimer.event import DeliveryState
from dtimer.node.batcher import Batch, Batcher, Submission
from dtimer.node.context import TimerContext
from dtimer.node.session import StoreSession, did
from dtimer.protocol.outcomes import ConfirmOutcome
from dtimer.protocol.values import Receipt

AckBatch: TypeAlias = Batch[Receipt, ConfirmOutcome]


class AckBatcher:
    """The confirms of one timer in one partition."""

    def __init__(self, session: StoreSession, context: TimerContext) -> None:
        self.batcher: Batcher[Receipt, ConfirmOutcome] = Batcher(
            "confirm",
            self._send,
            context.reporter.report,
            runtime=session.runtime,
            repeat_within_us=session.repeat_within_us,
            answered=self.answered,
            kept=True,
        )
        self._session = session
        self._counters = context.counters
        self._reporter = context.reporter

    def submit(
        self, receipt: Receipt, repeat_within_us: int | None = None, delivery: DeliveryState | None = None
    ) -> Submission[Receipt, ConfirmOutcome]:
        """
        Args:
            delivery: what is known of it here. Not the event: it would live until the answer, and the collector would
                have more to look through.
        """
        return self.batcher.submit((receipt,), 0, repeat_within_us, delivery)

    async def newest(self, id: str, repeat_within_us: int | None = None) -> ConfirmOutcome:
        """Confirm the newest delivery of an event, whichever node has it."""
        backend = self._session.backend
        done = did("confirm_newest", id)
        answer = await self._session.call(lambda: backend.confirm_newest(id), done, repeat_within_us=repeat_within_us)
        self._count([answer.value])
        return answer.value

    # --- carried by a node -------------------------------------------------------------------------------

    def take(self) -> AckBatch | None:
        """The confirms that the next call carries."""
        return self.batcher.queue.take()

    def answered(self, batch: AckBatch, outcomes: Sequence[ConfirmOutcome]) -> None:
        """The call that carried a batch was answered; each caller gets what is known."""
        if any(submission.lost for submission in batch.submissions):
            outcomes = self._after_lost_replies(batch, outcomes)
        if self._count(outcomes) == len(outcomes):
            batch.answer(outcomes)
            return
        notified = [(submission.owner, submission.items[0]) for submission in batch.submissions]
        # Answered first: of two confirms of one delivery only the second ended nothing.
        batch.answer(outcomes)
        for (owner, receipt), outcome in zip(notified, outcomes, strict=False):
            if not outcome:
                self._ineffective(owner, receipt, outcome)

    def _ineffective(self, delivery: object, receipt: Receipt, outcome: ConfirmOutcome) -> None:
        """A confirm ended nothing. That is an error if it came too late, and none if the event is another's by now."""
        if not isinstance(delivery, DeliveryState) or delivery.withdrawn or delivery.settled:
            return
        store_us = self._session.clock.store_us(self._session.runtime.now_us())
        deadline_us = delivery.deadline_us
        if store_us is not None and deadline_us is not None and store_us >= deadline_us:
            self._counters.confirmed_too_late += 1
            self._reporter.report(ConfirmedTooLate(receipt.id, outcome))

    def _after_lost_replies(self, batch: AckBatch, outcomes: Sequence[ConfirmOutcome]) -> list[ConfirmOutcome]:
        """The outcomes, as far as they are known where an earlier reply was lost (rule F1)."""
        known = list(outcomes)
        submissions = [submission for submission in batch.submissions for _ in submission.items]
        for place, (submission, outcome) in enumerate(zip(submissions, outcomes, strict=False)):
            if not submission.lost:
                continue
            if outcome is ConfirmOutcome.NOT_FOUND:
                known[place] = ConfirmOutcome.GONE
            elif outcome is ConfirmOutcome.STALE:
                # Either it was delivered again, or the first try worked and another event has the id since.
                problem = "the reply was lost, and by now another delivery or another event stands under the id"
                batch.fail_one(submission, OutcomeUnknown("confirm", problem))
        return known

    def failed(self, batch: AckBatch, error: BaseException) -> None:
        """The call that carried a batch failed: its confirms go with the next call, until their time is over."""
        now_us = self._session.runtime.now_us()
        self.batcher.queue.failed(batch, error, began_us=now_us, again_us=now_us + 1)

    # --- sent alone ----------------------------------------------------------------------------------------

    async def _send(self, receipts: Sequence[Receipt]) -> Sequence[ConfirmOutcome]:
        done = did("confirm", *[receipt.id for receipt in receipts])
        return (await self._session.once(lambda: self._session.backend.confirm(receipts), done)).value

    def _count(self, outcomes: Sequence[ConfirmOutcome]) -> int:
        # `bool(outcome)` says it, too (E6), but calling it for each costs more than all else that is done here.
        confirmed = outcomes.count(ConfirmOutcome.CONFIRMED) + outcomes.count(ConfirmOutcome.GONE)
        self._counters.confirmed += confirmed
        return confirmed
