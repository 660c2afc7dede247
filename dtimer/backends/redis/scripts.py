"""Lua scripts, put together from package data.

When a script is loaded

- a line ``--@include name`` is replaced by ``lua/lib/name.lua``, each file once a script;
- comment lines go, and functions that it has no use for, since a server creates all of them again in each run;
- a line ``--@check KEY COMMAND`` becomes one that asks for the key's size, if the script uses the key;
- ``LIMITS.NAME`` is replaced by that number of :mod:`dtimer.limits`, so that each limit is stated once;
- ``FIELDS.WHOLE`` is replaced by the letters of the fields of a record that are whole numbers.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from attrs import Factory, field, frozen

from dtimer import limits
from dtimer.backends.redis.wire.resp import pack_some
from dtimer.backends.redis.wire.values import WHOLE_LETTERS

LUA: Final = files("dtimer.backends.redis") / "lua"
_INCLUDE: Final = "--@include "
_LIMIT: Final = re.compile(r"\bLIMITS\.(\w+)")
_WORD: Final = re.compile(r"'[^'\n]*'|\w+")
"""A text is one word: what it says names no function."""
_FUNCTION: Final = re.compile(r"^local function (\w+)\(.*?^end\n", re.MULTILINE | re.DOTALL)
_COMMENT: Final = re.compile(r"--(?!@)")
_CHECK: Final = re.compile(r"^--@check (\w+) (\w+)\n", re.MULTILINE)
_CHECKED: Final = """\
do local size = redis.pcall('{command}', {key}) if type(size) == 'table' then wrong, problem = {key}, size.err end end
"""


@frozen
class Script:
    """One Lua script.

    Attributes:
        name: its file's, without ``.lua``.
        source: what the server runs.
        sha1: of the source, in hex: the server's name for it.
        by_sha1: how a command that runs it by that name begins, packed.
    """

    name: str
    source: str = field(repr=False)
    sha1: str = field(init=False, default=Factory(lambda self: _sha1(self.source), takes_self=True))
    by_sha1: bytes = field(
        init=False, repr=False, default=Factory(lambda self: pack_some((b"EVALSHA", self.sha1)), takes_self=True)
    )


def load_script(name: str, folder: Traversable = LUA) -> Script:
    """Put together the script in ``lua/<name>.lua``.

    Raises:
        FileNotFoundError: it, or something that it includes, does not exist.
        AttributeError: it names a limit that does not exist.
    """
    source = "".join(_lines(folder / f"{name}.lua", folder / "lib", included=set()))
    source = _LIMIT.sub(_limit, _with_checks(_without_unused(source)))
    return Script(name, source.replace("FIELDS.WHOLE", f"'{WHOLE_LETTERS}'"))


def sharded(script: Script) -> Script:
    """The script for a cluster, where it publishes to the shard that has the keys."""
    return Script(script.name, script.source.replace("redis.pcall('PUBLISH'", "redis.pcall('SPUBLISH'"))


def _lines(file: Traversable, lib: Traversable, included: set[str]) -> list[str]:
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(_INCLUDE):
            name = line.removeprefix(_INCLUDE).strip()
            if name not in included:
                included.add(name)
                lines += _lines(lib / f"{name}.lua", lib, included)
        elif not _COMMENT.match(line):
            lines.append(f"{line}\n")
    return lines


def _without_unused(source: str) -> str:
    """Without the functions that nothing names, and then without those that only these named."""
    while True:
        used = Counter(_WORD.findall(source))
        unused = [
            found for found in _FUNCTION.finditer(source) if used[found[1]] == _WORD.findall(found[0]).count(found[1])
        ]
        if not unused:
            return source
        for found in reversed(unused):
            source = source[: found.start()] + source[found.end() :]


def _with_checks(source: str) -> str:
    """With those of the keys that are used: named again, beside the line that gives them their names."""
    used = Counter(_WORD.findall(_CHECK.sub("", source)))
    return _CHECK.sub(
        lambda found: _CHECKED.format(key=found[1], command=found[2]) if used[found[1]] > 1 else "", source
    )


def _sha1(source: str) -> str:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def _limit(match: re.Match[str]) -> str:
    """A literal, as each run would create a table of all limits. Below 2**53, as all are, Lua counts exactly."""
    value: int = getattr(limits, match[1])
    return str(value)
