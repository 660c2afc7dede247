"""The store as a node of a faulty world sees it: the methods of a backend, on connections that break.

What the node meets is what :class:`dtimer.RedisBackend` would let it meet: the same errors with the same meaning,
the same time limit for a request as a whole, the same number of connections, none of which resends anything.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from typing_extensions import override

from dtimer.errors import BackendClosed, StoreRefused, StoreUnreachable
from dtimer.limits import SECOND_US
from dtimer.protocol.backend import OperationMethods, Runtime
from dtimer.protocol.operations import Operation, ReplyT_co
from dtimer.protocol.values import Applied, Message, Pace
from dtimer.sim.faulty.connection import WAKEUPS, Connection, Request, Subscription
from dtimer.sim.faulty.link import Link
from dtimer.sim.loop import Process, SimLoop

OnReply: TypeAlias = Callable[[Operation[Any], Applied[Any]], None]
CONNECTIONS_MAX: Final = 16
REQUEST_TIMEOUT_US: Final = 5 * SECOND_US
"""Both as in the Redis backend."""


class LinkedBackend(OperationMethods):
    """A :class:`dtimer.TimerBackend` for the programs of one simulated process. Made by :meth:`Host.backend`.

    Attributes:
        process: that for which it was made.
    """

    def __init__(
        self, link: Link, process: Process, *, loop: SimLoop, runtime: Runtime, namespace: str, on_reply: OnReply
    ) -> None:
        self.process = process
        self._namespace = namespace
        self._link = link
        self._loop = loop
        self._runtime = runtime
        self._on_reply = on_reply
        self._closed = False
        self._idle: list[Connection] = []
        self._busy = 0
        self._under_way: dict[Request, None] = {}
        self._queue: deque[asyncio.Future[None]] = deque()
        self._drained: asyncio.Future[None] | None = None
        self._subscriptions: dict[Subscription, None] = {}

    @property
    def namespace(self) -> str:
        return self._namespace

    @property
    def runtime(self) -> Runtime:
        return self._runtime

    @property
    def pace(self) -> Pace:
        return self._link.pace

    async def close(self) -> None:
        self._closed = True
        self._idle.clear()
        if self._busy:
            self._drained = self._loop.create_future()
            await self._drained

    @override
    async def perform(self, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
        method = operation.method
        if self._closed:
            raise BackendClosed(method, "the backend was closed")
        deadline_us = self._loop.now_us + REQUEST_TIMEOUT_US
        if self._busy >= CONNECTIONS_MAX:
            await self._turn(method, deadline_us)
        else:
            self._busy += 1
        try:
            connection = self._idle.pop() if self._idle else await self._connect(method, deadline_us)
            request = self._link.send(self, connection, operation, deadline_us)
            self._under_way[request] = None
            try:
                applied: Applied[ReplyT_co] = await request.future
            except StoreRefused:
                self._give_back(connection)
                raise
            finally:
                del self._under_way[request]
            self._give_back(connection)
            self._on_reply(operation, applied)
            return applied
        finally:
            self._done()

    @asynccontextmanager
    async def wakeups(self, node: str, epoch: str) -> AsyncGenerator[AsyncIterator[Message]]:
        if self._closed:
            raise BackendClosed(WAKEUPS, "the backend was closed")
        subscription = Subscription(self._link, self.process, self._namespace, epoch, node)
        request = self._link.subscribe(self, subscription, self._loop.now_us + REQUEST_TIMEOUT_US)
        self._subscriptions[subscription] = None
        self._under_way[request] = None
        try:
            try:
                await request.future
            finally:
                del self._under_way[request]
            yield subscription
        finally:
            del self._subscriptions[subscription]
            self._link.unsubscribe(subscription)

    def reset(self, generation: int, why: str) -> None:
        """The store's end says that all connections up to this generation are gone."""
        self._idle = [connection for connection in self._idle if connection.generation > generation]
        for request in tuple(self._under_way):
            # One that the store has not seen yet (-1) meets there whatever is there then.
            if 0 <= request.connection.generation <= generation:
                self._link.broke(request, why)
        for subscription in self._subscriptions:
            if 0 <= subscription.connection.generation <= generation:
                subscription.break_(why)

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        return tuple(self._subscriptions)

    def cut(self) -> None:
        """The store's end closes all connections; this one does not know yet."""
        for connection in self._idle:
            connection.cut = True
        for request in self._under_way:
            request.connection.cut = True

    async def _connect(self, method: str, deadline_us: int) -> Connection:
        request = self._link.connect(self, method, deadline_us)
        self._under_way[request] = None
        try:
            await request.future
        finally:
            del self._under_way[request]
        return request.connection

    async def _turn(self, method: str, deadline_us: int) -> None:
        """Wait until one of the requests under way is done, and take its place."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout_at(deadline_us / 1e6):
                await turn
        except BaseException as error:
            if not turn.cancelled():
                # It was given the place at this very moment.
                self._done()
            if isinstance(error, TimeoutError):
                raise StoreUnreachable(method, "no connection was free within 5 s") from error
            raise

    def _done(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._busy -= 1
        if not self._busy and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def _give_back(self, connection: Connection) -> None:
        if not self._closed and not connection.broken:
            self._idle.append(connection)
