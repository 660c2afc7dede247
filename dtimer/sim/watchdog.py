"""A wait in real time, for the one question that virtual time cannot answer: does the world hang?

A thread measures it, because Python's clocks may be frozen: freezegun replaces `time.monotonic`, an event loop's clock.
Waiting for a lock, as the thread does, is timed by the operating system.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress


class Tick:
    """Completes when it is told to, or after `seconds` of real time."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[bool] = self._loop.create_future()
        self._thread = threading.Timer(seconds, self._ring_from_thread)
        self._thread.daemon = True

    def end(self) -> None:
        """End the wait now."""
        self._complete(True)

    async def wait(self) -> bool:
        """Whether it was ended before its time."""
        self._thread.start()
        try:
            return await self._done
        finally:
            self._thread.cancel()

    def _ring_from_thread(self) -> None:
        # The loop may have been closed at this very moment; then nobody waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._complete, False)

    def _complete(self, ended: bool) -> None:
        if not self._done.done():
            self._done.set_result(ended)
