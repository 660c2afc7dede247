"""The partitions of a namespace, each with a history, a clock and confirms of its own; most namespaces have one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from attrs import frozen

from dtimer.loop_local import LoopRef
from dtimer.node.acks import AckBatcher
from dtimer.node.context import TimerContext
from dtimer.node.request_batchers import RequestBatchers
from dtimer.node.session import StoreSession
from dtimer.node.store_history import StoreHistory
from dtimer.protocol.backend import Runtime, SupportsPartitions, TimerBackend
from dtimer.protocol.outcomes import CancelOutcome, PostOutcome
from dtimer.protocol.partitioning import partition_of
from dtimer.protocol.values import Durability, NewEvent

ItemT = TypeVar("ItemT")
OutcomeT = TypeVar("OutcomeT")


@frozen(eq=False)
class Partition:
    """One of them, as one timer sees it.

    Attributes:
        label: what reports add to tell it from the others; empty if there are none.
    """

    label: str
    session: StoreSession
    acks: AckBatcher
    requests: RequestBatchers


class Histories:
    """Those of a timer's event loops: each has its own, and passes it on when it is closed.

    So what was acknowledged in a loop that has ended is missed by the next one, as of two ``asyncio.run``.
    """

    def __init__(self) -> None:
        self._taken: list[tuple[LoopRef, list[StoreHistory]]] = []

    def take(self, number: int) -> list[StoreHistory]:
        """For each partition one, for the running loop."""
        self._taken = [taken for taken in self._taken if not taken[0].inherited]
        for place, (home, histories) in enumerate(self._taken):
            if home.ended:
                self._taken[place] = LoopRef(), histories
                return histories
        fresh = [StoreHistory() for _ in range(number)]
        self._taken.append((LoopRef(), fresh))
        return fresh


class Partitions:
    """All of them.

    Attributes:
        all: in their order; an event's is told by its id.
    """

    def __init__(self, backend: TimerBackend, context: TimerContext, histories: Histories) -> None:
        """For the running loop."""
        backends = backend.partitions if isinstance(backend, SupportsPartitions) else (backend,)
        self.runtime: Runtime = backend.runtime
        self.all: list[Partition] = []
        for number, (each, history) in enumerate(zip(backends, histories.take(len(backends)), strict=True)):
            label = f" of partition {number}" if len(backends) > 1 else ""
            session = StoreSession(each, context, history)
            requests = RequestBatchers(session, context.reporter.report)
            self.all.append(Partition(label, session, AckBatcher(session, context), requests))

    def of(self, id: str) -> Partition:
        """Where the event with this id is, if it is anywhere."""
        return self.all[partition_of(id, len(self.all))]

    async def post_many(
        self, events: Sequence[NewEvent], durability: Durability | None, repeat_within_us: int | None
    ) -> list[PostOutcome]:
        """Schedule events; what belongs to one partition in list order (rule P5)."""
        return await self._spread(
            events,
            lambda new: new.event.id,
            lambda partition, part: partition.requests.post_many(part, durability, repeat_within_us),
        )

    async def cancel(self, ids: Sequence[str], repeat_within_us: int | None) -> list[CancelOutcome]:
        return await self._spread(ids, str, lambda partition, part: partition.requests.cancel(part, repeat_within_us))

    async def _spread(
        self,
        items: Sequence[ItemT],
        id_of: Callable[[ItemT], str],
        request: Callable[[Partition, Sequence[ItemT]], Awaitable[list[OutcomeT]]],
    ) -> list[OutcomeT]:
        """Each item to its partition, and the outcomes in the items' order; the first error once all have answered."""
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
