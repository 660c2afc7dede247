"""Events that are posted and taken while something breaks, and a ledger by which both are judged."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from attrs import define, field

from dtimer import BackendError, ConfirmedTooLate, DTimer, DTimerError, Event, OutcomeUnknown
from dtimer.backends.redis import RedisBackend
from support.bounds import LATE_MS
from support.worlds import Node, RedisWorld, lateness_ms, without_blocks

EVERY_S: Final = 0.01
DELAY_MAX_MS: Final = 300.0
CONFIRM_TIMEOUT_S: Final = 1.0
RETRIES: Final = 50


@define(eq=False)
class Load:
    """One poster, and nodes whose handlers confirm.

    Attributes:
        acked: events whose post was answered, in order.
        unknown: those of which nobody knows; they may come.
        refused: those that were not applied, with the error; they must not come.
    """

    timer: DTimer
    nodes: list[Node]
    acked: list[str] = field(factory=list)
    unknown: list[str] = field(factory=list)
    refused: dict[str, BackendError] = field(factory=dict)
    _posting: set[asyncio.Task[None]] = field(factory=set)

    @property
    def events(self) -> list[Event]:
        """All deliveries."""
        return [event for node in self.nodes for event in node.events]

    async def lasts(self, duration_s: float) -> None:
        """Post for so long, whatever becomes of it."""
        end = asyncio.get_running_loop().time() + duration_s
        chance = random.Random(len(self.acked))
        while asyncio.get_running_loop().time() < end:
            id = f"{len(self.acked) + len(self.unknown) + len(self.refused) + len(self._posting)}-{chance.random()}"
            task = asyncio.create_task(self._post(id, chance.uniform(0, DELAY_MAX_MS)))
            self._posting.add(task)
            task.add_done_callback(self._posting.discard)
            await asyncio.sleep(EVERY_S)

    async def _post(self, id: str, delay_ms: float) -> None:
        try:
            await self.timer.post("load", delay_ms, id=id, max_retries=RETRIES)
        except OutcomeUnknown:
            self.unknown.append(id)
        except BackendError as error:
            self.refused[id] = error
        else:
            self.acked.append(id)

    async def answered(self) -> None:
        """Return when every post has been answered."""
        await asyncio.gather(*self._posting)

    async def drained(self, timeout_s: float = 20.0) -> None:
        """Return when every post has been answered and nothing is left in the store."""
        await self.answered()
        async with asyncio.timeout(timeout_s):
            while [entry.id for entry in await self.timer.upcoming(limit=1)]:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(EVERY_S)

    def lost(self) -> list[str]:
        """What was acknowledged and never came."""
        came = {event.id for event in self.events}
        return [id for id in self.acked if id not in came]

    def judge(self, *, late_ms: float = LATE_MS) -> None:
        """Nothing lost, nothing from nowhere, no attempt made twice, none early, none late (S1, S2, L1, L2)."""
        events = self.events
        assert not self.lost()
        assert not {event.id for event in events} - {*self.acked, *self.unknown}
        assert max(Counter((event.id, event.num_retries) for event in events).values()) == 1
        assert min(map(lateness_ms, events)) >= 0
        assert self.worst_ms() < late_ms

    def worst_ms(self) -> float:
        return max(map(lateness_ms, self.events))


@asynccontextmanager
async def under_load(
    world: RedisWorld, num_nodes: int = 3, backend: Callable[[], RedisBackend] | None = None
) -> AsyncIterator[Load]:
    """Nodes that confirm what they are given, and a timer beside them that posts when it is told to."""
    make = world.backend if backend is None else backend
    nodes = []
    for number in range(num_nodes):
        timer: DTimer = DTimer(make(), node_id=f"n{number}", confirm_timeout=CONFIRM_TIMEOUT_S)
        world.keep(timer)
        node = Node(timer)

        def take(event: Event, node: Node = node) -> None:
            node.events.append(event)
            event.confirm()

        def note(error: DTimerError, node: Node = node) -> None:
            # A busy host may let deadlines pass, too.
            if not isinstance(error, ConfirmedTooLate):
                node.errors.append(error)

        timer.on("event", take)
        timer.on("error", without_blocks(note))
        timer.on("ended", node.ended.append)
        await timer.join()
        nodes.append(node)
    yield Load(DTimer(make()), nodes)
