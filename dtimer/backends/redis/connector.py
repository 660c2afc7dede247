"""One backend's way to its servers, from any event loop: connections, and an embedded server if it has one."""

from __future__ import annotations

from dtimer.backends.redis.cluster import Cluster
from dtimer.backends.redis.config import ClusterSettings, ConnectionSettings, SentinelSettings, client_settings
from dtimer.backends.redis.embedded import EmbeddedServer
from dtimer.backends.redis.pool import Pool, Route, Unnamed
from dtimer.backends.redis.sentinel import SentinelMaster
from dtimer.errors import BackendClosed
from dtimer.loop_local import LoopLocal


class Connector:
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
        self._settings = None if self._embedded is not None else client_settings(source)
        self._per_loop = LoopLocal(self._new_loop_connections, LoopConnections.abandon)
        self._closed = False

    @property
    def sharded(self) -> bool:
        """Messages stay with the server that has the keys: a cluster's other servers need not carry them, too."""
        return isinstance(self._settings, ClusterSettings)

    @property
    def are_our_own(self) -> bool:
        """An embedded server, that is."""
        return self._embedded is not None

    @property
    def url(self) -> str | None:
        """The address of an embedded server that runs; None for any other."""
        return None if self._embedded is None else self._embedded.url

    async def route(self, operation: str, prefix: str, *, durable: bool = False) -> Route:
        """The way to the keys with this prefix, for callers in the running loop.

        Args:
            durable: on connections that only calls which wait for durability use.

        Raises:
            BackendClosed: :meth:`close` was called.
        """
        if self._embedded is not None and not self._closed:
            await self._embedded.start()
        if self._closed:
            raise BackendClosed(operation, "the backend was closed")
        return self._per_loop.here().route(prefix, durable=durable)

    async def close(self) -> None:
        """Close the connections of the running loop once their calls have ended, and drop those of all others."""
        self._closed = True
        for home, loop_connections in self._per_loop.all():
            loop_connections.refuse()
            if home.is_here():
                await loop_connections.close()
            else:
                home.call_soon(loop_connections.drop)
        if self._embedded is not None:
            await self._embedded.stop()

    def _new_loop_connections(self) -> LoopConnections:
        # An embedded server has no address before it runs, and another one in each process.
        settings = self._settings if self._embedded is None else client_settings(self._embedded.client())
        assert settings is not None, "it is that of the client, or of the embedded server"
        return LoopConnections(settings, request_timeout_s=self.request_timeout_s)


class LoopConnections:
    """The connections of one event loop."""

    def __init__(
        self, settings: ConnectionSettings | SentinelSettings | ClusterSettings, *, request_timeout_s: float
    ) -> None:
        self._settings = settings
        self._request_timeout_s = request_timeout_s
        self._all: dict[bool, Pool | Cluster] = {}
        self._unnamed = Unnamed()

    def route(self, prefix: str, *, durable: bool) -> Route:
        pool = self._all.get(durable)
        if pool is None:
            pool = self._all[durable] = self._new_pool()
        return pool.route(prefix) if isinstance(pool, Cluster) else pool

    def _new_pool(self) -> Pool | Cluster:
        settings = self._settings
        if isinstance(settings, ClusterSettings):
            return Cluster(settings, request_timeout_s=self._request_timeout_s, unnamed=self._unnamed)
        endpoint = SentinelMaster(settings) if isinstance(settings, SentinelSettings) else settings
        return Pool(endpoint, request_timeout_s=self._request_timeout_s, unnamed=self._unnamed)

    def refuse(self) -> None:
        """Take no more requests. From any thread."""
        for pool in tuple(self._all.values()):
            pool.refuse()

    async def close(self) -> None:
        for pool in tuple(self._all.values()):
            await pool.close()

    def drop(self) -> None:
        """Without waiting for those under way."""
        for pool in self._all.values():
            pool.drop()

    def abandon(self) -> None:
        """The loop was closed."""
        for pool in self._all.values():
            pool.abandon()
