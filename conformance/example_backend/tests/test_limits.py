"""What programs of a few small events do not come to: each history is replayed through the rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from attrs import define, field
from dtimer.protocol import (
    BATCH_MAX_ITEMS,
    DEAD_LETTER_AGE_US,
    DEAD_LETTERS_MAX,
    PAGE_MAX_ITEMS,
    PAYLOAD_MAX_BYTES,
    SECOND_US,
    After,
    EventData,
    LetterName,
    Member,
    NewEvent,
    Window,
)
from dtimer_conformance import RecordingBackend, replay

from dtimer_sqlite import SqliteBackend

A = Member("a", "i1", poll_us=1_000 * DEAD_LETTER_AGE_US)


@define
class World:
    """A store whose time is moved by hand, with one member."""

    backend: RecordingBackend
    now_us: list[int] = field(factory=lambda: [1_800_000_000 * SECOND_US])

    async def post(self, *events: EventData) -> None:
        for start in range(0, len(events), BATCH_MAX_ITEMS):
            await self.backend.post([NewEvent(event, After(0)) for event in events[start : start + BATCH_MAX_ITEMS]])

    async def claim(self, room: int = BATCH_MAX_ITEMS) -> tuple[int, int, bool]:
        """How many were delivered and ended, and whether there may be more."""
        claimed = await self.backend.claim(A, room=room, confirm_timeout_us=SECOND_US, nonce="n")
        return len(claimed.value.deliveries), len(claimed.value.ended), claimed.value.more


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """At the end of the test, its history must be what the rules say."""
    now_us = [1_800_000_000 * SECOND_US]
    store = SqliteBackend(tmp_path / "t.db", synchronous="normal", clock_for_tests=lambda: now_us[0])
    world = World(RecordingBackend(store), now_us)
    await world.backend.join(A)
    yield world
    await world.backend.inspect()
    await world.backend.close()
    difference = replay(world.backend.history)
    assert difference is None, f"\n{difference}"


def events(number: int, prefix: str = "e", **options: object) -> list[EventData]:
    return [EventData(id=f"{prefix}{i:05}", **{"payload": b"", **options}) for i in range(number)]  # type: ignore[arg-type]


async def test_a_claim_clears_64_entries_besides_what_it_delivers(world: World) -> None:
    await world.post(*events(130, expires_after_us=1))
    await world.post(*events(1, "x"))
    world.now_us[0] += SECOND_US

    assert [await world.claim() for _ in range(3)] == [(0, 64, True), (0, 64, True), (1, 2, False)]


async def test_a_reply_carries_8_mib(world: World) -> None:
    await world.post(*events(5, payload=bytes(PAYLOAD_MAX_BYTES)))
    await world.post(*events(5, "f", payload=bytes(PAYLOAD_MAX_BYTES), dead_letter=True, expires_after_us=SECOND_US))
    world.now_us[0] += 1_000
    page = (await world.backend.upcoming(Window(), limit=PAGE_MAX_ITEMS)).value
    assert page.next is not None
    rest = (await world.backend.upcoming(page.next, limit=PAGE_MAX_ITEMS)).value
    assert (len(page.items), len(rest.items), rest.next) == (8, 2, None)

    assert [await world.claim() for _ in range(2)] == [(8, 0, True), (2, 0, False)]


async def test_a_page_of_dead_letters_ends_early(world: World) -> None:
    await world.post(*events(9, payload=bytes(PAYLOAD_MAX_BYTES), dead_letter=True, expires_after_us=1))
    world.now_us[0] += SECOND_US
    assert [await world.claim() for _ in range(2)] == [(0, 8, True), (0, 1, False)]

    page = (await world.backend.dead_letters(None, limit=PAGE_MAX_ITEMS)).value
    rest = (await world.backend.dead_letters(page.next, limit=PAGE_MAX_ITEMS)).value
    assert (len(page.items), len(rest.items), rest.next) == (8, 1, None)


async def test_a_dead_letter_is_gone_at_30_days_to_the_microsecond(world: World) -> None:
    await world.post(*events(1, dead_letter=True, expires_after_us=1))
    world.now_us[0] += SECOND_US
    await world.claim()
    world.now_us[0] += DEAD_LETTER_AGE_US - 1
    assert (await world.backend.inspect()).value.dead_letters == 1
    world.now_us[0] += 1
    assert (await world.backend.inspect()).value.dead_letters == 0
    assert (await world.backend.dead_letters(None, limit=1)).value.items == ()
    await world.backend.discard([LetterName("e00000")])


async def test_old_dead_letters_are_cleared_64_at_a_burial(world: World) -> None:
    await world.post(*events(100, dead_letter=True, expires_after_us=1))
    world.now_us[0] += SECOND_US
    await world.claim()
    await world.claim()
    world.now_us[0] += DEAD_LETTER_AGE_US
    for id in ("e00000", "e00099"):
        await world.post(EventData(id=id, payload=b"", dead_letter=True, expires_after_us=1))
        world.now_us[0] += SECOND_US
        await world.claim()
        await world.backend.inspect()


async def test_the_oldest_dead_letter_makes_room(world: World) -> None:
    await world.post(*events(DEAD_LETTERS_MAX + 3, dead_letter=True, expires_after_us=1))
    world.now_us[0] += SECOND_US
    more = True
    while more:
        _, _, more = await world.claim()
        world.now_us[0] += 1

    inspection = (await world.backend.inspect()).value
    assert (inspection.dead_letters, inspection.dead_letters_dropped) == (DEAD_LETTERS_MAX, 3)
