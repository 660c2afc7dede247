"""Lua scripts: put together from package data, and run by their sha1.

Two things are replaced when a script is loaded:
a line ``--@include name`` by ``lua/lib/name.lua``, each file once a script,
and ``LIMITS.NAME`` by that number of :mod:`dtimer.limits`, so that each limit is stated once.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from attrs import Factory, field, frozen

from dtimer import limits
from dtimer.backends.redis.connections import Route, Then
from dtimer.backends.redis.errors import ScriptMissing
from dtimer.backends.redis.resp import Argument, Reply, pack_some

LUA: Final = files("dtimer.backends.redis") / "lua"
_INCLUDE: Final = "--@include "
_LIMIT: Final = re.compile(r"\bLIMITS\.(\w+)")


@frozen
class Script:
    """One Lua script.

    Attributes:
        name: its file's, without ``.lua``.
        source: what the server runs.
        sha1: of the source, in hex: the server's name for it.
    """

    name: str
    source: str = field(repr=False)
    sha1: str = field(init=False, default=Factory(lambda self: _sha1(self.source), takes_self=True))
    _by_sha1: bytes = field(
        init=False, repr=False, default=Factory(lambda self: pack_some((b"EVALSHA", self.sha1)), takes_self=True)
    )

    async def run(
        self,
        route: Route,
        operation: str,
        keys: Sequence[bytes | str],
        args: Sequence[Argument],
        *,
        then: Then | None = None,
    ) -> Reply:
        """Run it once, in the name of `operation`; the errors are those of :meth:`Connections.call`.

        A server that does not know it yet (or any more: a restart, a failover) is sent its source.
        That resends nothing: by saying so the server has said that nothing ran.
        """
        beginning = b"*%d\r\n" % (3 + len(keys) + len(args))
        rest = _packed_keys(tuple(keys)) + pack_some(args)
        try:
            return await route.call(operation, b"%b%b%b" % (beginning, self._by_sha1, rest), then=then)
        except ScriptMissing:
            return await route.call(
                operation, b"%b%b%b" % (beginning, pack_some((b"EVAL", self.source)), rest), then=then
            )


def load_script(name: str, folder: Traversable = LUA) -> Script:
    """Put together the script in ``lua/<name>.lua``.

    Raises:
        FileNotFoundError: it, or something that it includes, does not exist.
        AttributeError: it names a limit that does not exist.
    """
    source = "".join(_lines(folder / f"{name}.lua", folder / "lib", included=set()))
    return Script(name, _LIMIT.sub(_limit, source))


def sharded(script: Script) -> Script:
    """The same for a cluster, where it publishes to the shard that has the keys."""
    return Script(script.name, script.source.replace("redis.pcall('PUBLISH'", "redis.pcall('SPUBLISH'"))


def _lines(file: Traversable, lib: Traversable, included: set[str]) -> list[str]:
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(_INCLUDE):
            name = line.removeprefix(_INCLUDE).strip()
            if name not in included:
                included.add(name)
                lines += _lines(lib / f"{name}.lua", lib, included)
        else:
            lines.append(f"{line}\n")
    return lines


def _sha1(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


@functools.lru_cache(maxsize=64)
def _packed_keys(keys: tuple[bytes | str, ...]) -> bytes:
    """The same for all calls of a namespace."""
    return pack_some((len(keys), *keys))


def _limit(match: re.Match[str]) -> str:
    """As a literal: a table of all would be made anew by each run. Below 2**53, as all are, Lua counts exactly."""
    value: int = getattr(limits, match[1])
    return str(value)
