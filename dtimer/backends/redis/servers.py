"""One backend's way to its servers, from any event loop: connections, and an embedded server if it has one."""

from __future__ import annotations

from dtimer.backends.redis.cluster import Cluster
from dtimer.backends.redis.connections import Connections, Route, Unnamed
from dtimer.backends.redis.embedded import EmbeddedServer
from dtimer.backends.redis.sentinel import SentinelMaster
from dtimer.backends.redis.settings import ClusterSettings, ConnectionSettings, SentinelSettings, client_settings
from dtimer.errors import BackendClosed
from dtimer.loop_local import LoopLocal


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
        self._settings = None if self._embedded is not None else client_settings(source)
        self._ways = LoopLocal(self._new_ways, Ways.abandon)
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
            durable: on connections that wait for nobody but each other.

        Raises:
            BackendClosed: :meth:`close` was called.
        """
        if self._embedded is not None and not self._closed:
            await self._embedded.start()
        if self._closed:
            raise BackendClosed(operation, "the backend was closed")
        return self._ways.here().route(prefix, durable=durable)

    async def close(self) -> None:
        """Close the connections of the running loop once their calls have ended, and drop those of all others."""
        self._closed = True
        for home, ways in self._ways.all():
            ways.refuse()
            if home.is_here():
                await ways.close()
            else:
                home.call_soon(ways.drop)
        if self._embedded is not None:
            await self._embedded.stop()

    def _new_ways(self) -> Ways:
        # An embedded server has no address before it runs, and another one in each process.
        settings = self._settings if self._embedded is None else client_settings(self._embedded.client())
        assert settings is not None, "it is that of the client, or of the embedded server"
        return Ways(settings, request_timeout_s=self.request_timeout_s)


class Ways:
    """The connections of one event loop."""

    def __init__(
        self, settings: ConnectionSettings | SentinelSettings | ClusterSettings, *, request_timeout_s: float
    ) -> None:
        self._settings = settings
        self._request_timeout_s = request_timeout_s
        self._all: dict[bool, Connections | Cluster] = {}
        self._unnamed = Unnamed()

    def route(self, prefix: str, *, durable: bool) -> Route:
        connections = self._all.get(durable)
        if connections is None:
            connections = self._all[durable] = self._new_connections()
        return connections.route(prefix) if isinstance(connections, Cluster) else connections

    def _new_connections(self) -> Connections | Cluster:
        settings = self._settings
        if isinstance(settings, ClusterSettings):
            return Cluster(settings, request_timeout_s=self._request_timeout_s, unnamed=self._unnamed)
        place = SentinelMaster(settings) if isinstance(settings, SentinelSettings) else settings
        return Connections(place, request_timeout_s=self._request_timeout_s, unnamed=self._unnamed)

    def refuse(self) -> None:
        """Take no more requests. From any thread."""
        for connections in tuple(self._all.values()):
            connections.refuse()

    async def close(self) -> None:
        for connections in tuple(self._all.values()):
            await connections.close()

    def drop(self) -> None:
        """Without waiting for those under way."""
        for connections in self._all.values():
            connections.drop()

    def abandon(self) -> None:
        """The loop was closed."""
        for connections in self._all.values():
            connections.abandon()
