"""A node process that behaves badly on purpose: ``python -m soak.node URL NODE SEED HISTORY``.

What it does with a delivery is drawn from the seed, the id and the delivery's number.
SIGUSR1 makes it behave from then on; SIGTERM makes it leave.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from typing_extensions import override

from dtimer import DTimer, Event, HandlerFailed, JsonValue, OutcomeUnknown, StoreLostWrites
from dtimer.backends.redis import RedisBackend
from soak.history import NAMESPACE, Deed, Did, Got, Pen, Told, now_us

MAX_EVENTS: Final = 64
CONFIRM_TIMEOUT_S: Final = 2.0
EXTENSION_S: Final = 3.0
WORK_S: Final = 0.02


class Panic(BaseException):
    """What an extension written in another language raises."""


class Mute(Exception):
    """It cannot be shown."""

    @override
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    @override
    def __str__(self) -> str:
        raise RuntimeError("no str")


ODD: Final[tuple[Callable[[], BaseException], ...]] = (
    lambda: RuntimeError("as the seed would have it"),
    lambda: asyncio.CancelledError("of another task"),
    lambda: ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    lambda: BaseExceptionGroup("several", [Panic("one"), ValueError("two")]),
    lambda: Panic("as the seed would have it"),
    lambda: GeneratorExit("as the seed would have it"),
    Mute,
)
"""What handlers raise: each kind that does not order the program to end."""


class Worker:
    """Takes deliveries and writes down what it did with each."""

    def __init__(self, node: str, seed: int, pen: Pen) -> None:
        self._node = node
        self._seed = seed
        self._pen = pen
        self.calm = False

    async def handle(self, event: Event[JsonValue]) -> None:
        self._pen.write(
            Got(
                node=self._node,
                id=event.id,
                number=event.delivery_number,
                num_retries=event.num_retries,
                due_us=_us(event.due.timestamp()),
                at_us=_us(event.delivered_at.timestamp()),
                deadline_us=None if event.deadline is None else _us(event.deadline.timestamp()),
                now_us=now_us(),
                intact=event.payload == payload(event.id),
            )
        )
        if not event.requires_confirm:
            return
        chance = 0.0 if self.calm else random.Random(f"{self._seed} {event.id} {event.delivery_number}").random()
        await asyncio.sleep(WORK_S * chance)
        if chance < 0.75:
            await self._do(event, Deed.CONFIRMED)
        elif chance < 0.80:
            await self._do(event, Deed.RELEASED)
        elif chance < 0.85:
            await self._do(event, Deed.EXTENDED)
            await asyncio.sleep(EXTENSION_S * 0.8)
            await self._do(event, Deed.CONFIRMED)
        elif chance < 0.90:
            await asyncio.sleep(CONFIRM_TIMEOUT_S * 2 * chance)  # perhaps past the deadline
            await self._do(event, Deed.CONFIRMED)
        elif chance < 0.92:
            await self._do(event, Deed.BURIED)
        elif chance < 0.97:
            self._pen.write(Did(event.id, event.delivery_number, Deed.RAISED, now_us(), now_us()))
            # Without a retry policy it comes again at its deadline.
            raise ODD[round(chance * 1e6) % len(ODD)]()
        # else: it forgets to confirm.

    async def _do(self, event: Event[JsonValue], deed: Deed) -> None:
        begin_us = now_us()
        # Before the call as well: whoever is killed in it may have been heard.
        self._pen.write(Did(event.id, event.delivery_number, Deed.UNKNOWN, begin_us, begin_us))
        try:
            if deed is Deed.CONFIRMED:
                worked = bool(await event.confirm())
            elif deed is Deed.RELEASED:
                worked = bool(await event.release(200, counted=True))
            elif deed is Deed.EXTENDED:
                worked = bool(await event.extend(EXTENSION_S))
            else:
                worked = bool(await event.bury("as the seed would have it"))
        except OutcomeUnknown:
            done = Deed.UNKNOWN
        else:
            done = deed if worked else Deed.TOO_LATE
        extended_us = _us(EXTENSION_S) if done is Deed.EXTENDED else 0
        self._pen.write(Did(event.id, event.delivery_number, done, begin_us, now_us(), extended_us))


def payload(id: str) -> JsonValue:
    """Differs for each id, and is long enough to be cut."""
    return {"id": id, "text": f"[{id}] " * 20, "numbers": [0, -1, 2**53, 0.1], "none": None, "empty": []}


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def writing_down(node: str, pen: Pen) -> Callable[[Exception], None]:
    """An error handler for a timer."""

    def told(error: Exception) -> None:
        ids = [error.id] if isinstance(error, HandlerFailed) else []
        if isinstance(error, StoreLostWrites):
            ids += [id for call in error.calls for id in call.ids]
        pen.write(Told(node, type(error).__name__, tuple(ids), now_us()))

    return told


async def serve(url: str, node: str, seed: int, history: Path) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    pen = Pen(history)
    worker = Worker(node, seed, pen)
    loop.add_signal_handler(signal.SIGUSR1, setattr, worker, "calm", True)
    backend = RedisBackend.from_url(url, NAMESPACE)
    async with AsyncExitStack() as stack:
        # Not the backend's own `async with`: that asks the server once, whose reply may be lost as any other may.
        stack.push_async_callback(backend.close)
        timer = DTimer(backend, node_id=node, max_events=MAX_EVENTS, confirm_timeout=CONFIRM_TIMEOUT_S)
        timer.on("event", worker.handle)
        timer.on("error", writing_down(node, pen))
        timer.on("ready", lambda: print("ready", flush=True))
        while True:
            try:
                await timer.join()
                break
            except Exception as error:  # the server is away; so it is for everybody who starts then
                print(f"not joined: {error}", file=sys.stderr, flush=True)
                await asyncio.sleep(0.2)
        await stop.wait()
        await timer.leave()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
