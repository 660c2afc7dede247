"""A node as a process of its own: ``node_process.py URL NAMESPACE NODE [MAX_EVENTS [CONFIRM_TIMEOUT_S]]``.

It says what happens on standard output, a JSON object a line. A payload ``{"hold": true}`` makes its handler wait
until a line comes on standard input; ``{"forget": n}`` leaves the first n deliveries unconfirmed.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from dtimer import DTimer, DTimerError, Event
from dtimer.backends.redis import RedisBackend


def say(**words: object) -> None:
    print(json.dumps(words), flush=True)


async def serve(url: str, namespace: str, node: str, max_events: str = "8", confirm_timeout: str = "10") -> None:
    loop = asyncio.get_running_loop()
    stop, go = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin, go.set)
    async with RedisBackend.from_url(url, namespace) as backend:
        timer = DTimer(backend, node_id=node, max_events=int(max_events), confirm_timeout=float(confirm_timeout))

        async def handle(event: Event) -> None:
            wishes = event.payload if isinstance(event.payload, dict) else {}
            say(
                what="got",
                id=event.id,
                num_retries=event.num_retries,
                lateness_ms=event.lateness.total_seconds() * 1_000,
                at=event.delivered_at.timestamp(),
            )
            if wishes.get("hold"):
                await go.wait()
            forget = wishes.get("forget", 0)
            if event.tracked and isinstance(forget, int) and event.num_retries >= forget and await event.confirm():
                say(what="confirmed", id=event.id)

        def failed(error: DTimerError) -> None:
            say(what="error", kind=type(error).__name__, text=str(error))

        timer.on("event", handle)
        timer.on("error", failed)
        timer.on("ready", lambda: say(what="ready"))
        async with timer:
            await stop.wait()
        loop.remove_reader(sys.stdin)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
