"""The Python end of the conversation with a peer's process: a JSON object a line in, one out for each.

All that is counted and timed is counted and timed here, in the same way for every peer;
a peer's module only calls the peer. ``serving.mjs`` is the same for Node.
"""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import json
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol, TypedDict

from benchmarks.peers import ORJSON

TEXT: Final = "x" * 155
"""Makes a payload of about 200 bytes of JSON."""


class Timer(TypedDict):
    """A payload."""

    n: int
    due_ms: int
    text: str


Settings = Mapping[str, float]
Fired = Callable[[Timer], None]
Confirmed = Callable[[], None]


class Peer(Protocol):
    """What a peer's module gives."""

    @property
    def packages(self) -> Sequence[str]:
        """Whose versions are reported."""
        ...

    async def open(self, url: str, namespace: str, settings: Settings) -> None: ...

    async def post(self, timer: Timer) -> None:
        """One, and return when it is stored."""
        ...

    async def post_many(self, timers: Sequence[Timer]) -> None:
        """All, with one call of the peer's; NotImplementedError if it has none."""
        ...

    async def work(self, workers: int, fired: Fired, confirmed: Confirmed) -> None:
        """Begin to take timers. `fired` is called first in every handler.

        `confirmed` is called when the store has confirmed one, where the peer lets a handler know that.
        """
        ...

    async def rest(self) -> None:
        """Take no more."""
        ...

    async def close(self) -> None: ...


def _now_us() -> int:
    return time.time_ns() // 1000


def _version(package: str) -> str:
    if package == "orjson" and not ORJSON:
        return "not used"
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


class Serving:
    """One peer, doing what it is told."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._fires: list[tuple[int, int]] = []
        self._last_us = 0

    async def obey(self, order: dict[str, object]) -> dict[str, object]:
        name = order.pop("do")
        method: Callable[..., Coroutine[object, object, dict[str, object] | None]] = getattr(self, f"do_{name}")
        return await method(**order) or {}

    async def do_open(self, url: str, namespace: str, settings: Settings) -> dict[str, object]:
        await self._peer.open(url, namespace, settings)
        versions = {package: _version(package) for package in self._peer.packages}
        return {"versions": versions, "runtime": f"Python {sys.version.split()[0]}"}

    async def do_post(  # noqa: PLR0917  # called by name
        self, how: str, num: int, first: int, due_ms: int, spread_ms: int, step_ms: int, callers: int, batch: int
    ) -> dict[str, object]:
        """Post `num` timers and tell how long it took.

        Each is due `step_ms` after the one before it, and then up to `spread_ms` later.
        """
        draw = random.Random(first).random
        timers: Iterator[Timer] = iter(
            [
                Timer(n=first + index, due_ms=due_ms + index * step_ms + int(draw() * spread_ms), text=TEXT)
                for index in range(num)
            ]
        )
        gc.collect()
        cpu_s = time.process_time()
        start_s = time.perf_counter()
        if how == "one":
            for timer in timers:
                await self._peer.post(timer)
        elif how == "callers":
            await asyncio.gather(*(self._caller(timers) for _ in range(callers)))
        elif how == "batch":
            while part := list(islice(timers, batch)):
                await self._peer.post_many(part)
        else:
            raise ValueError(how)
        return {"seconds": time.perf_counter() - start_s, "cpu_s": time.process_time() - cpu_s}

    async def _caller(self, timers: Iterator[Timer]) -> None:
        for timer in timers:
            await self._peer.post(timer)

    async def do_pace(
        self, rate: float, seconds: float, delay_min_ms: int, delay_max_ms: int, seed: int
    ) -> dict[str, object]:
        """Post so many a second, each at its time whether or not those before it have been answered."""
        draw = random.Random(seed).randint
        num = int(rate * seconds)
        tasks: set[asyncio.Task[None]] = set()
        failures: list[BaseException] = []

        def done(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            if (error := task.exception()) is not None:
                failures.append(error)

        start_s = time.perf_counter()
        for n in range(num):
            pause_s = start_s + n / rate - time.perf_counter()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            elif n % 20 == 0:
                await asyncio.sleep(0)
            due_ms = _now_us() // 1000 + 1 + draw(delay_min_ms, delay_max_ms)
            task = asyncio.create_task(self._post(Timer(n=n, due_ms=due_ms, text=TEXT)))
            tasks.add(task)
            task.add_done_callback(done)
        while tasks:
            await asyncio.wait(tasks)
        if failures:
            raise failures[0]
        return {"num": num, "seconds": time.perf_counter() - start_s}

    async def _post(self, timer: Timer) -> None:
        await self._peer.post(timer)

    async def do_work(self, workers: int) -> None:
        self._fires = []
        self._last_us = 0
        await self._peer.work(workers, self._fired, self._confirmed)

    def _fired(self, timer: Timer) -> None:
        self._last_us = now_us = _now_us()
        self._fires.append((timer["n"], now_us - timer["due_ms"] * 1000))

    def _confirmed(self) -> None:
        self._last_us = _now_us()

    async def do_count(self) -> dict[str, object]:
        return {"num": len(self._fires)}

    async def do_fires(self) -> dict[str, object]:
        """Which fired, each with its lateness in us, and when the last of them was done with."""
        return {"fires": self._fires, "last_us": self._last_us}

    async def do_rest(self) -> None:
        await self._peer.rest()

    async def do_close(self) -> None:
        await self._peer.close()


async def _converse(peer: Peer, replies: int) -> None:
    serving = Serving(peer)
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        try:
            reply = await serving.obey(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}", "unsupported": isinstance(error, NotImplementedError)}
        text = json.dumps(reply, separators=(",", ":")).encode() + b"\n"
        while text:
            text = text[os.write(replies, text) :]


def serve(peer: Peer) -> None:
    """Do as told until the input ends."""
    # Replies go where standard output was; what a peer prints must not come between them.
    replies = os.dup(1)
    os.dup2(2, 1)
    if "--uvloop" in sys.argv:
        import uvloop

        uvloop.run(_converse(peer, replies))
    else:
        asyncio.run(_converse(peer, replies))
