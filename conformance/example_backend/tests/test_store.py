"""Failures by name, the clock, and what listeners hear."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import Awaitable
from pathlib import Path

import pytest
from dtimer import (
    BackendClosed,
    BackendError,
    OutcomeUnknown,
    SchemaMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreFull,
    StoreUnreachable,
)
from dtimer.protocol import (
    SECOND_US,
    After,
    EventData,
    Malformed,
    Member,
    NewEvent,
    PostOutcome,
    Pulse,
    SupportsDeadLetters,
    SupportsInspection,
    SupportsPurge,
    TimerBackend,
    Wakeup,
    Window,
)

from dtimer_sqlite import SqliteBackend, failures
from dtimer_sqlite.schema import SCHEMA

NEW = NewEvent(EventData(id="x", payload=b"1"), After(SECOND_US))


async def refused(kind: type[BackendError], call: Awaitable[object]) -> BackendError:
    with pytest.raises(kind) as caught:
        await call
    return caught.value


def test_it_has_every_ability(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path / "t.db")
    as_protocol: TimerBackend = backend

    assert as_protocol.namespace == "dt"
    assert isinstance(backend, SupportsDeadLetters)
    assert isinstance(backend, SupportsInspection)
    assert isinstance(backend, SupportsPurge)


# --- failures ---------------------------------------------------------------------------------------


async def test_a_locked_file_is_busy_and_does_not_block_the_loop(tmp_path: Path) -> None:
    async with SqliteBackend(tmp_path / "t.db", busy_timeout_s=0.05) as backend:
        await backend.open()
        other = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        posting = asyncio.create_task(backend.post([NEW]))
        await asyncio.sleep(0)
        assert not posting.done()

        error = await refused(StoreBusy, posting)
        assert error.operation == "post"
        assert error.safe_to_repeat
        assert (await backend.peek("x")).value is None, "reads wait for nobody"

        other.execute("ROLLBACK")
        other.close()
        assert (await backend.post([NEW])).value == (PostOutcome.CREATED,)


async def test_a_file_that_is_no_database_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "t.db").write_bytes(b"no database" * 1_000)

    async with SqliteBackend(tmp_path / "t.db") as backend:
        await refused(StoreCorrupt, backend.open())


async def test_a_file_of_another_application_is_left_alone(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "t.db")
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = (tmp_path / "t.db").read_bytes()

    async with SqliteBackend(tmp_path / "t.db") as backend:
        await refused(StoreCorrupt, backend.open())

    assert (tmp_path / "t.db").read_bytes() == before


@pytest.mark.parametrize("sql", ["PRAGMA user_version = ", "UPDATE namespaces SET schema = "])
async def test_a_later_schema_is_refused(tmp_path: Path, sql: str) -> None:
    async with SqliteBackend(tmp_path / "t.db") as backend:
        await backend.open()
    other = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
    other.execute(f"{sql}{SCHEMA + 1}")
    other.close()

    async with SqliteBackend(tmp_path / "t.db") as backend:
        await refused(SchemaMismatch, backend.peek("x"))
        await refused(SchemaMismatch, backend.post([NEW]))


async def test_a_folder_that_is_not_there_was_never_reached(tmp_path: Path) -> None:
    async with SqliteBackend(tmp_path / "nowhere" / "t.db") as backend:
        await refused(StoreUnreachable, backend.open())


async def test_a_full_store_refuses_a_post_whole_and_goes_on(tmp_path: Path) -> None:
    async with SqliteBackend(tmp_path / "t.db") as backend:
        await backend.post([NEW])
        db = backend._file._db
        assert db is not None
        await asyncio.get_running_loop().run_in_executor(
            backend._thread,
            db.execute,
            "PRAGMA max_page_count = 1",  # SQLite rounds it up to what there is
        )
        big = NewEvent(EventData(id="big", payload=bytes(1 << 20)), After(0))

        await refused(StoreFull, backend.post([NewEvent(EventData(id="y", payload=b""), After(0)), big]))

        assert (await backend.peek("y")).value is None
        assert (await backend.cancel(["x"])).seq == 2


async def test_a_closed_backend_says_so(tmp_path: Path) -> None:
    backend = SqliteBackend(tmp_path / "t.db")
    epoch = (await backend.open()).epoch
    async with backend.wakeups("a", epoch) as heard:
        await backend.close()
        await backend.close()

        await refused(BackendClosed, anext(heard))
    await refused(BackendClosed, backend.peek("x"))


def test_only_a_commit_that_failed_for_want_of_a_lock_or_of_space_is_known_to_have_done_nothing() -> None:
    busy, broken = sqlite3.OperationalError(), sqlite3.OperationalError()
    busy.sqlite_errorcode, broken.sqlite_errorcode = sqlite3.SQLITE_BUSY, sqlite3.SQLITE_IOERR_FSYNC

    assert type(failures.of_commit("post", busy)) is StoreBusy
    assert type(failures.of_commit("post", broken)) is OutcomeUnknown


# --- the clock --------------------------------------------------------------------------------------


async def test_time_goes_on_when_the_host_is_set_back(tmp_path: Path) -> None:
    """T2: the skew is kept in the file, and a read shows it without keeping it."""
    now_us = [10 * SECOND_US]
    async with SqliteBackend(tmp_path / "t.db", clock_for_tests=lambda: now_us[0]) as backend:
        await backend.post([NEW])
        now_us[0] = 4 * SECOND_US
        assert (await backend.peek("x")).skew_us == 6 * SECOND_US
        now_us[0] = 5 * SECOND_US
        assert (await backend.cancel(["y"])).skew_us == 5 * SECOND_US

    async with SqliteBackend(tmp_path / "t.db", clock_for_tests=lambda: now_us[0]) as backend:
        now_us[0] += 7
        reply = await backend.peek("x")

        assert (reply.at_us, reply.skew_us) == (10 * SECOND_US + 7, 5 * SECOND_US)


# --- wake-ups ---------------------------------------------------------------------------------------


async def test_a_node_hears_what_it_is_told_and_all_hear_the_pulse(tmp_path: Path) -> None:
    async with SqliteBackend(tmp_path / "t.db") as backend:
        epoch = (await backend.open()).epoch
        member = Member("a", "i1")
        async with backend.wakeups("a", epoch) as heard, backend.wakeups("b", epoch) as elsewhere:
            await backend.join(member)
            posted = await backend.post([NEW])
            claimed = await backend.claim(member, room=1, confirm_timeout_us=1, nonce="n", pulse=True)

            assert await anext(heard) == Wakeup(posted.announced[0].due_us, posted.at_us, posted.seq)
            assert await anext(heard) == Pulse("a", claimed.at_us, claimed.seq)
            assert await anext(elsewhere) == Pulse("a", claimed.at_us, claimed.seq)
        assert list(tmp_path.glob("t.db-????????????")) == []


async def test_what_dtimer_did_not_write_is_malformed(tmp_path: Path) -> None:
    async with SqliteBackend(tmp_path / "t.db") as backend:
        epoch = (await backend.open()).epoch
        async with backend.wakeups("a", epoch) as heard:
            (address,) = tmp_path.glob("t.db-????????????")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"[]", str(address))

            assert await anext(heard) == Malformed(b"[]")


async def test_who_listens_under_another_epoch_hears_nothing(tmp_path: Path) -> None:
    async with SqliteBackend(tmp_path / "t.db") as backend, backend.wakeups("a", "another"):
        await backend.join(Member("a", "i1"))
        posted = await backend.post([NEW])

        assert [told.reached for told in posted.announced] == [False]


async def test_a_long_path_still_has_wakeups(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    async with SqliteBackend(folder / "t.db") as backend, backend.wakeups("a", (await backend.open()).epoch):
        await backend.join(Member("a", "i1"))

        assert (await backend.post([NEW])).announced[0].reached


# --- records that a later version wrote -------------------------------------------------------------


async def test_an_unreadable_record_is_set_aside_with_its_bytes(tmp_path: Path) -> None:
    """F4."""
    async with SqliteBackend(tmp_path / "t.db") as backend:
        await backend.post([NewEvent(EventData(id="x", payload=b"1"), After(0))])
        other = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
        other.execute(f"UPDATE events SET schema = {SCHEMA + 1}")
        other.close()
        member = Member("a", "i1")
        await backend.join(member)

        assert (await backend.peek("x")).value is None
        assert (await backend.upcoming(Window(), limit=5)).value.items == ()
        claimed = (await backend.claim(member, room=1, confirm_timeout_us=1, nonce="n")).value

        assert [record.id for record in claimed.unreadable] == ["x"]
        (letter,) = (await backend.dead_letters(None, limit=5)).value.items
        assert (letter.event, letter.raw) == (None, claimed.unreadable[0].raw)
