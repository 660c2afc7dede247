"""A network that a test can break: a TCP proxy between clients and one server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TypeAlias

HOST: Final = "127.0.0.1"
CHUNK_BYTES: Final = 1 << 16
REMEMBERED_BYTES: Final = 1 << 12

Which: TypeAlias = Callable[[bytes], bool]
"""Picks connections by the last 4 KiB that their clients have sent."""


def every(_sent: bytes) -> bool:
    return True


class Proxy:
    """Passes everything on until told otherwise; new connections pass.

    Attributes:
        delay_s: so long each piece of data takes, in either direction.
        refusing: new connections end at once.
        accepted_at: when each connection came, by the loop's clock, those that were refused among them.
    """

    def __init__(self, port: int, *, host: str = HOST) -> None:
        """Of the server behind it."""
        self._target = (host, port)
        self._pairs: set[_Pair] = set()
        self._drops: list[Which] = []
        self._swallows: list[tuple[Which, asyncio.Event]] = []
        self._server: asyncio.Server | None = None
        self._accepting: set[asyncio.Task[None]] = set()
        self._stalled: list[Which] = []
        self.delay_s = 0.0
        self.refusing = False
        self.accepted_at: list[float] = []

    @property
    def host(self) -> str:
        return HOST

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.refusing = True
        self.cut()
        # Also those that had just come, and that nobody would close any more.
        while self._accepting:
            await asyncio.wait(self._accepting)
        await self._server.wait_closed()

    def stall(self, which: Which = every) -> None:
        """Half-open: these connections stand, from now on nothing passes in either direction, nor on new ones."""
        self._stalled.append(which)

    def stall_present(self, which: Which = every) -> None:
        """The same for those that stand now only: as when a firewall has forgotten them."""
        for pair in self._pairs:
            pair.is_stalled = pair.is_stalled or which(pair.sent)

    def lead_to(self, port: int) -> None:
        """Pass on to another server; connections to the one before end."""
        self._target = (self._target[0], port)
        self.cut()

    @property
    def num_accepted(self) -> int:
        return len(self.accepted_at)

    @property
    def num_open(self) -> int:
        return len(self._pairs)

    def pass_on(self) -> None:
        """End all stalls and refusals; what came meanwhile is delivered."""
        self.refusing = False
        self._stalled.clear()
        for pair in self._pairs:
            pair.is_stalled = False
            pair.passing.set()

    def cut(self, which: Which = every, *, reset: bool = False) -> None:
        """End these connections at once, on both sides; with `reset` the client gets a TCP reset instead of an end."""
        for pair in [pair for pair in self._pairs if which(pair.sent)]:
            if reset:
                client = pair.writers[0].get_extra_info("socket")
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            pair.cut()

    def say(self, data: bytes, which: Which = every) -> None:
        """Send to these clients what the server never said."""
        for pair in self._pairs:
            if which(pair.sent):
                pair.writers[0].write(data)

    def drop_reply_and_cut(self, which: Which = every) -> None:
        """Swallow the next reply on one of these connections, then cut that one.

        The server has done what it was asked; the client never hears of it. Say it twice for two.
        """
        self._drops.append(which)

    def swallow_reply(self, which: Which = every) -> asyncio.Event:
        """Swallow the next reply on one of these connections, and leave that one standing, silent, until :meth:`cut`.

        Returns:
            Set when it has happened: the server has done what it was asked, and the client waits.
        """
        swallowed = asyncio.Event()
        self._swallows.append((which, swallowed))
        return swallowed

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted_at.append(asyncio.get_running_loop().time())
        if self.refusing:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            onward_reader, onward_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(writer, onward_writer)
        if self.refusing:  # since then
            pair.cut()
            return
        self._pairs.add(pair)
        pair.pumps = [
            asyncio.create_task(self._pump(pair, reader, onward_writer, from_client=True)),
            asyncio.create_task(self._pump(pair, onward_reader, writer, from_client=False)),
        ]
        await asyncio.wait(pair.pumps)
        self._pairs.discard(pair)

    async def _pump(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_client: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if from_client:
                    pair.sent = (pair.sent + data)[-REMEMBERED_BYTES:]
                elif self._is_to_drop(pair):
                    break
                elif self._swallowed(pair):
                    continue
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                while not pair.is_cut and (pair.is_stalled or any(which(pair.sent) for which in self._stalled)):
                    pair.passing.clear()
                    await pair.passing.wait()
                writer.write(data)
                await writer.drain()
        # One side has ended, so the other does: nothing that speaks this protocol lives on half a connection.
        pair.cut()

    def _swallowed(self, pair: _Pair) -> bool:
        for which, swallowed in self._swallows:
            if which(pair.sent):
                self._swallows.remove((which, swallowed))
                swallowed.set()
                return True
        return False

    def _is_to_drop(self, pair: _Pair) -> bool:
        for which in self._drops:
            if which(pair.sent):
                self._drops.remove(which)
                return True
        return False


class _Pair:
    """A client's connection and its continuation to the server; `writers` in that order."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.writers = writers
        self.sent = b""
        self.is_cut = False
        self.is_stalled = False
        self.passing = asyncio.Event()
        self.pumps: list[asyncio.Task[None]] = []

    def cut(self) -> None:
        self.is_cut = True
        self.passing.set()
        for writer in self.writers:
            writer.transport.abort()
