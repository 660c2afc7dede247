"""Posts and cancels on their way to the store: those of one turn of the loop in one call (rules P5 and F1)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from operator import attrgetter
from typing import Final, TypeVar

from dtimer.errors import BackendError, Unsupported
from dtimer.limits import REPEAT_WITHIN_US
from dtimer.node.lane import Lane
from dtimer.node.outbox import Ticket, in_calls
from dtimer.node.store import Store
from dtimer.outcomes import CancelOutcome, PostOutcome
from dtimer.protocol import SupportsDurability
from dtimer.values import After, Applied, Durability, NewEvent

ItemT = TypeVar("ItemT")
ReplyT = TypeVar("ReplyT")

_num_bytes: Final[Callable[[NewEvent], int]] = attrgetter("event.num_bytes")

DUE_LATER_US: Final = 2 * REPEAT_WITHIN_US
"""An event that is due later than this is live still when its post's last repetition arrives.
The last one is sent within the time for repetitions; as much again is for its way."""


class Calls:
    """What callers ask for in numbers."""

    def __init__(self, store: Store, unheard: Callable[[Exception], None]) -> None:
        self._store = store
        self._unheard = unheard
        self._durable: dict[Durability, Lane[NewEvent, PostOutcome]] = {}
        self._posts: Lane[NewEvent, PostOutcome] = Lane("post", self._send_posts, unheard)
        self._cancels: Lane[str, CancelOutcome] = Lane("cancel", self._send_cancels, unheard)

    def post(self, new: NewEvent, durability: Durability | None = None) -> asyncio.Future[Sequence[PostOutcome]]:
        """Its outcome, alone in a sequence: to await anything around the future would cost as much as the future."""
        posts = self._posts if durability is None else self._durable_posts(durability)
        return posts.ask((new,), new.event.num_bytes)

    async def post_many(self, events: Sequence[NewEvent], durability: Durability | None = None) -> list[PostOutcome]:
        posts = self._posts if durability is None else self._durable_posts(durability)
        return await _in_order([posts.submit(part, size) for part, size in in_calls(events, _num_bytes)])

    async def cancel(self, ids: Sequence[str]) -> list[CancelOutcome]:
        return await _in_order([self._cancels.submit(part, size) for part, size in in_calls(ids, len)])

    def _durable_posts(self, durability: Durability) -> Lane[NewEvent, PostOutcome]:
        """Those that wait for as much as each other; nobody else waits with them."""
        posts = self._durable.get(durability)
        if posts is None:
            backend = self._store.backend
            if not isinstance(backend, SupportsDurability):
                raise Unsupported(f"{type(backend).__name__} keeps no replicas: it is no SupportsDurability")

            async def send(events: Sequence[NewEvent]) -> Sequence[PostOutcome]:
                return await self._send_posts(events, lambda: backend.post_durably(events, durability))

            posts = self._durable[durability] = Lane("post", send, self._unheard)
        return posts

    async def _send_posts(
        self,
        events: Sequence[NewEvent],
        request: Callable[[], Awaitable[Applied[tuple[PostOutcome, ...]]]] | None = None,
    ) -> Sequence[PostOutcome]:
        def safe(error: BackendError) -> bool:
            return all(self._due_later(new) for new in events)

        return (await self._store.call(request or (lambda: self._store.backend.post(events)), safe=safe)).value

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
