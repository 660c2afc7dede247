"""The partitions of a namespace, each with a history, a clock and confirms of its own; most namespaces have one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from attrs import frozen

from dtimer.counters import Tally
from dtimer.node.calls import Calls
from dtimer.node.confirms import Confirms
from dtimer.node.reports import Reports
from dtimer.node.store import Store
from dtimer.outcomes import CancelOutcome, PostOutcome
from dtimer.partitions import partition_of
from dtimer.protocol import Runtime, SupportsPartitions, TimerBackend
from dtimer.values import Durability, NewEvent

ItemT = TypeVar("ItemT")
OutcomeT = TypeVar("OutcomeT")


@frozen(eq=False)
class Partition:
    """One of them, as one timer sees it."""

    store: Store
    confirms: Confirms
    calls: Calls


class Partitions:
    """All of them.

    Attributes:
        all: in their order; an event's is told by its id.
    """

    def __init__(self, backend: TimerBackend, reports: Reports, tally: Tally) -> None:
        backends = backend.partitions if isinstance(backend, SupportsPartitions) else (backend,)
        self.runtime: Runtime = backend.runtime
        self.all: list[Partition] = []
        for each in backends:
            store = Store(each, reports, tally)
            confirms = Confirms(store, tally, reports.report)
            self.all.append(Partition(store, confirms, Calls(store, reports.report)))

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
            lambda partition, part: partition.calls.post_many(part, durability, repeat_within_us),
        )

    async def cancel(self, ids: Sequence[str], repeat_within_us: int | None) -> list[CancelOutcome]:
        return await self._spread(ids, str, lambda partition, part: partition.calls.cancel(part, repeat_within_us))

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
