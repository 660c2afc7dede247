"""Time and chance of the real world: the running asyncio loop's clock, and the operating system's randomness."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final

from dtimer.limits import HANDLER_THREADS_MAX
from dtimer.protocol.backend import Cancellable, Signal

AWAKE_BEFORE_S: Final = 0.0005


def process_name() -> str:
    """By which people know the running process."""
    return f"{socket.gethostname()}-{os.getpid()}"


class AsyncioSignal:
    """A :class:`dtimer.protocol.Signal` on an asyncio event."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.set: Callable[[], None] = self._event.set  # twice for each event, so without a call of our own

    async def wait(self) -> None:
        await self._event.wait()
        self._event.clear()

    def close(self) -> None:
        """Nothing to give back."""


class Alarm:
    """One call at a time of the loop's clock, to the microsecond and never before it.

    An event loop sleeps in whole milliseconds, rounded up, and so is late by half of one on average.
    It is woken half a millisecond earlier, and goes round without sleeping for what is left, if anything is.
    """

    __slots__ = ("_at_s", "_callback", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, at_s: float, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._at_s = at_s
        self._callback = callback
        self._handle: asyncio.Handle = loop.call_at(at_s - AWAKE_BEFORE_S, self._near)

    def cancel(self) -> None:
        self._handle.cancel()

    def _near(self) -> None:
        if self._loop.time() < self._at_s:
            self._handle = self._loop.call_soon(self._near)
        else:
            self._callback()


class AsyncioRuntime:
    """The :class:`dtimer.protocol.Runtime` of every backend that lives in real time."""

    @property
    def simulator(self) -> None:
        """Real time goes on by itself."""

    def now_us(self) -> int:
        return int(asyncio.get_running_loop().time() * 1e6)

    def call_at(self, when_us: int, callback: Callable[[], None]) -> Cancellable:
        return Alarm(asyncio.get_running_loop(), when_us / 1e6, callback)

    async def sleep(self, duration_us: int, *, within: str | None = None) -> None:
        await asyncio.sleep(duration_us / 1e6)

    def signal(self, name: str) -> Signal:
        return AsyncioSignal()

    def executor(self) -> Executor | None:
        return ThreadPoolExecutor(HANDLER_THREADS_MAX, thread_name_prefix="dtimer handler")

    def process_name(self) -> str:
        return process_name()

    def token(self, num_bytes: int) -> str:
        return secrets.token_hex(num_bytes)

    def draw(self, below: int) -> int:
        return secrets.randbelow(below)
