"""The URL of a server, checked before redis-py reads it.

redis-py takes ``redis://h/prod`` for database 0 and ``redis://h/1/2`` for database 12,
and its messages quote what may be a part of a password.
So nothing of a URL, and no error about one, is ever passed on.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import Sentinel

from dtimer.backends.redis.config import client_settings, connection_settings
from dtimer.errors import InvalidArgument

ClientT = TypeVar("ClientT")

SENTINEL_PORT: Final = 26379
_SCHEMES: Final = ("redis", "rediss", "unix")
_STRAY_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DATABASE: Final = re.compile(r"[0-9]{1,9}")
_ELSEWHERE: Final = frozenset({"host", "port", "path", "socket_type", "credential_provider"})
"""What redis-py takes from behind a question mark, as text, although it is no text or has a place of its own."""

_SPECIAL: Final = (
    "special characters in a user name or a password must be percent-encoded, as "
    "urllib.parse.quote(password, safe='') does"
)


def client_of(url: str) -> Redis:
    """A client of the server that a URL names; it has not connected.

    Raises:
        InvalidArgument: the URL; none of it is in the message.
    """
    _check(url)
    try:
        client = Redis.from_url(url)
        # Tells what redis-py thinks of the options, without I/O.
        connection_settings(client).connection()
    except Exception:
        client = None
    # Not where it was caught: what was raised there may quote the URL, and would go with the error.
    return _made(client)


def cluster_client_of(url: str) -> RedisCluster:
    """A client of a cluster, of which the URL names one server."""
    parts = _check(url)
    if parts.scheme == "unix" or _database(parts):
        raise InvalidArgument("url", "of a cluster must be redis:// or rediss://, without a database")
    try:
        client = RedisCluster.from_url(url)
        client_settings(client)
    except Exception:
        client = None
    return _made(client)


def sentinel_client_of(url: str, service: str) -> Redis:
    """A client of the master of a service, by a sentinel that the URL names."""
    parts = _check(url)
    if parts.scheme == "unix":
        raise InvalidArgument("url", "of a sentinel must be redis:// or rediss://")
    username, password = (value and unquote(value) for value in (parts.username, parts.password))
    sentinel = Sentinel([(parts.hostname or "localhost", parts.port or SENTINEL_PORT)])
    client: Redis = sentinel.master_for(
        service, db=_database(parts), ssl=parts.scheme == "rediss", username=username, password=password
    )
    return client


def _made(client: ClientT | None) -> ClientT:
    if client is None:
        raise InvalidArgument("url", "has an option after the question mark that redis-py refuses")
    return client


def _check(url: object) -> SplitResult:
    if not isinstance(url, str):
        raise InvalidArgument("url", f"must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None
    problem = f"cannot be read: {_SPECIAL}" if parts is None else _problem(url, parts)
    if parts is None or problem is not None:
        raise InvalidArgument("url", str(problem))
    return parts


def _problem(url: str, parts: SplitResult) -> str | None:
    """The problem of a URL, if there is one."""
    # urlsplit is content with a colon.
    if parts.scheme not in _SCHEMES or not url[len(parts.scheme) :].startswith("://"):
        return f"must begin with {', '.join(f'{scheme}://' for scheme in _SCHEMES)}"
    credentials, _, server = parts.netloc.rpartition("@")
    rest = url[len(parts.scheme) + 3 + len(parts.netloc) :]
    if (
        any(character in credentials for character in "@[]")
        or any(character in url.rstrip() for character in "#\t\r\n")
        or _STRAY_PERCENT.search(url)
        or ("@" in rest and not (parts.scheme == "unix" and "@" not in parts.query))
    ):
        return f"has special characters where they have a meaning in URLs: {_SPECIAL}"
    if parts.scheme == "unix":
        if server or not parts.path.strip("/"):
            return f"must be unix:///path, or unix://user:password@/path: {_SPECIAL}"
    elif not _port_is_right(parts):
        return f"has a port that is no number from 1 to 65535; if it was to be a part of a password: {_SPECIAL}"
    return _problem_of_options(parts)


def _port_is_right(parts: SplitResult) -> bool:
    try:
        return parts.port != 0  # redis-py takes 0 for not given
    except ValueError:
        return False


def _problem_of_options(parts: SplitResult) -> str | None:
    """The problem of the part after the server: the database, and options."""
    options = parse_qs(parts.query, keep_blank_values=True)
    if any(len(values) > 1 for values in options.values()):
        return "has an option twice"
    misplaced = sorted(_ELSEWHERE & options.keys())
    if misplaced:
        return f"cannot have {misplaced[0]} as an option after the question mark"
    databases = options.get("db", [])
    if parts.scheme != "unix" and (path := parts.path.removeprefix("/").removesuffix("/")):
        databases = [*databases, path]
    if not all(_DATABASE.fullmatch(each) for each in databases):
        return (
            "must name its database by a number, as in redis://host:6379/2 or unix:///path?db=2; "
            "what keeps services on one database apart is the argument namespace"
        )
    if len({int(each) for each in databases}) > 1:
        return "names two databases"
    return None


def _database(parts: SplitResult) -> int:
    """The number of the database that a checked URL names."""
    named = parse_qs(parts.query).get("db") or [parts.path.strip("/") or "0"]
    return int(named[0])
