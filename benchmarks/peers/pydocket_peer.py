"""pydocket: a Docket and a Worker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from docket import Docket, Worker

from benchmarks.peers.serving import Confirmed, Fired, Settings, Timer, serve


class PyDocket:
    packages = ("pydocket", "redis", "hiredis")

    def __init__(self) -> None:
        self._running: list[tuple[Worker, asyncio.Task[None]]] = []
        self._fired: Fired = _nobody

    async def open(self, url: str, namespace: str, settings: Settings) -> None:
        self._settings = settings

        async def handle(timer: Timer) -> None:
            self._fired(timer)

        self._handle = handle
        self._docket = Docket(
            name=namespace,
            url=f"{url}?max_connections={int(settings['max_connections'])}",
            execution_ttl=timedelta(0),
        )
        await self._docket.__aenter__()
        self._docket.register(handle)

    async def post(self, timer: Timer) -> None:
        await self._docket.add(self._handle, when=_due(timer))(timer)

    async def post_many(self, timers: Sequence[Timer]) -> None:
        await self._docket.add_many([self._docket.call(self._handle, when=_due(timer))(timer) for timer in timers])

    async def work(self, workers: int, fired: Fired, confirmed: Confirmed) -> None:
        self._fired = fired
        interval = timedelta(seconds=self._settings["interval_s"])
        for number in range(workers):
            worker = Worker(
                self._docket,
                name=f"worker-{id(self)}-{number}",
                concurrency=int(self._settings["concurrency"]),
                minimum_check_interval=interval,
                scheduling_resolution=interval,
            )
            await worker.__aenter__()
            self._running.append((worker, asyncio.create_task(worker.run_forever())))
        await asyncio.sleep(0.5)

    async def rest(self) -> None:
        for worker, task in self._running:
            task.cancel()
            await asyncio.wait([task])
            await worker.__aexit__(None, None, None)
        self._running.clear()

    async def close(self) -> None:
        await self._docket.__aexit__(None, None, None)


def _nobody(_: Timer) -> None:
    raise AssertionError("nothing is run before work()")


def _due(timer: Timer) -> datetime:
    return datetime.fromtimestamp(timer["due_ms"] / 1000, UTC)


if __name__ == "__main__":
    serve(PyDocket())
