"""Posts and cancels on their way to the store: those of one turn of the loop in one call (rules P5 and F1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from dtimer.errors import BackendError
from dtimer.limits import REPEAT_WITHIN_US
from dtimer.node.lane import Lane
from dtimer.node.outbox import Ticket, in_calls
from dtimer.node.store import Store
from dtimer.outcomes import CancelOutcome, PostOutcome
from dtimer.posting import size_bytes
from dtimer.values import After, NewEvent

ItemT = TypeVar("ItemT")
ReplyT = TypeVar("ReplyT")

DUE_LATER_US: Final = 2 * REPEAT_WITHIN_US
"""An event that is due later than this is live still when its post's last repetition arrives.
The last one is sent within the time for repetitions; as much again is for its way."""


class Calls:
    """What callers ask for in numbers."""

    def __init__(self, store: Store, unheard: Callable[[Exception], None]) -> None:
        self._store = store
        self._posts: Lane[NewEvent, PostOutcome] = Lane("post", self._send_posts, unheard)
        self._cancels: Lane[str, CancelOutcome] = Lane("cancel", self._send_cancels, unheard)

    async def post(self, new: NewEvent) -> PostOutcome:
        return (await self._posts.submit((new,), size_bytes(new)))[0]

    async def post_many(self, events: Sequence[NewEvent]) -> list[PostOutcome]:
        return await _in_order([self._posts.submit(part, size) for part, size in in_calls(events, size_bytes)])

    async def cancel(self, ids: Sequence[str]) -> list[CancelOutcome]:
        return await _in_order([self._cancels.submit(part, size) for part, size in in_calls(ids, len)])

    async def _send_posts(self, events: Sequence[NewEvent]) -> Sequence[PostOutcome]:
        def safe(error: BackendError) -> bool:
            return all(self._due_later(new) for new in events)

        return (await self._store.call(lambda: self._store.backend.post(events), safe=safe)).value

    def _due_later(self, new: NewEvent) -> bool:
        """So much later that a repetition of its post finds it live, and by its nonce does nothing."""
        if isinstance(new.due, After):
            return new.due.delay_us > DUE_LATER_US
        now_us = self._store.clock.store_us(self._store.runtime.now_us())
        return now_us is not None and new.due.due_us - now_us > DUE_LATER_US

    async def _send_cancels(self, ids: Sequence[str]) -> Sequence[CancelOutcome]:
        answer = await self._store.call(lambda: self._store.backend.cancel(ids))
        if not answer.lost:
            return answer.value
        return [CancelOutcome.GONE if outcome is CancelOutcome.NOT_FOUND else outcome for outcome in answer.value]


async def _in_order(tickets: Sequence[Ticket[ItemT, ReplyT]]) -> list[ReplyT]:
    """All replies; the first error once all parts have been answered, so that nothing is under way any more."""
    if len(tickets) == 1:
        return list(await tickets[0])
    replies: list[ReplyT] = []
    # When its caller is cancelled it cancels all at once, so what has not been sent is not sent.
    for part in await asyncio.gather(*(ticket.future() for ticket in tickets), return_exceptions=True):
        if isinstance(part, BaseException):
            raise part
        replies.extend(part)
    return replies
