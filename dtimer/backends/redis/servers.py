"""One backend's way to its servers, made by its first call: connections, and an embedded server if it has one."""

from __future__ import annotations

import asyncio

from dtimer.backends.redis.cluster import Cluster
from dtimer.backends.redis.connections import Connections, Route
from dtimer.backends.redis.embedded import EmbeddedServer
from dtimer.backends.redis.sentinel import SentinelMaster
from dtimer.backends.redis.settings import ClusterSettings, Place, SentinelSettings, client_settings
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
        self._source = source
        self._durable: Servers | None = None
        self._embedded = source if isinstance(source, EmbeddedServer) else None
        self._cluster: Cluster | None = None
        self._place: Place | None = None
        if self._embedded is None:
            self._set_place(source)
        self._connections: Connections | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    def _set_place(self, client: object) -> None:
        settings = client_settings(client)
        if isinstance(settings, ClusterSettings):
            self._cluster = Cluster(settings, request_timeout_s=self.request_timeout_s)
        elif isinstance(settings, SentinelSettings):
            self._place = SentinelMaster(settings)
        else:
            self._place = settings

    @property
    def sharded(self) -> bool:
        """Messages stay with the server that has the keys: a cluster's other servers need not carry them, too."""
        return self._cluster is not None

    @property
    def are_our_own(self) -> bool:
        """An embedded server, that is."""
        return self._embedded is not None

    @property
    def url(self) -> str | None:
        """The address of an embedded server that runs; None for any other."""
        return None if self._embedded is None else self._embedded.url

    async def durable_route(self, operation: str, prefix: str) -> Route:
        """The same, on connections that wait for nobody but each other."""
        if self._durable is None:
            # First, because an embedded server has no address before it runs.
            await self.route(operation, prefix)
            source = self._source if self._embedded is None else self._embedded.client()
            self._durable = Servers(source, request_timeout_s=self.request_timeout_s)
        return await self._durable.route(operation, prefix)

    async def route(self, operation: str, prefix: str) -> Route:
        """The way to the keys with this prefix.

        Raises:
            BackendClosed: :meth:`close` was called.
        """
        if self._cluster is not None:
            self._cluster.require_open(operation)
            return self._cluster.route(prefix)
        if self._connections is not None:
            return self._connections
        async with self._starting:
            if self._closed:
                raise BackendClosed(operation, "the backend was closed")
            if self._embedded is not None:
                await self._embedded.start()
                self._set_place(self._embedded.client())
            if self._connections is None:
                assert self._place is not None, "it is given, or that of the embedded server"
                self._connections = Connections(self._place, request_timeout_s=self.request_timeout_s)
            return self._connections

    async def close(self) -> None:
        self._closed = True
        if self._durable is not None:
            await self._durable.close()
        if self._connections is not None:
            await self._connections.close()
        if self._cluster is not None:
            await self._cluster.close()
        if self._embedded is not None:
            await self._embedded.stop()
