"""The one place where redis-py's exceptions and the server's error replies become dtimer's errors.

What matters is what is known of the request, so there are two ways in, one for each side of sending it:
:func:`before_sending` and :func:`after_sending`. An error *reply* means on both sides that nothing was applied;
that a script checks everything before its first write is the scripts' duty (rule F5).
"""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from dtimer.errors import (
    BackendError,
    OutcomeUnknown,
    PartitionsMismatch,
    SchemaMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreDenied,
    StoreFull,
    StoreNotWritable,
    StoreReadOnly,
    StoreRefused,
    StoreUnreachable,
)

PROBLEM_MAX_CHARS: Final = 500
"""An error reply may quote what it was sent; a message for people need not."""


class ScriptMissing(StoreRefused):
    """The server does not know the script under this sha1, and ran nothing. Only the script layer sees it."""


class Redirected(StoreRefused):
    """Another server of the cluster has the keys, and nothing was run. Only the cluster's layer sees it."""

    @property
    def address(self) -> tuple[str, int]:
        """Where they are; without a host on the same one."""
        host, _, port = self.problem.split(" ")[2].rpartition(":")
        return ("" if host == "?" else host), int(port)

    @property
    def asking(self) -> bool:
        """For this request only: the slot is on the move."""
        return self.problem.startswith("ASK ")


_BY_CODE: Final[dict[str, type[StoreRefused]]] = {
    "NOSCRIPT": ScriptMissing,
    "MOVED": Redirected,
    "ASK": Redirected,
    "OOM": StoreFull,
    "READONLY": StoreReadOnly,
    "NOREPLICAS": StoreNotWritable,
    "MISCONF": StoreNotWritable,
    "LOADING": StoreBusy,
    "BUSY": StoreBusy,
    "MASTERDOWN": StoreBusy,
    "TRYAGAIN": StoreBusy,
    "CLUSTERDOWN": StoreBusy,
    "DTCLOCK": StoreBusy,
    "NOAUTH": StoreDenied,
    "WRONGPASS": StoreDenied,
    "NOPERM": StoreDenied,
    "WRONGTYPE": StoreCorrupt,
    "DTCORRUPT": StoreCorrupt,
    "DTSCHEMA": SchemaMismatch,
    "DTPARTITIONS": PartitionsMismatch,
}

_BY_TEXT: Final[dict[str, type[StoreRefused]]] = {
    "max number of clients reached": StoreBusy,
    "ACL failure in script": StoreDenied,  # Redis 7 and later
    "The user executing the script can't": StoreDenied,  # Redis 6
}
"""Replies that matter and carry no code but ERR."""

_AUTH_ERRORS: Final = (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    AuthorizationError,
    NoPermissionError,
)

# Redis 7 and Valkey put the code of an error met inside a script first in the reply.
# Redis 6.2 wraps it: "ERR Error running script (call to f_<sha1>): @user_script:3: WRONGTYPE Operation ...";
# errors of its own script engine have the place twice, and a dash: "@user_script:3: @user_script: 3: -OOM command ...".
# Lua's error("DTSCHEMA ...") adds the place on every version.
_SCRIPT_WRAPPING: Final = re.compile(
    r"ERR (?:Error running script \(call to \w+\): )?(?:@?user_script: ?\d+: )+-?",
)


_REDIRECTION: Final = re.compile(r"(?:MOVED|ASK) [0-9]+ [!-~]*:[0-9]{1,5}")


def reply_text(error: RedisError) -> str:
    """The error reply as the server sent it: redis-py cuts the codes it knows off the message."""
    return f"{error.status_code} {error}" if error.status_code else str(error)


def is_reply(error: BaseException) -> bool:
    """Whether the server said this, rather than redis-py.

    redis-py makes connection errors of some replies (LOADING, NOAUTH); the code that it keeps tells them apart.
    """
    return isinstance(error, ResponseError) or (isinstance(error, RedisError) and error.status_code is not None)


def refusal(operation: str, error: RedisError) -> StoreRefused:
    """What an error reply to `operation` means."""
    text = reply_text(error)
    kind = _BY_CODE.get(_SCRIPT_WRAPPING.sub("", text, count=1).split(" ", 1)[0])
    if kind is None:
        kind = next((kind for known, kind in _BY_TEXT.items() if known in text), None)
    if kind is None:
        kind = StoreDenied if isinstance(error, _AUTH_ERRORS) else StoreRefused
    if kind is Redirected and not _REDIRECTION.fullmatch(text):
        kind = StoreRefused
    if kind is Redirected:
        text += " (the server belongs to a cluster, for which RedisBackend needs a RedisCluster client)"
    return kind(operation, text[:PROBLEM_MAX_CHARS])


def before_sending(operation: str, error: Exception) -> BackendError:
    """What it means that `error` came while connecting, before the request was sent."""
    # On a unix socket redis-py greets the server inside its own connect, and wraps what comes of that once more.
    while type(error) is RedisConnectionError and isinstance(error.__cause__, RedisError):
        error = error.__cause__
    if isinstance(error, RedisError) and (is_reply(error) or isinstance(error, _AUTH_ERRORS)):
        return refusal(operation, error)
    return StoreUnreachable(operation, _described(error))


def after_sending(operation: str, error: Exception) -> BackendError:
    """What it means that `error` came instead of a reply, or as one."""
    if isinstance(error, RedisError) and is_reply(error):
        return refusal(operation, error)
    return OutcomeUnknown(operation, f"the reply was lost: {_described(error)}")


def _described(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:PROBLEM_MAX_CHARS]
