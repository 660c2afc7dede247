"""A producer that keeps a ledger, a node that keeps another, for tests in which servers come and go under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from attrs import define, field

from dtimer import BackendError, DTimer, DTimerError, Event

DELAY_MS: Final = 20
PAUSE_S: Final = 0.005


@define(eq=False)
class Load:
    """What was posted, and what came of it.

    Attributes:
        acknowledged: the ids of posts that returned, in order.
        failed: those of posts that raised; each may have been applied or not.
        delivered: id -> how often a handler was given it.
        reports: what the node's error handler was given.
    """

    timer: DTimer
    acknowledged: list[str] = field(factory=list)
    failed: dict[str, BackendError] = field(factory=dict)
    delivered: dict[str, int] = field(factory=dict)
    reports: list[DTimerError] = field(factory=list)
    stopped: bool = False

    def missing(self, ids: list[str]) -> list[str]:
        return [id for id in ids if id not in self.delivered]

    def have_come(self, ids: list[str]) -> bool:
        return not self.missing(ids)

    def have(self, kind: type[DTimerError]) -> bool:
        return any(isinstance(report, kind) for report in self.reports)

    async def _post(self) -> None:
        number = 0
        while not self.stopped:
            number += 1
            id = f"e{number}"
            try:
                await self.timer.post(number, DELAY_MS, id=id, max_retries=5, confirm_timeout=2)
            except BackendError as error:
                self.failed[id] = error
            else:
                self.acknowledged.append(id)
            await asyncio.sleep(PAUSE_S)

    async def take(self, event: Event) -> None:
        self.delivered[event.id] = self.delivered.get(event.id, 0) + 1
        async with event:
            pass


@asynccontextmanager
async def under_load(make: Callable[[], DTimer]) -> AsyncGenerator[Load]:
    """A joined node, and posts without a pause; from exit on nothing is posted, and what was stays."""
    load = Load(make())
    load.timer.on("event", load.take)
    load.timer.on("error", load.reports.append)
    async with load.timer:
        posting = asyncio.create_task(load._post())
        try:
            yield load
        finally:
            load.stopped = True
            await posting
