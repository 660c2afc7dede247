"""A namespace whose server's clock was wrong for a while, and the command that puts its own right."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from redis.asyncio import Redis

from dtimer import DTimer, Post, RedisBackend
from dtimer.cli import main
from support.servers import Server

DAY = timedelta(days=1)


async def command(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["clock-reset", *arguments])


async def use(server: Server, due: datetime, *, partitions: int = 1) -> None:
    """Post nine events for a time of day; then the server's clock is a day ahead, as it seems, and right again."""
    ahead = [timedelta(0)]

    def clock() -> int:
        return time.time_ns() // 1_000 + ahead[0] // timedelta(microseconds=1)

    async with RedisBackend(Redis.from_url(server.url), partitions=partitions, clock_for_tests=clock) as backend:
        timer: DTimer = DTimer(backend)
        await timer.post_many(Post(payload=n, at=due, id=f"e{n}") for n in range(9))
        for wrong in (DAY, timedelta(0)):
            ahead[0] = wrong
            for part in backend.partitions:
                await part.cancel(["none"])


async def dues(server: Server, partitions: int = 1) -> set[datetime | None]:
    async with RedisBackend.from_url(server.url, partitions=partitions) as backend:
        return {event.due for event in await DTimer(backend).upcoming()}


def in_days(number: int) -> datetime:
    return datetime.now(UTC) + number * DAY


@pytest.mark.parametrize("partitions", [1, 3])
async def test_it_says_by_how_much_the_clock_is_ahead_and_puts_it_right(
    server: Server, partitions: int, capsys: pytest.CaptureFixture[str]
) -> None:
    due = in_days(4)
    await use(server, due, partitions=partitions)
    before = await dues(server, partitions)
    assert all(early is not None and timedelta(hours=23) < due - early <= DAY for early in before)

    assert await command(server.url, "--yes") == 0
    said = capsys.readouterr().out
    assert f"ahead of the server's, in {partitions} partitions" in said
    assert "9 live events and 0 dead letters" in said
    assert await dues(server, partitions) == {due}

    assert await command(server.url) == 0
    assert "its clock is the server's" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "done"), [("y", True), ("n", False), ("", False)])
async def test_it_asks_on_a_terminal(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, done: bool
) -> None:
    due = in_days(4)
    await use(server, due)
    terminal = StringIO(answer + "\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)

    assert await command(server.url) == (0 if done else 1)

    assert "reset the namespace's clock to it?" in capsys.readouterr().out
    assert (await dues(server) == {due}) is done


async def test_it_changes_nothing_without_a_terminal(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    due = in_days(4)
    await use(server, due)
    monkeypatch.setattr(sys, "stdin", StringIO("y\n"))

    assert await command(server.url) == 1

    assert "--yes" in capsys.readouterr().err
    assert await dues(server) != {due}


async def test_it_changes_nothing_while_a_node_is_joined(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    due = in_days(4)
    await use(server, due)
    async with RedisBackend.from_url(server.url) as backend:
        timer: DTimer = DTimer(backend, node_id="clerk")
        timer.on("event", print)
        async with timer:
            assert await command(server.url, "--yes") == 2
            assert "clerk" in capsys.readouterr().err
    assert await dues(server) != {due}
    assert await command(server.url, "--yes") == 0
    assert await dues(server) == {due}


async def test_the_doctor_names_the_skew_and_the_command(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    await use(server, in_days(4))
    assert await asyncio.to_thread(main, ["doctor", server.url]) == 1
    said = capsys.readouterr().out
    assert "clock: the namespace's clock is " in said
    assert "dtimer clock-reset" in said

    await command(server.url, "--yes")
    capsys.readouterr()
    await asyncio.to_thread(main, ["doctor", server.url])
    assert "clock: " not in capsys.readouterr().out


async def test_it_says_that_there_is_no_namespace(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert await command(server.url, "--namespace", "none", "--yes") == 0
    assert "namespace 'none' does not exist" in capsys.readouterr().out


async def test_it_names_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert await command("http://h", "--yes") == 2
    assert "url" in capsys.readouterr().err
