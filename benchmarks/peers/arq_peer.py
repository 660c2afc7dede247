"""arq: enqueue_job and a Worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.worker import Worker, func

from benchmarks.peers import ORJSON
from benchmarks.peers.serving import Confirmed, Fired, Settings, Timer, serve


class Arq:
    packages = ("arq", "redis", "hiredis", "orjson")

    def __init__(self) -> None:
        self._pools: list[ArqRedis] = []
        self._running: list[tuple[Worker, asyncio.Task[None]]] = []
        self._json = {}
        if ORJSON:
            import orjson

            self._json = {"job_serializer": orjson.dumps, "job_deserializer": orjson.loads}

    async def open(self, url: str, namespace: str, settings: Settings) -> None:
        self._url, self._namespace = url, namespace
        self._settings = settings
        self._poster = await self._pool()

    async def _pool(self) -> ArqRedis:
        pool = await create_pool(RedisSettings.from_dsn(self._url), default_queue_name=self._namespace, **self._json)
        self._pools.append(pool)
        return pool

    async def post(self, timer: Timer) -> None:
        due = datetime.fromtimestamp(timer["due_ms"] / 1000, UTC)
        job = await self._poster.enqueue_job("handle", timer, _defer_until=due)
        assert job is not None, "a job's id is its own"

    async def post_many(self, timers: Sequence[Timer]) -> None:
        raise NotImplementedError("arq posts one job a call")

    async def work(self, workers: int, fired: Fired, confirmed: Confirmed) -> None:
        async def handle(_: dict[object, object], timer: Timer) -> None:
            fired(timer)

        for _ in range(workers):
            worker = Worker(
                [func(handle, name="handle", keep_result=0)],
                redis_pool=await self._pool(),
                queue_name=self._namespace,
                max_jobs=int(self._settings["max_jobs"]),
                poll_delay=self._settings["poll_delay_s"],
                handle_signals=False,
                **self._json,
            )
            self._running.append((worker, asyncio.create_task(worker.async_run())))
        await asyncio.sleep(0.5)

    async def rest(self) -> None:
        for worker, task in self._running:
            task.cancel()
            await asyncio.wait([task])
            await worker.close()
        self._running.clear()

    async def close(self) -> None:
        for pool in self._pools:
            await pool.aclose()


if __name__ == "__main__":
    serve(Arq())
