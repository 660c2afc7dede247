"""The wake-ups of one client, with what goes wrong on their way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from typing_extensions import override

from dtimer.errors import StoreUnreachable
from dtimer.protocol.backend import Runtime
from dtimer.protocol.values import Message
from dtimer_conformance.faults import Faults


class Subscription(AsyncIterator[Message]):
    """Hears in a task of its own, so that it can be cut off while its user waits for the next message."""

    def __init__(
        self, wakeups: AbstractAsyncContextManager[AsyncIterator[Message]], faults: Faults, runtime: Runtime
    ) -> None:
        self._wakeups = wakeups
        self._faults = faults
        self._runtime = runtime
        self._passed: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when whatever is said from now on is heard; raises what the backend raises."""
        loop = asyncio.get_running_loop()
        listening: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._hear(listening), name="conformance: wake-ups")
        await listening

    async def stop(self) -> None:
        """Hear no more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def cut(self) -> None:
        """As if the connection had broken: the store knows that nobody listens, and whoever listens knows it too."""
        if self._task is not None:
            self._task.cancel()
        self._passed.put_nowait(StoreUnreachable("wakeups", "the suite has cut the way"))

    @override
    async def __anext__(self) -> Message:
        message = await self._passed.get()
        if isinstance(message, Exception):
            # For whoever asks again.
            self._passed.put_nowait(message)
            raise message
        return message

    async def _hear(self, listening: asyncio.Future[None]) -> None:
        try:
            async with self._wakeups as messages:
                listening.set_result(None)
                async for message in messages:
                    await self._faults.passing("wakeups", self._runtime)
                    # The delay is the fault itself, by the store's clock; nothing here waits for an effect by it.
                    if self._faults.late_us:
                        await self._runtime.sleep(self._faults.late_us)
                    hears = self._faults.hears
                    for passed in (message,) if hears is None else hears(message):
                        self._passed.put_nowait(passed)
            raise StoreUnreachable("wakeups", "the messages came to an end")
        except Exception as error:
            if listening.done():
                self._passed.put_nowait(error)
            else:
                listening.set_exception(error)
        finally:
            listening.cancel()
