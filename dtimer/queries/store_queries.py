"""Looking at events, through the store's bounded pages, and what is done with dead letters (rules R1, R2 and E5)."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from dtimer.codecs.codec import Codec, PayloadT
from dtimer.errors import Unsupported
from dtimer.limits import PAGE_MAX_ITEMS
from dtimer.loop_local import LoopLocal
from dtimer.node.partitions import Partitions
from dtimer.node.session import StoreSession, did
from dtimer.protocol.backend import SupportsDeadLetters
from dtimer.protocol.outcomes import DiscardOutcome, ResendOutcome
from dtimer.protocol.values import Cursor, DeadLetterCursor, Due, IfExists, LetterName, Window
from dtimer.queries.results import DeadEvent, Upcoming

EntryT = TypeVar("EntryT")
Place: TypeAlias = tuple[int, str]
"""In a list: by time, then by id."""


class Queries(Generic[PayloadT]):
    """What a timer asks its store about events that are not delivered to it."""

    def __init__(self, partitions: LoopLocal[Partitions], codec: Codec[PayloadT]) -> None:
        self._partitions = partitions
        self._codec = codec

    async def peek(self, id: str, within_us: int | None) -> Upcoming[PayloadT] | None:
        session = self._partitions.here().of(id).session
        answer = await session.call(lambda: session.backend.peek(id), repeat_within_us=within_us)
        if answer.value is None:
            return None
        return Upcoming(answer.value, answer.at_us, self._codec, answer.skew_us)

    async def upcoming(
        self, window: Window, limit: int | None, within_us: int | None
    ) -> AsyncIterator[Upcoming[PayloadT]]:
        """Live events in claim order, at most `limit`."""
        parts = [
            self._upcoming_of(partition.session, window, limit, within_us) for partition in self._partitions.here().all
        ]
        async with aclosing(_merged(parts, limit)) as entries:
            async for entry in entries:
                yield entry

    async def _upcoming_of(
        self, session: StoreSession, window: Window, limit: int | None, within_us: int | None
    ) -> AsyncGenerator[tuple[Place, Upcoming[PayloadT]]]:
        start: Window | Cursor | None = window
        left = limit
        while start is not None:
            size = PAGE_MAX_ITEMS if left is None else min(left, PAGE_MAX_ITEMS)
            request = partial(session.backend.upcoming, start, limit=size)
            answer = await session.call(request, repeat_within_us=within_us)
            for pending in answer.value.items:
                # In the order of the hosts' clocks: partitions may have been set back by different steps.
                place = pending.next_us - answer.skew_us, pending.event.id
                yield place, Upcoming(pending, answer.at_us, self._codec, answer.skew_us)
            if left is not None:
                left -= len(answer.value.items)
            start = None if left is not None and left <= 0 else answer.value.next

    async def dead_letters(self, limit: int | None, within_us: int | None) -> AsyncIterator[DeadEvent[PayloadT]]:
        """Dead letters, oldest first, at most `limit`."""
        parts = [
            self._dead_letters_of(partition.session, limit, within_us) for partition in self._partitions.here().all
        ]
        async with aclosing(_merged(parts, limit)) as entries:
            async for entry in entries:
                yield entry

    async def _dead_letters_of(
        self, session: StoreSession, limit: int | None, within_us: int | None
    ) -> AsyncGenerator[tuple[Place, DeadEvent[PayloadT]]]:
        backend = _dead_letter_backend(session)
        cursor: DeadLetterCursor | None = None
        left = limit
        while True:
            size = PAGE_MAX_ITEMS if left is None else min(left, PAGE_MAX_ITEMS)
            request = partial(backend.dead_letters, cursor, limit=size)
            answer = await session.call(request, repeat_within_us=within_us)
            page = answer.value
            for letter in page.items:
                place = letter.buried_us - answer.skew_us, letter.id
                yield place, DeadEvent(letter, self._codec, answer.skew_us)
            if left is not None:
                left -= len(page.items)
            cursor = page.next
            if cursor is None or (left is not None and left <= 0):
                return

    async def resend(self, letter: LetterName, due: Due, if_exists: IfExists, within_us: int | None) -> ResendOutcome:
        session = self._partitions.here().of(letter.id).session
        backend = _dead_letter_backend(session)
        request = partial(backend.resend, letter, due=due, if_exists=if_exists)
        return (await session.call(request, did("resend", letter.id), repeat_within_us=within_us)).value

    async def discard(self, letter: LetterName, within_us: int | None) -> DiscardOutcome:
        session = self._partitions.here().of(letter.id).session
        backend = _dead_letter_backend(session)
        done = did("discard", letter.id)
        return (await session.call(lambda: backend.discard([letter]), done, repeat_within_us=within_us)).value[0]


def _dead_letter_backend(session: StoreSession) -> SupportsDeadLetters:
    backend = session.backend
    if not isinstance(backend, SupportsDeadLetters):
        raise Unsupported(f"{type(backend).__name__} keeps no dead letters: it is no SupportsDeadLetters")
    return backend


async def _merged(parts: Sequence[AsyncGenerator[tuple[Place, EntryT]]], limit: int | None) -> AsyncGenerator[EntryT]:
    """The entries of several lists that are in order, in one order, at most `limit`."""
    async with AsyncExitStack() as stack:
        for part in parts:
            await stack.enter_async_context(aclosing(part))
        firsts = await asyncio.gather(*(anext(part, None) for part in parts))
        # The part's number keeps equal places from being decided by their entries.
        heads = [(first[0], number, first[1]) for number, first in enumerate(firsts) if first is not None]
        heapq.heapify(heads)
        count = 0
        while heads:
            _, number, entry = heads[0]
            yield entry
            count += 1
            if count == limit:
                return
            following = await anext(parts[number], None)
            if following is None:
                heapq.heappop(heads)
            else:
                heapq.heapreplace(heads, (following[0], number, following[1]))
