"""Servers that are no Redis, or a very strange one: what they send is made by a test."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from itertools import chain, repeat
from typing import Final

from attrs import define

HOST: Final = "127.0.0.1"
CHUNK: Final = 1 << 16


@define
class Hostile:
    """A server that answers every piece of data that it gets from one script.

    Attributes:
        num_bytes: sent to all clients together, or at least written to their sockets.
        ended: so many connections have ended.
    """

    port: int = 0
    num_bytes: int = 0
    ended: int = 0

    @property
    def host(self) -> str:
        return HOST

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"


@asynccontextmanager
async def answering(
    *answers: bytes | Iterator[bytes],
    then: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncGenerator[Hostile]:
    """A server whose each connection answers the first thing that it gets with the first answer, and so on.

    Args:
        answers: bytes, or an iterator that may have no end.
        then: answers all that comes later; None: it is silent.
    """
    server = Hostile()
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(serve(reader, writer)))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError), contextlib.closing(writer.transport):
            for answer in chain(answers, repeat(then)):
                if not await reader.read(CHUNK):
                    break
                for piece in [answer] if isinstance(answer, bytes) else answer or ():
                    writer.write(piece)
                    server.num_bytes += len(piece)
                    await writer.drain()
        server.ended += 1

    listening = await asyncio.start_server(accept, HOST, 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def endless(first: bytes, again: bytes) -> Iterator[bytes]:
    """For ever."""
    yield first
    chunk = again * (CHUNK // len(again))
    while True:
        yield chunk
