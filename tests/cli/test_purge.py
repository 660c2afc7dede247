"""A namespace that nobody uses any more, and the command that removes it."""

from __future__ import annotations

import asyncio
import sys
from io import StringIO

import pytest

from dtimer import DTimer, RedisBackend
from dtimer.cli import main
from dtimer.protocol.values import Member
from support.proxy import Proxy
from support.servers import Server


async def command(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["purge", *arguments])


async def use(url: str, namespace: str, partitions: int = 1) -> None:
    """Post to it, and end an event as a dead letter."""
    async with RedisBackend.from_url(url, namespace=namespace, partitions=partitions) as backend:
        timer: DTimer = DTimer(backend)
        for number in range(4):
            await timer.post(number, 60_000, id=f"e{number}")
        await timer.post("dead", 0, id="dead", dead_letter=True)
        async with timer, timer.events() as events:
            await (await anext(events)).bury("why")


def keys(server: Server) -> set[bytes]:
    with server.client() as client:
        return {bytes(key) for key in client.scan_iter()}


@pytest.mark.parametrize("partitions", [1, 3])
async def test_it_says_what_there_is_and_removes_all_of_it(
    server: Server, partitions: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing of another namespace, not even of one whose name begins as it does."""
    await use(server.url, "shop2")
    others = keys(server)
    await use(server.url, "shop", partitions)

    status = await command(server.url, "--namespace", "shop", "--yes")

    assert status == 0
    assert f"4 live events, 1 dead letters, 0 nodes, in {partitions} partitions" in capsys.readouterr().out
    assert keys(server) == others
    assert await command(server.url, "--namespace", "shop") == 0
    assert "namespace 'shop' does not exist" in capsys.readouterr().out
    assert keys(server) == others


@pytest.mark.parametrize(("answer", "goes"), [("y", True), ("YES", True), ("n", False), ("", False)])
async def test_it_asks_on_a_terminal(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, goes: bool
) -> None:
    await use(server.url, "shop")
    terminal = StringIO(answer + "\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)

    assert await command(server.url, "--namespace", "shop") == (0 if goes else 1)

    assert "for good?" in capsys.readouterr().out
    assert (not keys(server)) is goes


async def test_it_removes_nothing_when_nobody_can_be_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await use(server.url, "shop")
    before = keys(server)
    monkeypatch.setattr(sys, "stdin", StringIO("y\n"))

    assert await command(server.url, "--namespace", "shop") == 1
    assert "--yes" in capsys.readouterr().err
    assert keys(server) == before


async def test_it_removes_nothing_while_a_node_is_joined(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """That would make it anew, and report lost writes."""
    async with RedisBackend.from_url(server.url, namespace="shop") as backend:
        timer: DTimer = DTimer(backend, node_id="clerk")
        timer.on("event", print)
        async with timer:
            assert await command(server.url, "--namespace", "shop", "--yes") == 2
            assert "clerk" in capsys.readouterr().err
    assert keys(server)
    assert await command(server.url, "--namespace", "shop", "--yes") == 0
    assert not keys(server)


async def test_it_finds_a_node_that_is_joined_in_one_partition_only(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that dies while it joins, say."""
    await use(server.url, "shop", 3)
    before = keys(server)
    async with RedisBackend.from_url(server.url, namespace="shop", partitions=3) as backend:
        await backend.partitions[-1].join(Member("clerk", "1"))

        assert await command(server.url, "--namespace", "shop", "--yes") == 2
        assert "clerk" in capsys.readouterr().err
    assert before <= keys(server)


async def test_one_that_was_interrupted_can_be_run_again(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Until all else is gone, the first partition tells how many there are."""
    await use(server.url, "shop", 3)
    async with Proxy(server.port) as proxy:
        proxy.drop_reply_and_cut(lambda sent: b"DEL" in sent and b"{shop:1}:meta" in sent.partition(b"DEL")[2])
        assert await command(f"redis://{proxy.host}:{proxy.port}", "--namespace", "shop", "--yes") == 2
    assert keys(server)
    capsys.readouterr()

    assert await command(server.url, "--namespace", "shop", "--yes") == 0

    assert "in 3 partitions" in capsys.readouterr().out
    assert not keys(server)


async def test_it_removes_what_this_version_cannot_read(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    await use(server.url, "shop")
    with server.client() as client:
        client.hset("{shop}:meta", "schema", "99")

    assert await command(server.url, "--namespace", "shop", "--yes") == 0
    assert "cannot read" in capsys.readouterr().out
    assert not keys(server)


async def test_what_an_earlier_number_of_partitions_left_goes_too(server: Server) -> None:
    """Parts out of use keep a mark, which refuses those who still use the old number."""
    await use(server.url, "shop", 3)
    assert await asyncio.to_thread(main, ["migrate-partitions", server.url, "--namespace", "shop", "--to", "1"]) == 0

    assert await command(server.url, "--namespace", "shop", "--yes") == 0
    assert not keys(server)


async def test_it_names_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert await command("http://h", "--yes") == 2
    assert "url" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["9" * 5_000, "0", "-1", "x", ""])
async def test_it_removes_what_has_an_odd_number_of_partitions(server: Server, number: str) -> None:
    """A number of more than 4,300 digits is none for Python."""
    await use(server.url, "shop")
    with server.client() as client:
        client.hset("{shop}:meta", "partitions", number)

    assert await command(server.url, "--namespace", "shop", "--yes") == 0
    assert not keys(server)


@pytest.mark.parametrize("key", ["meta", "queue", "records"])
async def test_it_removes_keys_that_are_of_another_type(server: Server, key: str) -> None:
    await use(server.url, "shop")
    with server.client() as client:
        client.delete(f"{{shop}}:{key}")
        client.set(f"{{shop}}:{key}", "x")

    assert await command(server.url, "--namespace", "shop", "--yes") == 0
    assert not keys(server)


async def test_it_removes_nothing_when_the_terminal_is_closed(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-D does not answer."""
    await use(server.url, "shop")
    terminal = StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)

    assert await command(server.url, "--namespace", "shop") == 1
    assert keys(server)
    assert "for good?" in capsys.readouterr().out
