"""Nodes in a process of their own: ``node_process.py URL NAMESPACE NODE[,NODE ...] [MAX_EVENTS [CONFIRM_TIMEOUT_S]]``.

It says what happens on standard output, a JSON object a line. A payload tells its handler what to do, in this order:

* ``{"sleep": s}`` waits, ``{"block": s}`` does so without letting the event loop go on;
* ``{"hold": true}`` waits until a line comes on standard input;
* ``{"raise": true}`` raises;
* ``{"forget": n}`` leaves the first n deliveries unconfirmed.

``{"strike": {"at": MOMENT, "signal": NUMBER, "once": PATH}}`` sends the process that signal, at the first delivery of
all: the one that can create the file. The moments: ``decoding`` is after the claim and before the handler, ``handling``
the handler's first line, ``handled`` its last before it confirms, ``confirmed`` when the confirm was answered.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

from dtimer import DTimer, DTimerError, Event, JsonCodec, JsonValue
from dtimer.backends.redis import RedisBackend


def say(**words: object) -> None:
    print(json.dumps(words), flush=True)


def wishes_of(payload: JsonValue) -> dict[str, Any]:
    return payload if isinstance(payload, dict) else {}


def strike(moment: str, payload: JsonValue) -> None:
    wish = wishes_of(payload).get("strike")
    if wish is None or wish["at"] != moment:
        return
    try:
        os.close(os.open(wish["once"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    say(what="struck", at=moment)
    os.kill(os.getpid(), wish["signal"])


class StrikingCodec:
    """Its first look at a payload is what lies between the claim and the handler."""

    def __init__(self) -> None:
        self._json = JsonCodec()

    def encode(self, payload: JsonValue) -> bytes:
        return self._json.encode(payload)

    def decode(self, data: bytes) -> JsonValue:
        payload = self._json.decode(data)
        strike("decoding", payload)
        return payload


def timer_of(backend: RedisBackend, node: str, go: asyncio.Event, max_events: int, confirm_timeout: float) -> DTimer:
    timer = DTimer(backend, node_id=node, max_events=max_events, confirm_timeout=confirm_timeout, codec=StrikingCodec())

    async def handle(event: Event) -> None:
        wishes = wishes_of(event.payload)
        say(
            what="got",
            node=node,
            id=event.id,
            number=event.delivery_number,
            num_retries=event.num_retries,
            lateness_ms=event.lateness.total_seconds() * 1_000,
            at=event.delivered_at.timestamp(),
        )
        strike("handling", event.payload)
        if "block" in wishes:
            time.sleep(wishes["block"])  # noqa: ASYNC251 - that is the fault
        if "sleep" in wishes:
            await asyncio.sleep(wishes["sleep"])
        if wishes.get("hold"):
            await go.wait()
        if wishes.get("raise"):
            raise RuntimeError("as wished")
        strike("handled", event.payload)
        if event.requires_confirm and event.num_retries >= wishes.get("forget", 0):
            outcome = await event.confirm()
            say(what="confirmed" if outcome else "refused", node=node, id=event.id, outcome=outcome.value)
            strike("confirmed", event.payload)

    def failed(error: DTimerError) -> None:
        say(what="error", node=node, kind=type(error).__name__, text=str(error))

    timer.on("event", handle)
    timer.on("error", failed)
    timer.on("ended", lambda event: say(what="ended", node=node, id=event.id))
    timer.on("ready", lambda: say(what="ready", node=node, clock=time.time()))
    return timer


async def serve(url: str, namespace: str, nodes: str, max_events: str = "8", confirm_timeout: str = "10") -> None:
    loop = asyncio.get_running_loop()
    stop, go = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(sys.stdin, go.set)
    async with AsyncExitStack() as stack:
        for node in nodes.split(","):
            backend = await stack.enter_async_context(RedisBackend.from_url(url, namespace))
            await stack.enter_async_context(timer_of(backend, node, go, int(max_events), float(confirm_timeout)))
        await stop.wait()
        loop.remove_reader(sys.stdin)
    say(what="left")


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
