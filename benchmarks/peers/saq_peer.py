"""saq: a RedisQueue and a Worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redis.asyncio import Redis
from saq import Queue, Worker
from saq.queue.redis import RedisQueue
from saq.types import Context

from benchmarks.peers import ORJSON
from benchmarks.peers.serving import Confirmed, Fired, Settings, Timer, serve


class Saq:
    packages = ("saq", "redis", "hiredis", "orjson")

    def __init__(self) -> None:
        self._queues: list[Queue] = []
        self._running: list[tuple[Worker[Context], asyncio.Task[None]]] = []

    async def open(self, url: str, namespace: str, settings: Settings) -> None:
        self._url, self._namespace = url, namespace
        self._settings = settings
        self._poster = self._queue()

    def _queue(self) -> Queue:
        json = {}
        if ORJSON:
            import orjson

            json = {"dump": orjson.dumps, "load": orjson.loads}
        queue = RedisQueue(
            Redis.from_url(self._url, max_connections=1000),
            name=self._namespace,
            max_concurrent_ops=int(self._settings["max_concurrent_ops"]),
            **json,
        )
        self._queues.append(queue)
        return queue

    async def post(self, timer: Timer) -> None:
        # Whole seconds by its documentation; the score it makes of this takes fractions too.
        scheduled = timer["due_ms"] / 1000
        job = await self._poster.enqueue(
            "handle", timer=timer, scheduled=scheduled, ttl=int(self._settings["ttl_s"]), retries=4
        )
        assert job is not None, "a job's key is its own"

    async def post_many(self, timers: Sequence[Timer]) -> None:
        raise NotImplementedError("saq posts one job a call")

    async def work(self, workers: int, fired: Fired, confirmed: Confirmed) -> None:
        async def handle(_: Context, *, timer: Timer) -> None:
            fired(timer)

        for _ in range(workers):
            queue = self._queue()
            worker = Worker(queue, [("handle", handle)], concurrency=int(self._settings["concurrency"]))
            self._running.append((worker, asyncio.create_task(worker.start())))
        await asyncio.sleep(0.5)

    async def rest(self) -> None:
        for worker, task in self._running:
            await worker.stop()
            await task
        self._running.clear()

    async def close(self) -> None:
        for queue in self._queues:
            await queue.disconnect()


if __name__ == "__main__":
    serve(Saq())
