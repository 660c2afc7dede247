"""Going through the store's bounded pages, and what an operator does with dead letters (rules R2 and E5)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Generic

from dtimer.codec import Codec, PayloadT
from dtimer.errors import Unsupported
from dtimer.limits import PAGE_MAX_ITEMS
from dtimer.node.store import Store
from dtimer.outcomes import DiscardOutcome, ResendOutcome
from dtimer.protocol import SupportsDeadLetters
from dtimer.values import Cursor, DeadLetterCursor, Due, IfExists, Window
from dtimer.views import DeadEvent, Upcoming


class Listing(Generic[PayloadT]):
    """Looks at a whole namespace."""

    def __init__(self, store: Store, codec: Codec[PayloadT]) -> None:
        self._store = store
        self._codec = codec

    async def upcoming(self, window: Window, limit: int | None) -> AsyncIterator[Upcoming[PayloadT]]:
        """Live events in claim order, at most `limit`."""
        start: Window | Cursor | None = window
        left = limit
        while start is not None:
            size = PAGE_MAX_ITEMS if left is None else min(left, PAGE_MAX_ITEMS)
            answer = await self._store.call(partial(self._store.backend.upcoming, start, limit=size))
            for pending in answer.value.items:
                yield Upcoming(pending, answer.at_us, self._codec)
            if left is not None:
                left -= len(answer.value.items)
            start = None if left is not None and left <= 0 else answer.value.next

    async def dead_letters(self, limit: int | None) -> AsyncIterator[DeadEvent[PayloadT]]:
        """Dead letters, oldest first, at most `limit`."""
        backend = self._keeper()
        cursor: DeadLetterCursor | None = None
        left = limit
        while True:
            size = PAGE_MAX_ITEMS if left is None else min(left, PAGE_MAX_ITEMS)
            page = (await self._store.call(partial(backend.dead_letters, cursor, limit=size))).value
            for letter in page.items:
                yield DeadEvent(letter, self._codec)
            if left is not None:
                left -= len(page.items)
            cursor = page.next
            if cursor is None or (left is not None and left <= 0):
                return

    async def resend(self, id: str, due: Due, if_exists: IfExists) -> ResendOutcome:
        backend = self._keeper()
        return (await self._store.call(lambda: backend.resend(id, due=due, if_exists=if_exists))).value

    async def discard(self, id: str) -> DiscardOutcome:
        backend = self._keeper()
        return (await self._store.call(lambda: backend.discard([id]))).value[0]

    def _keeper(self) -> SupportsDeadLetters:
        backend = self._store.backend
        if not isinstance(backend, SupportsDeadLetters):
            raise Unsupported(f"{type(backend).__name__} keeps no dead letters: it is no SupportsDeadLetters")
        return backend
