"""dtimer, this project: DTimer on a RedisBackend, handlers that confirm."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from benchmarks.peers import ORJSON
from benchmarks.peers.serving import Confirmed, Fired, Settings, Timer, serve
from dtimer import Codec, Confirming, DTimer, Event, JsonCodec, JsonValue, OrjsonCodec, Post, RedisBackend

MAX_RETRIES = 3
CODEC: Codec[JsonValue] = OrjsonCodec() if ORJSON else JsonCodec()
JOIN_AT_ONCE = 8
"""A thousand nodes keep one process busy; more at once would not be connected in time."""


class Ours:
    packages = ("redis", "hiredis", "orjson")

    def __init__(self) -> None:
        self._stores: list[RedisBackend] = []
        self._nodes: list[DTimer[JsonValue]] = []
        self._watch: asyncio.Task[None] | None = None
        self._newest: Confirming | None = None

    async def open(self, url: str, namespace: str, settings: Settings) -> None:
        self._url, self._namespace = url, namespace
        self._max_events = int(settings["max_events"])
        self._apart = bool(settings.get("apart", 0))
        self._watched = bool(settings.get("watch", 0))
        self._in_block = bool(settings.get("in_block", 0))
        self._poster = self._timer(namespace)

    def _timer(self, namespace: str) -> DTimer[JsonValue]:
        store = RedisBackend.from_url(self._url, namespace)
        self._stores.append(store)
        return DTimer(store, max_events=self._max_events, codec=CODEC)

    async def post(self, timer: Timer) -> None:
        await self._poster.post(timer, at=_due(timer), max_retries=MAX_RETRIES)  # type: ignore[arg-type]  # it is JSON

    async def post_many(self, timers: Sequence[Timer]) -> None:
        posts = (Post(payload=timer, at=_due(timer), max_retries=MAX_RETRIES) for timer in timers)
        for result in await self._poster.post_many(posts):  # type: ignore[arg-type]  # as above
            if isinstance(result, Exception):
                raise result

    async def work(self, workers: int, fired: Fired, confirmed: Confirmed) -> None:
        async def handle(event: Event[JsonValue]) -> None:
            fired(event.payload)  # type: ignore[arg-type]  # what post() was given
            confirming = event.confirm()
            if self._watched:
                self._newest = confirming
                if self._watch is None:
                    self._watch = asyncio.create_task(self._see_answers(confirmed))

        async def handle_in_block(event: Event[JsonValue]) -> None:
            async with event:
                fired(event.payload)  # type: ignore[arg-type]  # as above
            confirmed()

        for number in range(workers):
            # Apart, each is in a namespace of its own, the first in that of the posts.
            node = self._timer(f"{self._namespace}-{number}" if self._apart and number else self._namespace)
            node.on("event", handle_in_block if self._in_block else handle)
            self._nodes.append(node)
        for first in range(0, workers, JOIN_AT_ONCE):
            await asyncio.gather(*(node.join() for node in self._nodes[first : first + JOIN_AT_ONCE]))

    async def _see_answers(self, confirmed: Confirmed) -> None:
        """No handler waits for its confirm, so this waits for the newest: all before it are answered by then.

        It ends when there is no newer one. To look every now and then would cost more, in each process that does.
        """
        while (newest := self._newest) is not None:
            self._newest = None
            await newest
            confirmed()
        self._watch = None

    async def rest(self) -> None:
        for first in range(0, len(self._nodes), JOIN_AT_ONCE):
            await asyncio.gather(*(node.leave() for node in self._nodes[first : first + JOIN_AT_ONCE]))
        self._nodes.clear()

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


def _due(timer: Timer) -> datetime:
    return datetime.fromtimestamp(timer["due_ms"] / 1000, UTC)


if __name__ == "__main__":
    serve(Ours())
