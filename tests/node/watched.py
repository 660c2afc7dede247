"""A real backend, watched and disturbed: it notes every call, and fails those it is told to fail."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from typing_extensions import override

from dtimer.errors import BackendError
from dtimer.protocol import operations as op
from dtimer.protocol.backend import Runtime, TimerBackend
from dtimer.protocol.operations import Operation, ReplyT_co
from dtimer.protocol.values import Applied, Extension, Message, Pace
from dtimer.sim import SimBackend

T = TypeVar("T")


class Watched(TimerBackend):
    """A :class:`dtimer.TimerBackend` around a simulator, without its further abilities.

    Attributes:
        calls: name and number of items of each call, in order.
        rooms: that of each claim.
        extended: the extensions that were asked for, alone or with a claim.
    """

    def __init__(self, sim: SimBackend) -> None:
        self.sim = sim
        self.calls: list[tuple[str, int]] = []
        self.rooms: list[int] = []
        self.extended: list[Extension] = []
        self._faults: defaultdict[str, deque[tuple[type[BackendError], bool]]] = defaultdict(deque)
        self._holds: dict[str, asyncio.Event] = {}
        self.listeners: list[AsyncIterator[Message]] = []

    def fail(self, operation: str, error: type[BackendError], *, times: int = 1, applied: bool = False) -> None:
        """The next calls raise this, with or without having been applied."""
        self._faults[operation].extend([(error, applied)] * times)

    def hold(self, operation: str) -> asyncio.Event:
        """Its replies, though applied, stay away until the event is set."""
        self._holds[operation] = asyncio.Event()
        return self._holds[operation]

    def heal(self) -> None:
        """Nothing fails any more."""
        self._faults.clear()

    def count(self, operation: str) -> list[int]:
        """The numbers of items of its calls."""
        return [size for name, size in self.calls if name == operation]

    async def _pass(self, operation: str, size: int, request: Callable[[], Awaitable[T]]) -> T:
        self.calls.append((operation, size))
        if not self._faults[operation]:
            reply = await request()
            if operation in self._holds:
                await self._holds[operation].wait()
            return reply
        error, applied = self._faults[operation].popleft()
        if applied:
            await request()
        raise error(operation, "so the test wants it")

    @property
    def namespace(self) -> str:
        return self.sim.namespace

    @property
    def runtime(self) -> Runtime:
        return self.sim.runtime

    @property
    def pace(self) -> Pace:
        """That of a store whose announcements can get lost."""
        return Pace()

    def _note(self, operation: Operation[object]) -> None:
        if isinstance(operation, op.Claim):
            self.rooms.append(operation.room)
            self.extended += operation.extending
        elif isinstance(operation, op.Extend):
            self.extended += operation.extensions

    @override
    async def close(self) -> None:
        await self.sim.close()

    @override
    async def perform(self, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
        self._note(operation)
        size = len(operation.about())
        size = size if operation.method == "claim" else max(size, 1)
        return await self._pass(operation.method, size, lambda: self.sim.perform(operation))

    @asynccontextmanager
    async def wakeups(self, node: str, epoch: str) -> AsyncGenerator[AsyncIterator[Message]]:
        self.calls.append(("wakeups", 1))
        if self._faults["wakeups"]:
            error, _ = self._faults["wakeups"].popleft()
            raise error("wakeups", "so the test wants it")
        async with self.sim.wakeups(node, epoch) as messages:
            self.listeners.append(messages)
            yield messages
