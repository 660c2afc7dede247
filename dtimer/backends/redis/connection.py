"""One connection to the store, exact about what it has sent.

redis-py connects and authenticates; then the transport is ours, so that a request costs no more than its bytes:
redis-py's own way through a stream reader takes three times as long.
Three modules use private attributes of redis-py, and basedpyright refuses a fourth:
this one (a connection's streams and ``_close``), :mod:`dtimer.backends.redis.handshake` (the base of its parser),
and :mod:`dtimer.backends.redis.config` (the address that a Sentinel client must use).
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import re
import select
from collections import deque
from collections.abc import Sequence
from typing import Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, NoPermissionError, ResponseError
from typing_extensions import override

from dtimer.backends.redis.config import ConnectionSettings
from dtimer.backends.redis.immediate_future import ImmediateFuture
from dtimer.backends.redis.sockets import close_socket, let_go_when_forked
from dtimer.backends.redis.wire.resp import Argument, Parser, Reply, ReplyTooLarge, pack, pack_some
from dtimer.limits import REPLY_MAX_BYTES

UNREAD_MAX: Final = 10_000
"""Replies that stand unread: one for a request, some messages for a subscription."""
_LOOP_TURNS: Final = 3
"""In one turn of the event loop it sees that a socket is readable, in the next it reads; one to spare."""

_PING: Final = pack((b"PING",))
_ROLE: Final = pack((b"ROLE",))
_INFO: Final = pack((b"INFO", b"server")) + pack((b"INFO", b"replication"))
_RUN_ID: Final = re.compile(rb"^run_id:(\w{8})", re.MULTILINE)
_REPLICATION_ID: Final = re.compile(rb"^(?:master|primary)_replid:(\w{8})", re.MULTILINE)


class StoreConnection(asyncio.Protocol):
    """A connected connection. Make it with :meth:`open`.

    What goes wrong comes as redis-py's exceptions; :mod:`dtimer.backends.redis.errors` knows what they mean.

    Attributes:
        server: the server's name (rule O2), packed as an argument; None if it does not tell it.
        sent: the last command has left this process whole, or may have. One that has not was not run:
            a server runs a command when it has all of it.
    """

    def __init__(self, raw: AbstractConnection, writer: asyncio.StreamWriter, server: bytes | None) -> None:
        # Both are kept: they would close the transport when they are forgotten.
        self._raw = raw
        self._writer = writer
        self._transport = writer.transport
        self.server = server
        self._parser = Parser()
        self._replies: deque[Reply | ResponseError] = deque()
        self._unread_bytes = 0
        self.sent = True
        self._ended: Exception | None = None
        self._waiter: ImmediateFuture | None = None
        self._deadline: float | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._poll = None
        if hasattr(select, "poll"):  # everywhere but on Windows
            self._poll = select.poll()
            self._poll.register(writer.get_extra_info("socket"), select.POLLIN)
        self._transport.set_protocol(self)
        # Any byte that the kernel does not take pauses writing, until it has taken all.
        self._transport.set_write_buffer_limits(high=0)

    @classmethod
    async def open(cls, settings: ConnectionSettings) -> StoreConnection:
        """Connect, authenticate, wait for one reply of the server, and learn its name.

        Without that a proxy's or a dying server's accept would pass for a connection,
        and the first request on it would be lost instead of never sent.
        """
        raw = settings.connection()
        try:
            await raw.connect()
            writer = raw._writer
            if writer is None:  # it is set as long as connect() returned normally
                raise RedisConnectionError("the connection was closed at once")
            let_go_when_forked(writer)
            writer.write((_ROLE if settings.master_only else _PING) + _INFO)
            # Not to be allowed a PING is an answer too; whether the user may do what matters will show.
            with contextlib.suppress(NoPermissionError):
                reply = await raw.read_response(disconnect_on_error=False)
                if settings.master_only and not (isinstance(reply, list) and reply[:1] == [b"master"]):
                    raise RedisConnectionError(f"{settings} is no master")
            name = await _name(raw)
            if await raw.can_read():
                raise RedisConnectionError("the server ended the connection, or said more than it was asked for")
        except BaseException:
            _abort(raw)
            raise
        return cls(raw, writer, name)

    async def exchange(
        self, command: bytes, *, rest: Sequence[bytes] | None = None, deadline: float | None = None
    ) -> Reply:
        """Send one packed command and read its reply. After any other error than ``ResponseError``, drop the line.

        Args:
            rest: what follows in it after the server's name, if that is one of its arguments.
            deadline: a time of the event loop at which the line ends with a TimeoutError.
        """
        self._deadline = deadline
        if deadline is not None and (self._alarm is None or deadline < self._alarm.when()):
            self._set_alarm(deadline)
        try:
            if self._ended is not None:
                self.sent = False
                raise self._ended
            if rest is not None:
                assert self.server is not None, "one that the server does not tell was made"
                command = b"".join((command, self.server, *rest))
            self._transport.write(command)
            return await self.read()
        finally:
            self._deadline = None

    def _set_alarm(self, when: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if when is None else self._loop.call_at(when, self._look)

    def _look(self) -> None:
        """The alarm has come; one serves many requests, since to set one for each has its price."""
        self._alarm = None
        if self._deadline is None:
            return
        if self._deadline <= self._loop.time():
            self._end(TimeoutError("no reply in time"))
        else:
            self._set_alarm(self._deadline)

    async def read(self) -> Reply:
        """Wait for one reply, for as long as it takes. When cancelled, nothing is lost: the next call reads it."""
        while not self._replies:
            if self._ended is not None:
                raise self._ended
            self._waiter = ImmediateFuture()
            await self._waiter
        reply = self._replies.popleft()
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    def is_quiet(self) -> bool:
        """Whether it stands, and nothing unasked for has come, as far as this host knows.

        A server that closes it after this check, or whose FIN has not arrived yet, cannot be detected:
        the request is lost then, and its outcome unknown.
        """
        return self._stands() and self._poll is not None and not self._poll.poll(0)

    async def is_usable(self) -> bool:
        """The same when something has come: a TLS ticket does no harm."""
        if not self.is_quiet():
            # The kernel knows something that the event loop has not read yet: an end, a TLS ticket, stray bytes.
            for _ in range(_LOOP_TURNS):
                await asyncio.sleep(0)
        return self._stands()

    def _stands(self) -> bool:
        return not (self._replies or self._ended or self._parser.pending or self._transport.is_closing())

    @property
    def has_ended(self) -> bool:
        """It was dropped, or the server ended it."""
        return self._ended is not None

    def abandon(self) -> None:
        """End it where its event loop was closed, which takes no more callbacks: close the socket itself."""
        self._ended = self._ended or RedisConnectionError("the event loop was closed")
        self._raw._writer = self._raw._reader = None
        close_socket(self._writer)

    def drop(self) -> None:
        """End it at once, with whatever it has not sent yet. Harmless when it has ended."""
        if self._loop.is_closed():
            self.abandon()
            return
        _abort(self._raw)
        self._end(RedisConnectionError("the connection was dropped"))

    # --- what the event loop says ------------------------------------------------------------------------------

    @override
    def data_received(self, data: bytes) -> None:
        if self._ended is not None:
            return
        # What stands unread has a bound, as a reply that does not end has.
        self._unread_bytes = self._unread_bytes + len(data) if self._replies else 0
        try:
            if self._unread_bytes > REPLY_MAX_BYTES or len(self._replies) > UNREAD_MAX:
                raise ReplyTooLarge("more replies than are read")
            self._replies += self._parser.feed(data)
        except InvalidResponse as error:
            _abort(self._raw)
            self._end(error)
        # The last thing done here, since who waits goes on at once, and may send the next request.
        if self._waiter is not None:
            self._waiter.wake()

    @override
    def pause_writing(self) -> None:
        self.sent = False

    @override
    def resume_writing(self) -> None:
        self.sent = self.sent or self._ended is None

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or RedisConnectionError("the server closed the connection"))

    def _end(self, why: Exception) -> None:
        self._set_alarm(None)
        if self._ended is None:
            self._ended = why
        if self._waiter is not None:
            self._waiter.wake_soon()


async def _name(raw: AbstractConnection) -> bytes | None:
    """A name that no other server has, nor this one before a restart or a promotion (rule O2); None if not told."""
    parts: list[bytes] = []
    for wanted in (_RUN_ID, _REPLICATION_ID):
        try:
            reply = await raw.read_response(disconnect_on_error=False)
        except ResponseError:  # it is forbidden, or has another name
            continue
        found = wanted.search(reply) if isinstance(reply, bytes) else None
        if found is not None:
            parts.append(found[1])
    return pack_some((b"-".join(parts),)) if len(parts) == 2 else None


async def ask(settings: ConnectionSettings, *command: Argument) -> Reply:
    """One question on a connection of its own, for as long as it takes."""
    connection = await StoreConnection.open(settings)
    try:
        return await connection.exchange(pack(command))
    finally:
        connection.drop()


def _abort(raw: AbstractConnection) -> None:
    """Close it at once. Harmless when that was done.

    It has no writer then. A TLS transport of Python 3.11.2 that is closed twice cannot be aborted any more.
    """
    writer = raw._writer
    if writer is not None:
        # close() would first deliver what is buffered, if need be minutes later, when a partition heals.
        writer.transport.abort()
    raw._close()
