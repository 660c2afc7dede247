"""How dtimer connects: to the address and with the credentials of a client that the application owns, all else ours.

redis-py's defaults are made for caches: they resend a request whose reply was lost (10 times since redis-py 8),
which would apply it twice (rule F1).
So every setting that matters is stated here, and none of the application's is taken over but address and credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import field, frozen
from redis.asyncio import Redis
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from typing_extensions import override

from dtimer.errors import InvalidArgument

_ADDRESS_AND_CREDENTIALS: Final = frozenset(
    {"host", "port", "path", "socket_type", "db", "username", "password", "credential_provider", "client_name"}
)
_TLS_PREFIX: Final = "ssl_"


@frozen
class ConnectionSettings:
    """All that is needed to make connections to one server.

    Attributes:
        connection_class: for TCP, TLS or a unix socket.
        arguments: its arguments; never shown, there is a password among them.
    """

    connection_class: type[AbstractConnection]
    arguments: Mapping[str, Any] = field(repr=False)

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


def connection_settings(client: Redis) -> ConnectionSettings:
    """Take address and credentials from a client that the application owns; nothing else of it is used or changed.

    Raises:
        InvalidArgument: it is not a ``redis.asyncio.Redis`` for one server.
    """
    if not isinstance(client, Redis):  # pyright: ignore[reportUnnecessaryIsInstance]
        # RedisCluster, the synchronous clients and valkey-py's are no subclasses.
        raise InvalidArgument("client", f"must be a redis.asyncio.Redis for one server, not {_kind(client)}")
    pool = client.connection_pool
    kind = pool.connection_class
    if isinstance(pool, SentinelConnectionPool) or issubclass(kind, SentinelManagedConnection):
        raise InvalidArgument("client", "is a Sentinel client, which is not supported yet")
    if not issubclass(kind, (Connection, UnixDomainSocketConnection)):
        raise InvalidArgument("client", f"connects in a way that dtimer does not know: {kind.__qualname__}")
    arguments = dict[str, Any](socket_keepalive=True) if issubclass(kind, Connection) else {}
    for name, value in pool.connection_kwargs.items():
        tls = name.startswith(_TLS_PREFIX) and issubclass(kind, SSLConnection)
        if tls or name in _ADDRESS_AND_CREDENTIALS:
            arguments[name] = value
    return ConnectionSettings(kind, arguments)


def _kind(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
