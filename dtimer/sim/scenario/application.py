"""What the nodes of a run do with their events: drawn from the seed, the id and the delivery's number."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from dtimer import DTimer, Event, JsonValue
from dtimer.errors import BackendError
from dtimer.sim.checks.court import Court
from dtimer.sim.checks.honesty import Watch
from dtimer.sim.faulty.host import Host
from dtimer.sim.rng import Rng

MAX_EVENTS: Final = (1, 2, 8, 32)
CONFIRM_TIMEOUT_S: Final = 5.0
LINGER_S: Final = 0.05
"""So long does a program go on after it has left, to see whether something is given to it all the same."""


class HandlerError(Exception):
    """What a handler raises because the seed says so."""


class Application:
    """The program of every node.

    Attributes:
        calm: handlers do nothing but confirm, so that the world can come to rest.
        on_timer: told of every timer that is made, before it joins.
    """

    def __init__(self, seed: int, court: Court) -> None:
        self._seed = seed
        self._court = court
        self.calm = False
        self._later: set[asyncio.Task[None]] = set()
        self.on_timer: Callable[[Host, DTimer[JsonValue]], None] = lambda host, timer: None

    async def __call__(self, host: Host) -> None:
        max_events = Rng(self._seed, "node", host.name).pick(MAX_EVENTS)
        timer = DTimer(
            self._court.backend(host), node_id=host.name, max_events=max_events, confirm_timeout=CONFIRM_TIMEOUT_S
        )
        watch = self._court.watch(host.name, max_events)

        def handle(event: Event[JsonValue]) -> Awaitable[None]:
            # Seen when it is called: its task begins a moment later.
            watch.begins(event.id, requires_confirm=event.requires_confirm)
            return self._watched(watch, event)

        timer.on("event", handle)
        timer.on("ended", lambda ended: host.note("ended", id=ended.id, reason=ended.reason.value))
        timer.on("error", partial(self._court.told, host))
        self.on_timer(host, timer)
        async with timer:
            await host.forever()
            watch.leaving = True
        watch.left = True
        await asyncio.sleep(LINGER_S)

    async def _watched(self, watch: Watch, event: Event[JsonValue]) -> None:
        try:
            await self._handle(watch.host, event)
        finally:
            watch.ends()

    async def _handle(self, host: str, event: Event[JsonValue]) -> None:
        if self.calm:
            await self._confirm(host, event)
            return
        rng = Rng(self._seed, "handler", event.id, event.receipt.nonce, event.delivery_number)
        deed = rng.below(100)
        await asyncio.sleep(rng.below(500) / 1_000)
        if deed < 68:
            await self._confirm(host, event)
        elif deed < 76:
            raise HandlerError
        elif deed < 82:
            if event.requires_confirm:
                await event.release(rng.below(10_000), counted=rng.happens(0.5))
        elif deed < 87:
            if event.requires_confirm:
                await event.extend(rng.between(1, 20))
            await asyncio.sleep(rng.between(1, 15))
            await self._confirm(host, event)
        elif deed < 94:
            # Most likely past its deadline, for nothing extends what a handler leaves to a task.
            later = asyncio.create_task(self._confirm_after(rng.between(1, 20), host, event))
            self._later.add(later)
            later.add_done_callback(self._later.discard)
        elif deed < 96:
            if event.requires_confirm:
                await event.bury("as the seed would have it")
        elif deed < 98:
            await asyncio.sleep(rng.between(60, 600))
        # else: it returns, and nobody confirms.

    async def _confirm_after(self, delay_s: int, host: str, event: Event[JsonValue]) -> None:
        await asyncio.sleep(delay_s)
        await self._confirm(host, event)

    async def _confirm(self, host: str, event: Event[JsonValue]) -> None:
        # What is not known to have worked comes again, or has been ended; both are as promised.
        if event.requires_confirm:
            try:
                outcome = await event.confirm()
            except BackendError:
                return
            self._court.told_confirmed(host, event.receipt, outcome)
