"""faststream-redis-timers: a TimersBroker with one subscriber."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from faststream_redis_timers import TimersBroker
from redis.asyncio import Redis

from benchmarks.peers.serving import Confirmed, Fired, Settings, Timer, serve


class FastStreamTimers:
    packages = ("faststream-redis-timers", "faststream", "redis", "hiredis", "orjson")

    def __init__(self) -> None:
        self._clients: list[Redis] = []
        self._working: list[TimersBroker] = []

    async def open(self, url: str, namespace: str, settings: Settings) -> None:
        self._url, self._namespace = url, namespace
        self._settings = settings
        self._poster = self._broker()
        await self._poster.connect()

    def _broker(self) -> TimersBroker:
        client = Redis.from_url(self._url, max_connections=int(self._settings["max_connections"]))
        self._clients.append(client)
        return TimersBroker(client, logger=None)

    async def post(self, timer: Timer) -> None:
        due = datetime.fromtimestamp(timer["due_ms"] / 1000, UTC)
        await self._poster.publish(timer, topic=self._namespace, activate_at=due)

    async def post_many(self, timers: Sequence[Timer]) -> None:
        raise NotImplementedError("faststream-redis-timers posts one timer a call")

    async def work(self, workers: int, fired: Fired, confirmed: Confirmed) -> None:
        for _ in range(workers):
            broker = self._broker()

            @broker.subscriber(
                self._namespace,
                max_concurrent=int(self._settings["max_concurrent"]),
                max_polling_interval=self._settings["max_polling_interval_s"],
            )
            async def handle(timer: dict[str, object]) -> None:
                fired(timer)  # type: ignore[arg-type]  # what post() was given

            await broker.start()
            self._working.append(broker)

    async def rest(self) -> None:
        for broker in self._working:
            await broker.stop()
        self._working.clear()

    async def close(self) -> None:
        await self._poster.stop()
        for client in self._clients:
            await client.aclose()


if __name__ == "__main__":
    serve(FastStreamTimers())
