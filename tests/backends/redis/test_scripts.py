"""Lua scripts: how they are put together, and that each call runs once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from dtimer import limits
from dtimer.backends.redis.pool import Pool, connection_settings, run_script
from dtimer.backends.redis.scripts import LUA, Script, load_script
from dtimer.errors import OutcomeUnknown, StoreRefused
from support.proxy import Proxy
from support.servers import Server, StartServer

COUNT = Script("count", "return {redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[2]}")

# --- putting together ---------------------------------------------------------------------------------


def written(folder: Path, **sources: str) -> Path:
    """A folder with these files; ``lib__x`` is ``lib/x.lua``."""
    (folder / "lib").mkdir()
    for name, source in sources.items():
        (folder / f"{name.replace('__', '/')}.lua").write_text(source, encoding="utf-8")
    return folder


def test_an_include_is_replaced_by_the_file(tmp_path: Path) -> None:
    """What scripts have in common is written once."""
    folder = written(
        tmp_path, main="local a = 1\n--@include one\nreturn f()\n", lib__one="local function f() return 1 end"
    )

    script = load_script("main", folder)

    assert script.source == "local a = 1\nlocal function f() return 1 end\nreturn f()\n"
    assert script.name == "main"


def test_each_file_is_included_once_also_by_others(tmp_path: Path) -> None:
    """Where it is needed first; so an include may name all that it needs, and even itself."""
    folder = written(
        tmp_path,
        main="--@include two\n--@include one\nreturn 1",
        lib__one="local one\n--@include two",
        lib__two="--@include one\nlocal two\n--@include two",
    )

    assert load_script("main", folder).source == "local one\nlocal two\nreturn 1\n"


def test_no_script_fills_two_places_of_a_table_at_once() -> None:
    """`a[i], a[i + 1] = x, y` sets the second first, which makes a hash table of an array.

    A batch of posts took half as many instructions of the server again.
    """
    at_once = re.compile(r"\w\[[^]\n]*\],[^=\n]*\] = ")

    files = sorted(Path(str(LUA)).rglob("*.lua"))

    assert len(files) > 10
    assert [(file.name, line) for file in files for line in file.read_text().splitlines() if at_once.search(line)] == []


UNUSED = """\
-- useless() is not used by what a comment says
local function useful(a)
  return a
end
local function only_for_useless()
  return 2
end
local function useless()
  useless()
  return only_for_useless()
end
return useful(1), 'useless, only_for_useless'
"""


def test_what_a_script_has_no_use_for_is_left_out(tmp_path: Path) -> None:
    """A server makes every function anew in each run. What only itself, a comment or a text names is not used."""
    script = load_script("main", written(tmp_path, main="--@include lib", lib__lib=UNUSED))

    assert script.source == "local function useful(a)\n  return a\nend\nreturn useful(1), 'useless, only_for_useless'\n"


def test_only_the_keys_that_a_script_uses_are_checked(tmp_path: Path) -> None:
    """Each check is a command."""
    checks = "local ONE, TWO = KEYS[1], KEYS[2]\n--@check ONE HLEN\n--@check TWO ZCARD\n"

    script = load_script("main", written(tmp_path, main=checks + "return redis.call('ZRANGE', TWO, 0, 0)"))

    assert "redis.pcall('ZCARD', TWO)" in script.source
    assert "HLEN" not in script.source


def test_a_missing_include_is_an_error(tmp_path: Path) -> None:
    """Not a script that fails in the server."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_script("main", written(tmp_path, main="--@include nowhere"))


def test_the_sha1_is_the_sources(tmp_path: Path) -> None:
    """In UTF-8, as the server counts it."""
    script = load_script("main", written(tmp_path, main="return 'é'"))

    assert script.sha1 == hashlib.sha1(b"return '\xc3\xa9'\n").hexdigest()


def test_the_folder_of_the_scripts_is_package_data() -> None:
    """Found in a wheel as well as in the repository."""
    assert LUA.is_dir()


def test_every_script_of_the_package_can_be_put_together() -> None:
    """No include leads nowhere."""
    for file in LUA.iterdir():
        if file.name.endswith(".lua"):
            assert "--@" not in load_script(file.name.removesuffix(".lua")).source


def test_a_missing_limit_is_an_error(tmp_path: Path) -> None:
    """Not a script that compares with nothing."""
    with pytest.raises(AttributeError, match="NOWHERE"):
        load_script("main", written(tmp_path, main="return LIMITS.NOWHERE"))


async def test_lua_has_every_limit_exactly(server: Server, connections: Pool, tmp_path: Path) -> None:
    """Each limit is stated once, in Python; Lua's numbers are floats, so digits could get lost."""
    names = sorted(name for name, value in vars(limits).items() if type(value) is int)
    told = ", ".join(f"string.format('%.0f', LIMITS.{name})" for name in names)
    script = load_script("main", written(tmp_path, main=f"return {{{told}}}"))

    reply = await run_script(connections, script, "open", [], [])

    assert names
    assert reply == [b"%d" % getattr(limits, name) for name in names]


# --- running ------------------------------------------------------------------------------------------


@pytest.fixture
async def connections(server: Server) -> AsyncIterator[Pool]:
    connections = Pool(connection_settings(Redis(host=server.host, port=server.port)))
    yield connections
    await connections.close()


async def test_a_script_that_the_server_does_not_know_is_sent_once(server: Server, connections: Pool) -> None:
    """Then its name is enough."""
    for total in (2, 4, 6):
        assert await run_script(connections, COUNT, "post", ["counter"], [2, b"\xff"]) == [total, b"\xff"]

    assert (server.num_calls("eval"), server.num_calls("evalsha")) == (1, 3)


async def test_a_script_survives_the_servers_forgetting(server: Server, connections: Pool) -> None:
    """As after a restart, a failover or SCRIPT FLUSH."""
    await run_script(connections, COUNT, "post", ["counter"], [1, ""])
    with server.client() as client:
        client.script_flush()

    assert await run_script(connections, COUNT, "post", ["counter"], [1, ""]) == [2, b""]


async def test_a_lost_reply_to_a_script_is_not_a_reason_to_run_it_again(server: Server) -> None:
    """Neither by name nor by source (rule F1)."""
    async with Proxy(server.port) as proxy:
        connections = Pool(connection_settings(Redis(host=proxy.host, port=proxy.port)))
        await run_script(connections, COUNT, "claim", ["counter"], [1, ""])
        proxy.drop_reply_and_cut()

        with pytest.raises(OutcomeUnknown, match="claim"):
            await run_script(connections, COUNT, "claim", ["counter"], [1, ""])

        assert await connections.request("peek", b"GET", "counter") == b"2"
        await connections.close()


async def test_a_script_that_fails_is_refused_in_the_name_of_the_operation(connections: Pool) -> None:
    """And not retried as if it were unknown."""
    with pytest.raises(StoreRefused, match="extend") as caught:
        await run_script(connections, Script("bad", "return nosuchvariable"), "extend", [], [])

    assert type(caught.value) is StoreRefused


async def test_a_restart_costs_nothing_but_the_source(private_server: StartServer) -> None:
    """New connection, unknown script: still one call for the caller."""
    server = private_server()
    connections = Pool(connection_settings(Redis(host=server.host, port=server.port)))
    await run_script(connections, COUNT, "post", ["counter"], [1, ""])

    server.restart()

    assert await run_script(connections, COUNT, "post", ["counter"], [1, ""]) == [1, b""]
    await connections.close()
