"""The command that brings a namespace of an earlier version to the form of this one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from io import StringIO

import pytest
from redis import Redis as Client

from dtimer.cli import main
from support.schema_1 import DEAD, DELIVERED, lay_out
from support.servers import Server


async def command(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["upgrade", *arguments])


@pytest.fixture
def looking(server: Server) -> Iterator[Client]:
    with server.client() as client:
        yield client


async def test_it_says_what_it_did(server: Server, looking: Client, capsys: pytest.CaptureFixture[str]) -> None:
    lay_out(looking)
    # So that the two numbers differ.
    letter = min(looking.hkeys("{dt}:letters"))
    looking.zrem("{dt}:buried", letter)
    looking.hdel("{dt}:letters", letter)

    assert await command(server.url, "--yes") == 0
    said = capsys.readouterr().out
    assert "has schema 1, and is to have 2" in said
    assert f"{DELIVERED} events that had been delivered, and {DEAD - 1} dead letters" in said

    assert await command(server.url) == 0
    assert "has schema 2 already" in capsys.readouterr().out
    assert await command(server.url, "--namespace", "other") == 0
    assert "namespace 'other' does not exist" in capsys.readouterr().out


@pytest.mark.parametrize("answer", ["y", "n", None])
async def test_it_asks(
    server: Server,
    looking: Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str | None,
) -> None:
    """On a terminal; elsewhere there is none to ask, and it changes nothing."""
    looking.hset("{dt}:meta", mapping={"schema": "1", "epoch": "e", "counts": "1 1 0 0 0", "arm": ""})
    terminal = StringIO(f"{answer or 'y'}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: answer is not None)
    monkeypatch.setattr(sys, "stdin", terminal)

    assert await command(server.url) == (0 if answer == "y" else 1)

    assert ("--yes" in capsys.readouterr().err) is (answer is None)
    assert looking.hget("{dt}:meta", "schema") == (b"2" if answer == "y" else b"1")


async def test_it_names_the_nodes_that_are_joined(
    server: Server, looking: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    looking.hset("{dt}:meta", mapping={"schema": "1", "epoch": "e", "counts": "1 1 0 0 0", "arm": ""})
    looking.zadd("{dt}:lives", {"clerk": 9e15})

    assert await command(server.url, "--yes") == 2
    assert "clerk" in capsys.readouterr().err


async def test_a_namespace_of_a_later_version_wants_a_later_dtimer(
    server: Server, looking: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    """So says every command."""
    looking.hset("{dt}:meta", mapping={"schema": "3", "epoch": "e", "counts": "1 1 0 0 0", "arm": ""})

    assert await command(server.url, "--yes") == 2
    assert await asyncio.to_thread(main, ["doctor", server.url]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("upgrade dtimer;") == 1
    assert captured.out.count("upgrade dtimer;") == 1


async def test_it_names_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert await command("http://h", "--yes") == 2
    assert "url" in capsys.readouterr().err
