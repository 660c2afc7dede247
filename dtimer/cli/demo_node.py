"""One node of the demo, a process of its own: says on standard output what it is given, a JSON object a line."""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from dtimer import DTimer, Event, JsonValue
from dtimer.backends.redis import RedisBackend


async def serve(url: str, namespace: str, node_id: str) -> None:
    """Take events until told to stop by SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with RedisBackend.from_url(url, namespace) as backend:
        timer = DTimer(backend, node_id=node_id)

        async def handle(event: Event[JsonValue]) -> None:
            wishes = event.payload if isinstance(event.payload, dict) else {}
            say("got", event)
            work_ms = wishes.get("work_ms")
            if isinstance(work_ms, int):
                await asyncio.sleep(work_ms / 1000)
            if event.num_retries == 0 and wishes.get("forget"):
                return
            if event.max_retries:
                say("confirmed" if await event.confirm() else "too late", event)

        def say(what: str, event: Event[JsonValue]) -> None:
            line = {
                "what": what,
                "node": node_id,
                "id": event.id,
                "num_retries": event.num_retries,
                "lateness_ms": event.lateness.total_seconds() * 1000,
            }
            print(json.dumps(line), flush=True)

        timer.on("event", handle)
        timer.on("ready", lambda: print(json.dumps({"what": "ready", "node": node_id}), flush=True))
        async with timer:
            await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:4]))
