"""Those who post, cancel and move events, and write down what they were answered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Final

from dtimer import BackendError, DTimer, JsonValue, Known
from soak.history import Cancelled, Moved, Pen, Posted, Reply, now_us
from soak.node import payload

DELAY_MAX_MS: Final = 12_000
CALLS_AT_ONCE_MAX: Final = 64
AT_SHARE: Final = 0.2
"""Of the posts, those for a time of day."""


class Producer:
    """Posts at a rate until told to stop; what it does is drawn from the seed."""

    def __init__(self, name: str, timer: DTimer[JsonValue], seed: int, pen: Pen, *, rate_per_s: float) -> None:
        self._name = name
        self._timer = timer
        self._pen = pen
        self._rate_per_s = rate_per_s
        self._chance = random.Random(f"producer {name} {seed}")
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE_MAX)
        self.num_posts = 0

    async def run(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as calls:
            while not stop.is_set():
                await asyncio.sleep(self._chance.expovariate(self._rate_per_s))
                await self._slots.acquire()
                calls.create_task(self._one(self._chance.getrandbits(64))).add_done_callback(
                    lambda _: self._slots.release()
                )

    async def _one(self, seed: int) -> None:
        chance = random.Random(seed)
        self.num_posts += 1
        id = f"{self._name}-{self.num_posts}"
        delay_ms = chance.choice((0, chance.randrange(500), chance.randrange(DELAY_MAX_MS)))
        max_retries = chance.choice((0, 3, 5, 8))
        call_us = now_us()
        # Of a time of day, whose fractions of a microsecond are cut off, or of a delay.
        at = datetime.fromtimestamp(call_us / 1e6, UTC) + timedelta(milliseconds=delay_ms, microseconds=1)
        delay, at_or_none = (None, at) if chance.random() < AT_SHARE else (delay_ms, None)
        reply = await _reply(
            self._timer.post(
                payload(id), delay, at=at_or_none, id=id, max_retries=max_retries, dead_letter=max_retries > 0
            )
        )
        self._pen.write(Posted(id, call_us, now_us(), reply, delay_ms * 1_000, max_retries))
        if reply is not Reply.FAILED and chance.random() < 0.08:
            await asyncio.sleep(chance.uniform(0, delay_ms / 1_000))
            call_us = now_us()
            reply = await _reply(self._timer.cancel(id))
            self._pen.write(Cancelled(id, call_us, now_us(), reply))
        elif reply is Reply.DONE and chance.random() < 0.08:
            await asyncio.sleep(chance.uniform(0, delay_ms / 1_000))
            call_us, again_ms = now_us(), chance.randrange(DELAY_MAX_MS)
            reply = await _reply(self._timer.change_delay(id, again_ms))
            self._pen.write(Moved(id, call_us, now_us(), reply, again_ms * 1_000))


async def _reply(call: Awaitable[object]) -> Reply:
    """What is known after a call that answers something true if it did what was asked."""
    try:
        answer = await call
    except BackendError as error:
        return Reply.UNKNOWN if error.known is Known.PERHAPS_APPLIED else Reply.FAILED
    return Reply.DONE if answer else Reply.NOTHING
