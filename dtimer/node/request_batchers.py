"""Posts and cancels on their way to the store: those of one turn of the loop in one call (rules P5 and F1)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Final, TypeVar

from dtimer.errors import Unsupported
from dtimer.node.batch import Submission, in_calls
from dtimer.node.batcher import Batcher
from dtimer.node.session import Did, StoreSession, did
from dtimer.protocol.backend import SupportsDurability
from dtimer.protocol.outcomes import CancelOutcome, PostOutcome
from dtimer.protocol.values import Durability, NewEvent

ItemT = TypeVar("ItemT")
ReplyT = TypeVar("ReplyT")

_num_bytes: Final[Callable[[NewEvent], int]] = attrgetter("event.num_bytes")


class RequestBatchers:
    """What callers ask for in numbers. How long a call is repeated is the caller's to say, or else the store's."""

    def __init__(self, session: StoreSession, report_failure: Callable[[Exception], None]) -> None:
        self._session = session
        self._report_failure = report_failure
        self._durable: dict[Durability, Batcher[NewEvent, PostOutcome]] = {}

        async def post(events: Sequence[NewEvent]) -> Sequence[PostOutcome]:
            return (await session.once(lambda: session.backend.post(events), _posted(events))).value

        async def cancel(ids: Sequence[str]) -> Sequence[CancelOutcome]:
            return (await session.once(lambda: session.backend.cancel(ids), did("cancel", *ids))).value

        self._posts = self._batcher("post", post)
        self._cancels = self._batcher("cancel", cancel)

    def post(
        self, new: NewEvent, durability: Durability | None = None, repeat_within_us: int | None = None
    ) -> asyncio.Future[Sequence[PostOutcome]]:
        """Its outcome, alone in a sequence: to await anything around the future would cost as much as the future."""
        posts = self._posts if durability is None else self._durable_posts(durability)
        return posts.ask((new,), new.event.num_bytes, repeat_within_us)

    async def post_many(
        self, events: Sequence[NewEvent], durability: Durability | None = None, repeat_within_us: int | None = None
    ) -> list[PostOutcome]:
        posts = self._posts if durability is None else self._durable_posts(durability)
        return await _in_order(
            [posts.submit(part, size, repeat_within_us) for part, size in in_calls(events, _num_bytes)]
        )

    async def cancel(self, ids: Sequence[str], repeat_within_us: int | None = None) -> list[CancelOutcome]:
        return await _in_order(
            [self._cancels.submit(part, size, repeat_within_us) for part, size in in_calls(ids, len)]
        )

    def _durable_posts(self, durability: Durability) -> Batcher[NewEvent, PostOutcome]:
        """Those that wait for as much as each other; nobody else waits with them."""
        posts = self._durable.get(durability)
        if posts is None:
            session, backend = self._session, self._session.backend
            if not isinstance(backend, SupportsDurability):
                raise Unsupported(f"{type(backend).__name__} keeps no replicas: it is no SupportsDurability")

            async def send(events: Sequence[NewEvent]) -> Sequence[PostOutcome]:
                posting = partial(backend.post_durably, events, durability)
                return (await session.once(posting, _posted(events))).value

            posts = self._durable[durability] = self._batcher("post", send)
        return posts

    def _batcher(
        self, operation: str, request: Callable[[Sequence[ItemT]], Awaitable[Sequence[ReplyT]]]
    ) -> Batcher[ItemT, ReplyT]:
        session = self._session
        return Batcher(
            operation, request, self._report_failure, runtime=session.runtime, repeat_within_us=session.repeat_within_us
        )


def _posted(events: Sequence[NewEvent]) -> Did[object]:
    return did("post", *[new.event.id for new in events])


async def _in_order(submissions: Sequence[Submission[ItemT, ReplyT]]) -> list[ReplyT]:
    """All replies; the first error once all parts have been answered, so that nothing is under way any more."""
    if len(submissions) == 1:
        return list(await submissions[0])
    replies: list[ReplyT] = []
    # When its caller is cancelled it cancels all at once, so what has not been sent is not sent.
    for part in await asyncio.gather(*(submission.future() for submission in submissions), return_exceptions=True):
        if isinstance(part, BaseException):
            raise part
        replies.extend(part)
    return replies
