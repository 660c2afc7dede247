"""Another number of partitions: everything is moved as it is, also by a migration that was interrupted anywhere."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from dtimer import DTimer, Event, PartitionsMismatch, Post, StoreRefused, StoreUnreachable
from dtimer.backends.redis import RedisBackend
from dtimer.backends.redis.clock_reset import Reset, reset_clock
from dtimer.backends.redis.pool import Pool
from dtimer.backends.redis.repartition import Migrated, migrate_partitions
from dtimer.limits import DAY_US
from dtimer.protocol.values import After, EventData, Member, NewEvent
from support.servers import Server
from support.waiting import until

pytestmark = pytest.mark.once


def client(server: Server) -> Redis:
    return Redis(host=server.host, port=server.port)


def backend(server: Server, partitions: int) -> RedisBackend:
    return RedisBackend(client(server), partitions=partitions)


async def fill(server: Server, partitions: int, number: int = 60) -> None:
    """Scheduled, unconfirmed, released and dead ones."""
    async with backend(server, partitions) as store:
        timer = DTimer(store)
        events: list[Event] = []
        timer.on("event", events.append)
        await timer.post_many(
            Post(payload={"n": n}, delay=1_000_000 + n, id=f"e{n}", max_retries=n % 3, headers={"h": str(n)})
            for n in range(number)
        )
        async with timer:
            await timer.post_many(
                Post(payload=n, delay=0, id=f"taken-{n}", max_retries=3, dead_letter=True, confirm_timeout=3_600)
                for n in range(8)
            )
            await until(lambda: len(events) == 8)
            for event in events[:2]:
                await event.release(3_600_000, counted=True)
            for event in events[2:4]:
                await event.bury("dead")
            # And a second time.
            again = events[2].id
            await timer.post("again", 0, id=again, dead_letter=True, confirm_timeout=3_600)
            await until(lambda: len(events) == 9)
            await events[8].bury("dead again")


async def contents(server: Server, partitions: int) -> list[Any]:
    """All that was posted and what has become of it, as it is kept."""
    kept: list[Any] = []
    async with client(server) as looking:
        for number in range(partitions):
            prefix = f"{{dt:{number}}}:" if number else "{dt}:"
            for name in ("queue", "buried"):
                kept += [(name, entry) for entry in await looking.zrange(f"{prefix}{name}", 0, -1, withscores=True)]
            for name in ("records", "states", "letters"):
                kept += [(name, field) for field in (await looking.hgetall(f"{prefix}{name}")).items()]
    return sorted(kept, key=repr)


async def ahead(server: Server, partitions: int, *places: int) -> None:
    """The server's clock seems to have been a day ahead, noticed in these partitions; in all by default."""
    ahead_us = [DAY_US, 0]
    store = RedisBackend(
        client(server), partitions=partitions, clock_for_tests=lambda: time.time_ns() // 1_000 + ahead_us[0]
    )
    async with store:
        for _ in range(2):
            for place in places or range(partitions):
                await store.partitions[place].cancel(["none"])
            ahead_us.reverse()


async def migrated(server: Server, to: int) -> Migrated:
    return await migrate_partitions(client(server), partitions=to)


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1), (4, 6), (6, 4), (3, 3)])
async def test_everything_is_moved_as_it_is(server: Server, before: int, after: int) -> None:
    """Due times, deadlines, retries, states, payloads; and it can be found, and nothing else is left."""
    await fill(server, before)
    kept = await contents(server, before)

    done = await migrated(server, after)

    assert (done.before, done.after) == (before, after)
    assert (done.events > 0) is (before != after)
    assert await contents(server, after) == kept
    async with backend(server, after) as store:
        timer = DTimer(store)
        assert len(await timer.upcoming()) == 66
        for n in range(60):
            peeked = await timer.peek(f"e{n}")
            assert peeked is not None
            assert peeked.payload == {"n": n}
        letters = await timer.dead_letters()
        assert [letter.detail for letter in letters] == ["dead", "dead", "dead again"]
        assert [bool(await timer.discard(letter)) for letter in letters] == [True] * 3
    async with client(server) as looking:
        for number in range(after, before):
            assert await looking.keys(f"{{dt:{number}}}:*") == [f"{{dt:{number}}}:meta".encode()]


async def test_afterwards_only_the_new_number_is_accepted_and_nodes_can_join(server: Server) -> None:
    await fill(server, 1)
    await migrated(server, 5)

    async with backend(server, 5) as store:
        taken: list[str] = []
        timer = DTimer(store)
        timer.on("event", lambda event: taken.append(event.id))
        async with timer:
            for n in range(60):
                await timer.change_delay(f"e{n}", 0)
            await until(lambda: len(taken) == 60)
    old = backend(server, 1)
    with pytest.raises(PartitionsMismatch, match="in 5 partitions, not in 1"):
        await old.open()
    await old.close()


@pytest.mark.any_server
async def test_a_migration_that_was_interrupted_anywhere_can_be_finished(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each of its requests in turn. Until then nobody can do anything with the namespace."""
    await fill(server, 3, number=20)
    kept = await contents(server, 3)
    request = Pool.request
    before, after = 3, 4
    left = interrupted_after = 0

    async def failing(self: Pool, operation: str, *arguments: Any) -> Any:
        nonlocal left
        if operation == "migrate_partitions":
            if not left:
                raise StoreUnreachable(operation, "interrupted")
            left -= 1
        return await request(self, operation, *arguments)

    for interrupted_after in range(1, 1_000):
        left = interrupted_after
        monkeypatch.setattr(Pool, "request", failing)
        try:
            await migrated(server, after)
        except StoreUnreachable:
            monkeypatch.setattr(Pool, "request", request)
            await self_consistent(server, before, after)
            await migrated(server, after)
        else:
            break
        finally:
            monkeypatch.setattr(Pool, "request", request)
        assert await contents(server, after) == kept
        before, after = after, before
    assert interrupted_after > 30
    assert await contents(server, after) == kept


async def self_consistent(server: Server, before: int, after: int) -> None:
    """Half a migration is refused to users, and to another migration, once anything has been moved."""
    async with client(server) as looking:
        stored = await looking.hget("{dt}:meta", "partitions")
    if not (isinstance(stored, bytes) and b">" in stored):
        return
    for partitions in (before, after):
        half = backend(server, partitions)
        with pytest.raises(PartitionsMismatch):
            await half.open()
        await half.close()
    with pytest.raises(PartitionsMismatch, match=f"from {before} to {after} partitions was interrupted"):
        await migrated(server, 9)


async def test_a_node_that_is_joined_stands_in_the_way(server: Server) -> None:
    """It would go on with a number that is wrong. Nothing is changed, and it goes on undisturbed."""
    await fill(server, 4)
    kept = await contents(server, 4)
    async with backend(server, 4) as store, DTimer(store, node_id="somebody") as timer:
        with pytest.raises(StoreRefused, match=r"nodes are joined.*: somebody"):
            await migrated(server, 2)
        await timer.post("p", 1, id="later")
    assert len(await contents(server, 4)) == len(kept) + 2


async def test_a_node_that_died_long_ago_does_not(server: Server) -> None:
    """Nobody has claimed since, so nobody has removed it."""
    async with backend(server, 2) as store:
        for part in store.partitions:
            await part.join(Member("dead", "1", poll_us=1))
            await part.post([NewEvent(EventData(id="e", payload=b""), After(0))])

        await migrated(server, 3)

    async with backend(server, 3) as store:
        assert not (await store.inspect()).value.ring


async def test_partitions_that_went_out_of_use_can_come_back(server: Server) -> None:
    """Whatever their number was when they went."""
    await fill(server, 1)
    kept = await contents(server, 1)

    for number in (6, 4, 2, 6, 1):
        await migrated(server, number)

        assert await contents(server, number) == kept


@pytest.mark.parametrize("marked", [0, 1])
async def test_a_reset_of_the_clock_must_be_finished_first(server: Server, marked: int) -> None:
    """Whichever partition it is at; and nothing is changed by the refusal, so that it can be finished."""
    await fill(server, 3)
    await ahead(server, 3)
    async with backend(server, 3) as store:
        assert await Reset(store._connector, store.namespace, 3)._begin(marked, going_on=False) is not None

    with pytest.raises(StoreRefused, match=r"dtimer clock-reset"):
        await migrated(server, 2)

    assert await reset_clock(client(server)) is not None
    await migrated(server, 2)


async def test_clocks_that_are_ahead_must_be_put_right_first(server: Server) -> None:
    """Times that were moved as they are would come early or late by the clock of another partition."""
    await fill(server, 3)
    before = await contents(server, 3)
    await ahead(server, 3, 1)

    with pytest.raises(StoreRefused, match=r" ahead of the server's; run dtimer clock-reset first"):
        await migrated(server, 4)

    assert len(await contents(server, 3)) == len(before)
    await reset_clock(client(server))
    assert (await migrated(server, 4)).after == 4


async def test_posts_that_come_meanwhile_are_refused(server: Server) -> None:
    """Also those of a process that has been at it for long, in whatever partition."""
    async with backend(server, 4) as store:
        timer = DTimer(store)
        await timer.post("p", 1_000_000, id="e1")
        await migrated(server, 2)
        for n in range(20):
            with pytest.raises(PartitionsMismatch):
                await timer.post("p", 1_000_000, id=f"late-{n}")
    async with backend(server, 2) as store:
        assert [entry.id for entry in await DTimer(store).upcoming()] == ["e1"]


# --- the command ------------------------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-P", "-m", "dtimer", "migrate-partitions", *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.any_server
async def test_the_command_moves_and_says_what_it_did(server: Server) -> None:
    await fill(server, 1)

    first, again = command(server.url, "--to", "16"), command(server.url, "--to", "16")

    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("namespace 'dt': from 1 to 16 partitions; moved ")
    assert again.stdout == "namespace 'dt' is in 16 partitions already\n"
    assert command(server.url, "--to", "2", "--namespace", "none").stdout.startswith("namespace 'none' does not exist")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("redis://127.0.0.1:1", "--to", "2"), "127.0.0.1:1"),
        (("redis://127.0.0.1:1", "--to", "0"), "partitions must be an int from 1"),
        (("http://x", "--to", "2"), "must begin with redis://"),
        (("redis://127.0.0.1:1", "--to", "2", "--cluster"), "no server of the cluster"),
        (("redis://127.0.0.1:1", "--to", "2", "--sentinel", "timers"), "no sentinel names a master 'timers'"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    shown = command(*arguments)

    assert shown.returncode == 2
    assert said in shown.stderr
    assert shown.stderr.count("\n") == 1
