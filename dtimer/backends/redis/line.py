"""One connection to the store, exact about what it has sent.

The protocol is redis-py's; this adds what it does not offer: a look whether an idle connection still stands,
and an end that drops unsent bytes rather than delivering them minutes later.
No other module touches private attributes of redis-py (``_writer``, ``_close``).
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import select
from typing import Final, TypeAlias, cast

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError

from dtimer.backends.redis.settings import ConnectionSettings

Reply: TypeAlias = "int | bytes | list[Reply] | None"
"""What a server answers in RESP2. Status replies (``+OK``) are bytes too."""

Argument: TypeAlias = bytes | str | int
"""Part of a command; text goes as UTF-8."""

_LOOP_TURNS: Final = 3
"""In one turn of the event loop it sees that a socket is readable, in the next it reads; one to spare."""


def pack(arguments: tuple[Argument, ...]) -> bytes:
    """A command as it goes over the wire. (Three times as fast as redis-py's, which splits and encodes on the way.)"""
    parts = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        if isinstance(argument, bytes):
            blob = argument
        elif isinstance(argument, str):
            # Ids that somebody else made may be no UTF-8; they go back as they came.
            blob = argument.encode("utf-8", "surrogateescape")
        else:
            blob = b"%d" % argument
        parts.append(b"$%d\r\n" % len(blob))
        parts.append(blob)
        parts.append(b"\r\n")
    return b"".join(parts)


_PING: Final = pack((b"PING",))
_ROLE: Final = pack((b"ROLE",))


class Line:
    """A connected connection. Make it with :meth:`open`.

    What goes wrong comes as redis-py's exceptions; :mod:`dtimer.backends.redis.errors` knows what they mean.
    """

    __slots__ = ("_connection", "_poll", "_writer")

    def __init__(self, connection: AbstractConnection, writer: asyncio.StreamWriter) -> None:
        self._connection = connection
        self._writer = writer
        self._poll = None
        if hasattr(select, "poll"):  # everywhere but on Windows
            self._poll = select.poll()
            self._poll.register(writer.get_extra_info("socket"), select.POLLIN)

    @classmethod
    async def open(cls, settings: ConnectionSettings) -> Line:
        """Connect, authenticate and hear the server once.

        Without that last step a proxy's or a dying server's accept would pass for a connection,
        and the first request on it would be lost instead of never sent.
        """
        connection = settings.connection()
        try:
            await connection.connect()
            writer = connection._writer
            if writer is None:  # it is set as long as connect() returned normally
                raise RedisConnectionError("the connection was closed at once")
            writer.write(_ROLE if settings.master_only else _PING)
            # Not to be allowed a PING is an answer too; whether the user may do what matters will show.
            with contextlib.suppress(NoPermissionError):
                reply = await connection.read_response(disconnect_on_error=False)
                if settings.master_only and not (isinstance(reply, list) and reply[0] == b"master"):
                    raise RedisConnectionError(f"{settings} is no master")
        except BaseException:
            _abort(connection, connection._writer)
            raise
        return cls(connection, writer)

    async def exchange(self, command: bytes) -> Reply:
        """Send one packed command and read its reply. After any other error than ``ResponseError``, drop the line."""
        self._writer.write(command)
        await self._writer.drain()
        return cast(Reply, await self._connection.read_response(disconnect_on_error=False))

    async def read(self) -> Reply:
        """Wait for one reply, for as long as it takes. When cancelled, nothing is lost: the next call reads it."""
        if self._connection._writer is None:
            raise RedisConnectionError("the connection was dropped")
        return cast(Reply, await self._connection.read_response(disconnect_on_error=False))

    async def is_usable(self) -> bool:
        """Whether it stands, and nothing unasked for has come, as far as this host knows.

        A server that closes it after this look, or whose farewell is still on its way, goes unnoticed:
        the request is lost then, and its outcome unknown.
        """
        if self._writer.transport.is_closing():
            return False
        if self._poll is None or self._poll.poll(0):
            # The kernel knows something that the event loop has not read yet: an end, a TLS ticket, stray bytes.
            for _ in range(_LOOP_TURNS):
                await asyncio.sleep(0)
            if self._writer.transport.is_closing():
                return False
        return not await self._connection.can_read()

    def drop(self) -> None:
        """End it at once, with whatever it has not sent yet. Harmless when it has ended."""
        _abort(self._connection, self._writer)


async def ask(settings: ConnectionSettings, *command: Argument) -> Reply:
    """One question on a connection of its own, for as long as it takes."""
    line = await Line.open(settings)
    try:
        return await line.exchange(pack(command))
    finally:
        line.drop()


def _abort(connection: AbstractConnection, writer: asyncio.StreamWriter | None) -> None:
    if writer is not None:
        # close() would first deliver what is buffered, if need be minutes later, when a partition heals.
        writer.transport.abort()
    connection._close()
