"""The partitions of a namespace, each with a history, a clock and confirms of its own; most namespaces have one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Final, TypeVar

from dtimer.errors import Unsupported
from dtimer.loop_local import LoopRef
from dtimer.node.acks import AckBatcher
from dtimer.node.batcher import Batcher, Submission, in_calls
from dtimer.node.context import TimerContext
from dtimer.node.session import StoreHistory, StoreSession
from dtimer.protocol.backend import SupportsDurability, SupportsPartitions, TimerBackend
from dtimer.protocol.outcomes import CancelOutcome, PostOutcome
from dtimer.protocol.partitioning import partition_of
from dtimer.protocol.values import Durability, NewEvent

ItemT = TypeVar("ItemT")
OutcomeT = TypeVar("OutcomeT")

_num_bytes: Final[Callable[[NewEvent], int]] = attrgetter("event.num_bytes")


class Partition:
    """One partition, as one timer uses it in one event loop.

    Posts and cancels of one turn of the loop go in one call (rules P5 and F1). For how long a failed call is repeated
    is set by its caller, or else by the backend.

    Attributes:
        label: the suffix by which reports name the partition; empty if there is only one.
    """

    def __init__(self, label: str, backend: TimerBackend, context: TimerContext, history: StoreHistory) -> None:
        self.label = label
        self.session = session = StoreSession(backend, context, history)
        self.acks = AckBatcher(session, context)
        self._report_failure = context.reporter.report
        self._posts = self._batcher("post", session.post)
        self._durable: dict[Durability, Batcher[NewEvent, PostOutcome]] = {}
        self._cancels = self._batcher("cancel", session.cancel)

    def posts(self, durability: Durability | None) -> Batcher[NewEvent, PostOutcome]:
        """The batcher for posts with this durability; posts of another durability go in other calls.

        Raises:
            Unsupported: the backend knows no durability.
        """
        if durability is None:
            return self._posts
        posts = self._durable.get(durability)
        if posts is None:
            backend = self.session.backend
            if not isinstance(backend, SupportsDurability):
                raise Unsupported(
                    f"{type(backend).__name__} keeps no replicas: it does not derive from SupportsDurability"
                )
            send = partial(self.session.post_durably, backend, durability)
            posts = self._durable[durability] = self._batcher("post", send)
        return posts

    async def post_many(
        self, events: Sequence[NewEvent], durability: Durability | None, repeat_within_us: int | None
    ) -> list[PostOutcome]:
        posts = self.posts(durability)
        return await _in_order(
            [posts.submit(part, size, repeat_within_us) for part, size in in_calls(events, _num_bytes)]
        )

    async def cancel(self, ids: Sequence[str], repeat_within_us: int | None) -> list[CancelOutcome]:
        return await _in_order(
            [self._cancels.submit(part, size, repeat_within_us) for part, size in in_calls(ids, len)]
        )

    def _batcher(
        self, operation: str, request: Callable[[Sequence[ItemT]], Awaitable[Sequence[OutcomeT]]]
    ) -> Batcher[ItemT, OutcomeT]:
        session = self.session
        return Batcher(
            operation, request, self._report_failure, runtime=session.runtime, repeat_within_us=session.repeat_within_us
        )


async def _in_order(submissions: Sequence[Submission[ItemT, OutcomeT]]) -> list[OutcomeT]:
    """All replies in order. The first error is raised when all parts were answered, so that no call is in flight."""
    if len(submissions) == 1:
        return list(await submissions[0])
    replies: list[OutcomeT] = []
    # If the caller is cancelled, all are cancelled at once, and what was not sent yet is not sent.
    for part in await asyncio.gather(*(submission.future() for submission in submissions), return_exceptions=True):
        if isinstance(part, BaseException):
            raise part
        replies.extend(part)
    return replies


class Histories:
    """The histories of a timer's event loops. Each loop has its own; the next loop takes over those of a closed one.

    So a loop notices the loss of what was acknowledged in the loop before, as of two calls of ``asyncio.run``.
    """

    def __init__(self) -> None:
        self._taken: list[tuple[LoopRef, list[StoreHistory]]] = []

    def take(self, number: int) -> list[StoreHistory]:
        """One history for each partition, for the running loop."""
        self._taken = [taken for taken in self._taken if not taken[0].inherited]
        for place, (home, histories) in enumerate(self._taken):
            if home.ended:
                self._taken[place] = LoopRef(), histories
                return histories
        fresh = [StoreHistory() for _ in range(number)]
        self._taken.append((LoopRef(), fresh))
        return fresh


class Partitions:
    """All partitions of a namespace.

    Attributes:
        all: the partitions in their order; :meth:`of` finds that of an event.
    """

    def __init__(self, backend: TimerBackend, context: TimerContext, histories: Histories) -> None:
        """For the running loop."""
        backends = backend.partitions if isinstance(backend, SupportsPartitions) else (backend,)
        self.all: list[Partition] = []
        for number, (each, history) in enumerate(zip(backends, histories.take(len(backends)), strict=True)):
            label = f" of partition {number}" if len(backends) > 1 else ""
            self.all.append(Partition(label, each, context, history))

    def of(self, id: str) -> Partition:
        """The partition of an id."""
        if len(self.all) == 1:
            return self.all[0]
        return self.all[partition_of(id, len(self.all))]

    async def post_many(
        self, events: Sequence[NewEvent], durability: Durability | None, repeat_within_us: int | None
    ) -> list[PostOutcome]:
        """Schedule events; those of one partition in list order (rule P5)."""
        return await self._spread(
            events,
            lambda new: new.event.id,
            lambda partition, part: partition.post_many(part, durability, repeat_within_us),
        )

    async def cancel(self, ids: Sequence[str], repeat_within_us: int | None) -> list[CancelOutcome]:
        return await self._spread(ids, str, lambda partition, part: partition.cancel(part, repeat_within_us))

    async def _spread(
        self,
        items: Sequence[ItemT],
        id_of: Callable[[ItemT], str],
        request: Callable[[Partition, Sequence[ItemT]], Awaitable[list[OutcomeT]]],
    ) -> list[OutcomeT]:
        """Send each item to its partition. The outcomes are in the order of the items; an error waits for all."""
        if len(self.all) == 1:
            return await request(self.all[0], items)
        places: dict[int, list[int]] = {}
        for place, item in enumerate(items):
            places.setdefault(partition_of(id_of(item), len(self.all)), []).append(place)
        parts = [request(self.all[number], [items[place] for place in group]) for number, group in places.items()]
        answers = await asyncio.gather(*parts, return_exceptions=True)
        outcomes: dict[int, OutcomeT] = {}
        for group, answer in zip(places.values(), answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            outcomes.update(zip(group, answer, strict=True))
        return [outcomes[place] for place in range(len(items))]
