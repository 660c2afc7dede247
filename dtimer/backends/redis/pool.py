"""Requests to the store: one command, one reply, never resent, and a failure says whether it may have been applied.

The connections are our own, a bounded set: the limits and retries of the application's pool are made for other things.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol
from weakref import WeakSet

from attrs import frozen
from redis.exceptions import ResponseError
from typing_extensions import override

from dtimer.backends.redis.config import ConnectionSettings, Endpoint, connection_settings
from dtimer.backends.redis.connection import StoreConnection
from dtimer.backends.redis.errors import ScriptMissing, after_sending, before_sending
from dtimer.backends.redis.scripts import Script
from dtimer.backends.redis.wire.resp import Argument, Reply, pack, pack_some
from dtimer.errors import (
    BackendClosed,
    BackendError,
    NotDurable,
    OutcomeUnknown,
    StoreNotWritable,
    StoreReadOnly,
    StoreUnreachable,
)
from dtimer.loop_local import LoopRef

CONNECTIONS_MAX: Final = 16
"""More requests at once only queue up in the server, which runs one script at a time."""

REQUEST_TIMEOUT_DEFAULT_S: Final = 5.0
"""Well above a failover's pause, well below the 10 s after which a delivery's default deadline passes."""


_ASKING: Final = pack((b"ASKING",))


@frozen
class Then:
    """A second command on the same connection: a server counts for each connection what it has to wait for.

    Attributes:
        lasts_s: so much longer than a request it may take.
    """

    command: bytes
    lasts_s: float


class Route(Protocol):
    """The way to one set of keys."""

    async def request(self, operation: str, *arguments: Argument) -> Reply:
        """Send one command; see :meth:`Pool.request`."""
        ...

    async def call(
        self, operation: str, command: bytes, *, rest: Sequence[bytes] | None = None, then: Then | None = None
    ) -> Reply:
        """Send one packed command; see :meth:`Pool.call`."""
        ...

    def listening(self) -> AbstractAsyncContextManager[StoreConnection]:
        """A new connection for a subscription; see :meth:`Pool.listening`."""
        ...


async def run_script(
    route: Route,
    script: Script,
    operation: str,
    keys: Sequence[bytes | str],
    args: Sequence[Argument],
    *,
    common: Sequence[Argument] = (),
    server: str | None = None,
    rows: Sequence[bytes] = (),
    then: Then | None = None,
) -> Reply:
    """Run a script once, in the name of `operation`; the errors are those of :meth:`Pool.call`.

    Args:
        common: what comes before `args`, and mostly is the same as in the call before; with the name of the server
            behind it, if it is not empty.
        server: that name; None: as the connection has learnt it.
        rows: what comes after `args`, packed, three arguments each.

    A server that does not know it yet (or any more: a restart, a failover) is sent its source.
    That resends nothing: by saying so the server has said that nothing ran.
    """
    num_common = len(common) + 1 if common else 0
    beginning = b"*%d\r\n" % (3 + len(keys) + num_common + len(args) + 3 * len(rows))
    packed = _packed(tuple(keys), tuple(common))
    behind = (pack_some(args), *rows)
    rest = behind if common and server is None else None
    if rest is None:
        name = b"" if server is None else pack_some((server,))
        packed = b"".join((packed, name, *behind))
    try:
        return await route.call(operation, b"".join((beginning, script.by_sha1, packed)), rest=rest, then=then)
    except ScriptMissing:
        by_source = pack_some((b"EVAL", script.source))
        return await route.call(operation, b"".join((beginning, by_source, packed)), rest=rest, then=then)


@functools.lru_cache(maxsize=64)
def _packed(keys: tuple[bytes | str, ...], common: tuple[Argument, ...]) -> bytes:
    """The part of a command that many calls of one namespace have in common."""
    return pack_some((len(keys), *keys, *common))


class Unnamed:
    """Names for servers that do not tell theirs (rule O2): one lasts as long as some connection to its address does.

    While one does, the server behind it cannot have been restarted.
    """

    def __init__(self) -> None:
        self._connections: dict[str, WeakSet[StoreConnection]] = {}

    def take(self, address: str, connection: StoreConnection) -> None:
        """Give a new connection to this address a name, if it has not learnt one."""
        if connection.server is not None:
            return
        others = self._connections.setdefault(address, WeakSet())
        lasting = next((other.server for other in others if other.is_quiet()), None)
        connection.server = lasting or pack_some((f"?{secrets.token_hex(4)}",))
        others.add(connection)


class Pool:
    """A bounded set of connections to one store, for one event loop.

    Each new connection asks where the store is. When that turns out to be another server than before,
    the connections to the old one are dropped, subscriptions too: it may be a replica now, which receives no messages.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        request_timeout_s: float = REQUEST_TIMEOUT_DEFAULT_S,
        unnamed: Unnamed | None = None,
    ) -> None:
        """Connects to nothing yet.

        Args:
            unnamed: shared with others that connect to the same servers.
            request_timeout_s: bounds each request as a whole: waiting for a connection, connecting, sending, the reply.
        """
        self._endpoint = endpoint
        self._located: ConnectionSettings | None = None
        self._request_timeout_s = request_timeout_s
        self._slots = asyncio.Semaphore(CONNECTIONS_MAX)
        self._idle: list[StoreConnection] = []
        self._listening: set[StoreConnection] = set()
        # Held strongly: a closed loop may have let go of a connection whose socket is still to be closed.
        self._connections: set[StoreConnection] = set()
        self._unnamed = unnamed or Unnamed()
        self._loops_end: AsyncGenerator[None] | None = None
        self._num_requests = 0
        self._drained = asyncio.Event()
        self._closed = False

    async def request(self, operation: str, *arguments: Argument) -> Reply:
        """Send one command on one connection and return its reply: :meth:`call`, packed."""
        return await self.call(operation, pack(arguments))

    async def call(
        self, operation: str, command: bytes, *, rest: Sequence[bytes] | None = None, then: Then | None = None
    ) -> Reply:
        """Send one packed command on one connection and return its reply; with `then`, a list of both replies.

        With `rest`, the name of the connection's server goes between the two (rule O2).

        `operation` is the method of :class:`dtimer.TimerBackend` in whose name it is sent; errors carry it.
        When the caller is cancelled, the command may or may not have been sent, and its connection is gone.

        Raises:
            StoreUnreachable: it was not sent.
            StoreRefused: the server answered with an error; one of its subclasses if the reason is known.
            OutcomeUnknown: it was sent, at least in part, and the reply was lost.
            BackendClosed: :meth:`close` was called; it was not sent.
            NotDurable: `then` failed; the command itself was applied.
        """
        by_s = asyncio.get_running_loop().time() + self._request_timeout_s
        return await self.send(operation, command, rest=rest, by_s=by_s, then=then)

    async def send(
        self,
        operation: str,
        command: bytes,
        *,
        rest: Sequence[bytes] | None = None,
        by_s: float,
        asking: bool = False,
        then: Then | None = None,
    ) -> Reply:
        """As :meth:`call`, until the loop's clock shows `by_s`.

        Args:
            asking: send ``ASKING`` first, since another server of the cluster has redirected this request here.
        """
        self._num_requests += 1
        try:
            connection = await self._taken(operation, by_s)
            try:
                return await self._exchange(connection, operation, command, by_s, rest=rest, asking=asking, then=then)
            finally:
                self._slots.release()
        finally:
            self._num_requests -= 1
            if self._closed and not self._num_requests:
                self._drained.set()

    @override
    def __str__(self) -> str:
        """The address, for messages."""
        return str(self._endpoint if self._located is None else self._located)

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[StoreConnection]:
        """A new connection for a subscription; dropped on exit, or when the connections are closed."""
        self._require_open("wakeups")
        home = LoopRef()
        connection = await self._connected()
        try:
            self._require_open("wakeups")
        except BackendClosed:
            connection.drop()
            raise
        self._listening.add(connection)
        try:
            yield connection
        finally:
            self._listening.discard(connection)
            connection.drop()
            if home.is_here():  # else the loop was closed, and this is collected
                # The socket is closed in the next turn of the loop, which may be its last.
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Take no more requests, wait for those under way (each ends within its timeout), close all. Idempotent."""
        self.refuse()
        self._drop_idle()
        for connection in tuple(self._listening):
            connection.drop()
        if self._num_requests:
            await self._drained.wait()
        loops_end, self._loops_end = self._loops_end, None
        if loops_end is not None:
            await loops_end.aclose()
        # Sockets are closed in the next turn of the loop, which may be its last.
        await asyncio.sleep(0)

    def refuse(self) -> None:
        """Take no more requests. Unlike all else here, this may be called in any thread."""
        self._closed = True

    def drop(self) -> None:
        """End all connections at once; the outcome of requests under way is unknown."""
        self._idle.clear()
        for connection in tuple(self._connections):
            connection.drop()

    def abandon(self) -> None:
        """The loop was closed, so nothing of it may be called any more: close the sockets behind its back."""
        self._idle.clear()
        for connection in tuple(self._connections):
            connection.abandon()

    async def _taken(self, operation: str, by_s: float) -> StoreConnection:
        """A connection that stands, with a slot for it; nothing has been sent when this fails."""
        if self._idle and not self._slots.locked() and self._idle[-1].is_quiet():
            # The usual case, in which nothing is waited for: even to set a time limit for it would cost more.
            await self._slots.acquire()
            return self._idle.pop()
        try:
            async with asyncio.timeout_at(by_s):
                await self._slots.acquire()
                try:
                    return await self._take(operation)
                except BaseException:
                    self._slots.release()
                    raise
        except BackendError:
            raise
        except TimeoutError as error:
            problem = f"{self} was not reached within {self._request_timeout_s:g} s"
            raise StoreUnreachable(operation, problem) from error
        except Exception as error:
            raise before_sending(operation, error) from error

    async def _take(self, operation: str) -> StoreConnection:
        """An idle connection that stands, the most recently used one first, or a new one."""
        self._require_open(operation)
        while self._idle:
            connection = self._idle.pop()
            usable = False
            try:
                usable = await connection.is_usable()
            finally:
                if not usable:
                    connection.drop()
            if usable:
                return connection
        return await self._connected()

    def _require_open(self, operation: str) -> None:
        if self._closed:
            raise BackendClosed(operation, "the backend was closed")

    async def _connected(self) -> StoreConnection:
        settings = await self._endpoint.locate()
        before, self._located = self._located, settings
        if before is not None and before != settings:
            self._drop_idle()
            for connection in self._listening:
                connection.drop()  # its reader is woken, and subscribes again
        connection = await StoreConnection.open(settings)
        self._unnamed.take(str(settings), connection)
        self._connections = {connection, *(each for each in self._connections if not each.has_ended)}
        if self._loops_end is None:
            self._loops_end = self._until_loops_end()
            await anext(self._loops_end)
        return connection

    async def _until_loops_end(self) -> AsyncGenerator[None]:
        """A loop closes the asynchronous generators that it began before it is closed itself, as `asyncio.run` does.

        That is the last moment at which connections can be closed by it.
        """
        try:
            yield
        finally:
            self._loops_end = None
            self.drop()
            await asyncio.sleep(0)

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().drop()

    async def _exchange(
        self,
        connection: StoreConnection,
        operation: str,
        command: bytes,
        by_s: float,
        *,
        rest: Sequence[bytes] | None,
        asking: bool,
        then: Then | None,
    ) -> Reply:
        begun = False
        try:
            if asking:
                await connection.exchange(_ASKING, deadline=by_s)
            begun = True
            reply = await connection.exchange(command, rest=rest, deadline=by_s)
        except ResponseError as error:
            refused = after_sending(operation, error)
            self._give_back(connection)
            if isinstance(refused, StoreReadOnly | StoreNotWritable):
                # A replica by now, or cut off from its replicas: a new connection finds the master.
                self._drop_idle()
            raise refused from error
        except BaseException as error:
            # Also on cancellation: the reply may still come, and would be taken for the next request's.
            connection.drop()
            sent = begun and connection.sent
            if isinstance(error, TimeoutError):
                # A network that has forgotten one connection has forgotten those beside it,
                # and each would cost as much time again.
                self._drop_idle()
                within = f"within {self._request_timeout_s:g} s"
                if sent:
                    raise OutcomeUnknown(operation, f"no reply {within}") from error
                raise StoreUnreachable(operation, f"it could not be sent {within}") from error
            if isinstance(error, Exception):
                raise (after_sending if sent else before_sending)(operation, error) from error
            raise
        if then is not None:
            reply = [reply, await self._second(connection, operation, then, by_s)]
        self._give_back(connection)
        return reply

    async def _second(self, connection: StoreConnection, operation: str, then: Then, by_s: float) -> Reply:
        try:
            return await connection.exchange(then.command, deadline=by_s + then.lasts_s)
        except ResponseError as error:
            self._give_back(connection)
            raise NotDurable(operation, f"the server cannot wait for that: {error}") from error
        except BaseException as error:
            connection.drop()
            if isinstance(error, Exception):
                raise NotDurable(operation, f"the server did not say how far it got: {error}") from error
            raise

    def _give_back(self, connection: StoreConnection) -> None:
        if self._closed:
            connection.drop()
        else:
            self._idle.append(connection)


__all__ = [
    "CONNECTIONS_MAX",
    "REQUEST_TIMEOUT_DEFAULT_S",
    "Argument",
    "ConnectionSettings",
    "Pool",
    "Reply",
    "connection_settings",
]
