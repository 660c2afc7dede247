"""Lua scripts: put together from package data, and run by their sha1.

Two kinds of lines are replaced when a script is loaded:
``--@include name`` by ``lua/lib/name.lua``, each file once a script,
and ``--@limits`` by a table of :mod:`dtimer.limits`, so that each limit is stated once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from attrs import Factory, field, frozen

from dtimer import limits
from dtimer.backends.redis.connections import Argument, Reply, Route
from dtimer.backends.redis.errors import ScriptMissing

LUA: Final = files("dtimer.backends.redis") / "lua"
_INCLUDE: Final = "--@include "
_LIMITS: Final = "--@limits"


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

    async def run(self, route: Route, operation: str, keys: Sequence[bytes | str], args: Sequence[Argument]) -> Reply:
        """Run it once, in the name of `operation`; the errors are those of :meth:`Connections.request`.

        A server that does not know it yet (or any more: a restart, a failover) is sent its source.
        That resends nothing: by saying so the server has said that nothing ran.
        """
        call = (len(keys), *keys, *args)
        try:
            return await route.request(operation, b"EVALSHA", self.sha1, *call)
        except ScriptMissing:
            return await route.request(operation, b"EVAL", self.source, *call)


def load_script(name: str, folder: Traversable = LUA) -> Script:
    """Put together the script in ``lua/<name>.lua``.

    Raises:
        FileNotFoundError: it, or something that it includes, does not exist.
    """
    return Script(name, "".join(_lines(folder / f"{name}.lua", folder / "lib", included=set())))


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
        elif line.strip() == _LIMITS:
            lines.append(f"{limits_table()}\n")
        else:
            lines.append(f"{line}\n")
    return lines


def _sha1(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def limits_table() -> str:
    """All integers of :mod:`dtimer.limits`, as one line of Lua. Below 2**53, as all are, Lua counts exactly."""
    numbers = {name: value for name, value in vars(limits).items() if name.isupper() and type(value) is int}
    return f"local LIMITS = {{{', '.join(f'{name} = {value}' for name, value in numbers.items())}}}"
