"""One backend's way to its servers, made by its first call: connections, and an embedded server if it has one."""

from __future__ import annotations

import asyncio

from dtimer.backends.redis.connections import Connections, Route
from dtimer.backends.redis.embedded import EmbeddedServer
from dtimer.backends.redis.sentinel import SentinelMaster
from dtimer.backends.redis.settings import Place, SentinelSettings, client_settings
from dtimer.errors import BackendClosed


class Servers:
    """Whatever the backend was made from."""

    def __init__(self, source: object, *, request_timeout_s: float) -> None:
        """Starts and connects to nothing yet.

        Args:
            source: an application's client, or an embedded server.

        Raises:
            InvalidArgument: no such client.
        """
        self.request_timeout_s = request_timeout_s
        self._embedded = source if isinstance(source, EmbeddedServer) else None
        self._place = None if isinstance(source, EmbeddedServer) else _place(source)
        self._connections: Connections | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    @property
    def url(self) -> str | None:
        """The address of an embedded server that runs; None for any other."""
        return None if self._embedded is None else self._embedded.url

    async def route(self, operation: str, prefix: str) -> Route:
        """The way to the keys with this prefix.

        Raises:
            BackendClosed: :meth:`close` was called.
        """
        if self._connections is not None:
            return self._connections
        async with self._starting:
            if self._closed:
                raise BackendClosed(operation, "the backend was closed")
            if self._embedded is not None:
                await self._embedded.start()
                self._place = _place(self._embedded.client())
            if self._connections is None:
                assert self._place is not None, "it is given, or that of the embedded server"
                self._connections = Connections(self._place, request_timeout_s=self.request_timeout_s)
            return self._connections

    async def close(self) -> None:
        self._closed = True
        if self._connections is not None:
            await self._connections.close()
        if self._embedded is not None:
            await self._embedded.stop()


def _place(client: object) -> Place:
    settings = client_settings(client)
    return SentinelMaster(settings) if isinstance(settings, SentinelSettings) else settings
