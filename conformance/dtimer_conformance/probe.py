"""Somebody who hears what a node is told, without being one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Self

from dtimer.protocol.values import Message, Pulse, Wakeup


class Probe:
    """Hears from :meth:`start` to :meth:`stop`. Every message is taken at once, as a node would take it.

    Attributes:
        heard: all messages, in the order in which they came.
        end: why it hears no more, if it was not stopped.
    """

    def __init__(self, wakeups: AbstractAsyncContextManager[AsyncIterator[Message]]) -> None:
        self.heard: list[Message] = []
        self.end: Exception | None = None
        self._wakeups = wakeups
        self._task: asyncio.Task[None] | None = None

    @property
    def told(self) -> list[Wakeup]:
        return [message for message in self.heard if isinstance(message, Wakeup)]

    @property
    def pulses(self) -> list[Pulse]:
        return [message for message in self.heard if isinstance(message, Pulse)]

    async def start(self) -> Self:
        """Return when whatever is said from now on is heard."""
        loop = asyncio.get_running_loop()
        listening: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._listen(listening), name="conformance: listening")
        await listening
        return self

    async def stop(self) -> None:
        """Hear no more. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _listen(self, listening: asyncio.Future[None]) -> None:
        # Entered and left in one task, as some context managers must be.
        try:
            async with self._wakeups as messages:
                listening.set_result(None)
                async for message in messages:
                    self.heard.append(message)
            self.end = EOFError("the messages came to an end without an error")
        except Exception as error:
            if listening.done():
                self.end = error
            else:
                listening.set_exception(error)
        finally:
            listening.cancel()
