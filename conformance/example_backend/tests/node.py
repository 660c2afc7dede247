"""A node as a process of its own: ``node.py FILE NODE``. It says what it gets, a JSON object a line.

A payload ``{"hold": NODE}`` makes the handler of that node wait for ever.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from dtimer import DTimer, Event, JsonValue

from dtimer_sqlite import SqliteBackend


async def serve(file: str, node: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with SqliteBackend(file) as backend:
        timer = DTimer(backend, node_id=node, confirm_timeout=1)

        async def handle(event: Event[JsonValue]) -> None:
            lateness_ms = event.lateness.total_seconds() * 1_000
            print(json.dumps({"id": event.id, "retries": event.num_retries, "ms": lateness_ms}), flush=True)
            if isinstance(event.payload, dict) and event.payload.get("hold") == node:
                await asyncio.Event().wait()
            await event.confirm()

        timer.on("event", handle)
        timer.on("ready", lambda: print('"ready"', flush=True))
        async with timer:
            await stop.wait()


asyncio.run(serve(*sys.argv[1:]))
