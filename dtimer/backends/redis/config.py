"""How dtimer connects: to the address and with the credentials of a client that the application owns, all else ours.

redis-py's defaults are made for caches: they resend a request whose reply was lost (10 times since redis-py 8),
which would apply it twice (rule F1).
So every setting that matters is stated here, and none of the application's is taken over but address and credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from attrs import evolve, field, frozen
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from typing_extensions import TypeIs, override

from dtimer.backends.redis.handshake import HandshakeParser
from dtimer.errors import InvalidArgument
from dtimer.safe_repr import safe_repr

_ADDRESS_AND_CREDENTIALS: Final = frozenset(
    {"host", "port", "path", "socket_type", "db", "username", "password", "credential_provider", "client_name"}
)
_TLS_PREFIX: Final = "ssl_"
_CONNECTING: Final = ("connect", "_connect")
_FOR_TESTS: Final = (
    "for tests there are SimBackend(), which needs no server, and RedisBackend.embedded(), which brings a real one"
)

Address: TypeAlias = tuple[str, int]
"""Host and port."""


class Endpoint(Protocol):
    """Where a namespace is kept, which may be another server tomorrow."""

    async def locate(self) -> ConnectionSettings:
        """The server to connect to now. Raises redis-py's errors, as connecting does."""
        ...


@frozen
class ConnectionSettings:
    """All that is needed to make connections to one server: a :class:`Endpoint` that never moves.

    Attributes:
        connection_class: for TCP, TLS or a unix socket.
        arguments: its arguments; never shown, there is a password among them.
        master_only: a connection is of use only if the server says that it is a master.
    """

    connection_class: type[AbstractConnection]
    arguments: Mapping[str, Any] = field(repr=False)
    master_only: bool = False

    async def locate(self) -> ConnectionSettings:
        return self

    def at(self, host: str, port: int) -> ConnectionSettings:
        """These settings for another server."""
        return evolve(self, arguments={**self.arguments, "host": host, "port": port})

    def connection(self) -> AbstractConnection:
        """A new connection, not connected yet."""
        return self.connection_class(
            **self.arguments,
            # Nothing is ever sent twice. (A connection's own Retry would repeat failed connects, too.)
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
            retry_on_timeout=False,
            # Every exchange is bounded as a whole by asyncio.timeout. redis-py's timeouts, per socket call,
            # would add a task for each write (asyncio.wait_for), and a second opinion on what was sent.
            socket_timeout=None,
            socket_connect_timeout=None,
            # A PING before a request would be one more round trip, and would not close the gap after it.
            health_check_interval=0,
            # Payloads are bytes.
            decode_responses=False,
            encoding="utf-8",
            encoding_errors="strict",
            # RESP2 has just the four types of a Reply, needs no greeting, and in a subscription no push replies.
            protocol=2,
            # While it connects, too, a reply has a bound.
            parser_class=HandshakeParser,
            # Both work only with what the application's own pool does.
            redis_connect_func=None,
            maint_notifications_config=None,
            # CLIENT SETINFO would be two more commands that a strict ACL must allow.
            driver_info=None,
        )

    @override
    def __str__(self) -> str:
        """The address, for messages."""
        if "path" in self.arguments:
            return str(self.arguments["path"])
        return f"{self.arguments.get('host', 'localhost')}:{self.arguments.get('port', 6379)}"


@frozen
class SentinelSettings:
    """The settings to ask sentinels for a master, and to connect to it.

    Attributes:
        service: the name under which they watch it.
        sentinels: all that are known.
        master: how to connect to it; its address is what they say.
        min_other_sentinels: one that sees fewer others is not believed.
        host_forced: the master's host whatever they say, as behind a tunnel; None: as they say.
    """

    service: str
    sentinels: tuple[ConnectionSettings, ...]
    master: ConnectionSettings
    min_other_sentinels: int = 0
    host_forced: str | None = None


@frozen
class ClusterSettings:
    """The settings to find the servers of a cluster.

    Attributes:
        seeds: servers that are known beforehand; one that is up is enough.
        server: how to connect to any of them.
        remap: from addresses as the cluster has them to those that lead there from here; None: they are the same.
    """

    seeds: tuple[Address, ...]
    server: ConnectionSettings
    remap: Callable[[Address], Address] | None = None


def client_settings(client: object) -> ConnectionSettings | SentinelSettings | ClusterSettings:
    """Take addresses and credentials from a client that the application owns; nothing else of it is used or changed.

    Raises:
        InvalidArgument: it is no ``redis.asyncio.Redis`` for one server, no Sentinel's ``master_for(...)``,
            and no ``redis.asyncio.RedisCluster``.
    """
    if isinstance(client, RedisCluster):
        return _cluster_settings(client)
    if isinstance(client, Redis):
        pool: object = getattr(client, "connection_pool", None)  # a double of a client has none
        if isinstance(pool, SentinelConnectionPool):
            return _sentinel_settings(pool)
    return connection_settings(client)


def connection_settings(client: object) -> ConnectionSettings:
    """The settings of a client of one server.

    Raises:
        InvalidArgument: it is no ``redis.asyncio.Redis``, or one whose server another object finds.
    """
    if not isinstance(client, Redis):
        # The synchronous clients and valkey-py's are no subclasses.
        problem = f"must be a client of redis.asyncio, not {_name(type(client))}"
        ours = type(client).__module__.partition(".")[0] in {"redis", "valkey"}
        raise InvalidArgument("client", problem if ours else f"{problem}: {_FOR_TESTS}")
    pool: object = getattr(client, "connection_pool", None)
    kind: object = getattr(pool, "connection_class", None)
    if isinstance(pool, SentinelConnectionPool) or (
        isinstance(kind, type) and issubclass(kind, SentinelManagedConnection)
    ):
        raise InvalidArgument("client", "is a Sentinel client, where one for a single server is needed")
    return _taken(kind, getattr(pool, "connection_kwargs", {}))


def _sentinel_settings(pool: SentinelConnectionPool) -> SentinelSettings:
    if not pool.is_master:
        raise InvalidArgument("client", "is a Sentinel client for replicas; the one from master_for() is needed")
    known: dict[type[AbstractConnection], type[AbstractConnection]] = {
        SentinelManagedConnection: Connection,
        SentinelManagedSSLConnection: SSLConnection,
    }
    manager = pool.sentinel_manager
    return SentinelSettings(
        service=pool.service_name,
        sentinels=tuple(connection_settings(sentinel) for sentinel in manager.sentinels),
        master=evolve(
            _taken(known.get(pool.connection_class, pool.connection_class), pool.connection_kwargs), master_only=True
        ),
        min_other_sentinels=manager.min_other_sentinels,
        # It is an address, and redis-py has no public name for it.
        host_forced=manager._force_master_ip,  # pyright: ignore[reportPrivateUsage]
    )


def _cluster_settings(client: RedisCluster) -> ClusterSettings:
    manager = client.nodes_manager
    nodes = {**manager.startup_nodes, **manager.nodes_cache}.values()
    kwargs = client.connection_kwargs
    return ClusterSettings(
        seeds=tuple((str(node.host), int(node.port)) for node in nodes),
        server=_taken(kwargs["connection_class"], kwargs),
        remap=manager.address_remap,
    )


def _taken(kind: object, settings: Mapping[str, Any]) -> ConnectionSettings:
    if not _connects_by_a_socket(kind):
        raise InvalidArgument(
            "client",
            f"connects by {_name(kind)}, which is not known to make a TCP, TLS or unix socket: {_FOR_TESTS}",
        )
    arguments = dict[str, Any](socket_keepalive=True) if issubclass(kind, Connection) else {}
    for name, value in settings.items():
        tls = name.startswith(_TLS_PREFIX) and issubclass(kind, SSLConnection)
        if tls or name in _ADDRESS_AND_CREDENTIALS:
            arguments[name] = value
    return ConnectionSettings(kind, arguments)


def _connects_by_a_socket(kind: object) -> TypeIs[type[Connection | UnixDomainSocketConnection]]:
    """Whether it is one of redis-py's classes, or inherits the connecting from it.

    A client of fakeredis has subclasses of them that talk to an object in memory, where dtimer needs a transport.
    """
    if not isinstance(kind, type) or issubclass(kind, SentinelManagedConnection):
        return False
    return any(
        issubclass(kind, base) and all(getattr(kind, name) is getattr(base, name) for name in _CONNECTING)
        for base in (Connection, UnixDomainSocketConnection)
    )


def _name(kind: object) -> str:
    return f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else safe_repr(kind)
