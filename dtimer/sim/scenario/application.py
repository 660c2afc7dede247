"""What the nodes of a run do with their events: drawn from the seed, the id and the delivery's number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from dtimer import DTimer, Event, JsonValue
from dtimer.errors import BackendError
from dtimer.sim.chance import Chance
from dtimer.sim.faulty.host import Host

MAX_EVENTS: Final = (1, 2, 8, 32)
CONFIRM_TIMEOUT_S: Final = 5.0


class HandlerError(Exception):
    """What a handler raises because the seed says so."""


class Application:
    """The program of every node.

    Attributes:
        calm: handlers do nothing but confirm, so that the world can come to rest.
        on_timer: told of every timer that is made, before it joins.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.calm = False
        self.on_timer: Callable[[Host, DTimer[JsonValue]], None] = lambda host, timer: None

    async def __call__(self, host: Host) -> None:
        max_events = Chance(self._seed, "node", host.name).pick(MAX_EVENTS)
        timer = DTimer(host.backend(), node_id=host.name, max_events=max_events, confirm_timeout=CONFIRM_TIMEOUT_S)
        timer.on("event", self._handle)
        timer.on("exhausted", lambda ended: host.note("exhausted", id=ended.id, reason=ended.reason.value))
        self.on_timer(host, timer)
        async with timer:
            await host.forever()

    async def _handle(self, event: Event[JsonValue]) -> None:
        if self.calm:
            await self._confirm(event)
            return
        chance = Chance(self._seed, "handler", event.id, event.receipt.nonce, event.delivery)
        deed = chance.below(100)
        await asyncio.sleep(chance.below(500) / 1_000)
        if deed < 68:
            await self._confirm(event)
        elif deed < 76:
            raise HandlerError
        elif deed < 82:
            if event.tracked:
                await event.release(chance.below(10_000), counted=chance.happens(0.5))
        elif deed < 87:
            if event.tracked:
                await event.extend(chance.between(1, 20))
            await asyncio.sleep(chance.between(1, 15))
            await self._confirm(event)
        elif deed < 94:
            # Most likely past its deadline.
            await asyncio.sleep(chance.between(1, 20))
            await self._confirm(event)
        elif deed < 96:
            if event.tracked:
                await event.bury("as the seed would have it")
        elif deed < 98:
            await asyncio.sleep(chance.between(60, 600))
        # else: it returns, and nobody confirms.

    @staticmethod
    async def _confirm(event: Event[JsonValue]) -> None:
        # What is not known to have worked comes again, or has been ended; both are as promised.
        if event.tracked:
            try:
                await event.confirm()
            except BackendError:
                return
