"""With freezegun, the clocks of the process tell the virtual time."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from dtimer import DTimer, Event, JsonValue, SimBackend
from dtimer.sim import SimMisuse

START = datetime(2030, 6, 1, 8, tzinfo=UTC)
GRAIN = timedelta(milliseconds=2)


@pytest.fixture
def sim() -> SimBackend:
    return SimBackend(start=START)


async def test_handlers_see_the_virtual_time_also_after_a_sleep(sim: SimBackend) -> None:
    """Whatever way they ask for it."""
    seen: list[datetime] = []

    async def handle(event: Event[JsonValue]) -> None:
        seen.append(datetime.now(UTC))
        await sim.sleep(timedelta(hours=5))
        seen.append(datetime.fromtimestamp(time.time(), UTC))
        assert datetime.now(UTC) == sim.now

    with sim.frozen_time():
        async with DTimer(sim) as timer:
            timer.on("event", handle)
            await timer.post("Ann", timedelta(hours=1))
            await timer.post("Bob", timedelta(days=2))
            await sim.advance(timedelta(days=3))
            assert timer.counters.handler_errors == 0

    expected = [START + timedelta(hours=hours) for hours in (1, 6, 48, 53)]
    assert all(abs(moment - expected) <= GRAIN for moment, expected in zip(seen, expected, strict=True))


async def test_the_time_is_told_where_it_jumps_by_itself(sim: SimBackend) -> None:
    with sim.frozen_time():
        before = time.monotonic()
        async with sim.autojump(), DTimer(sim) as timer:
            await timer.post("x", timedelta(days=3))
            async with timer.events() as events:
                await anext(events)
            assert abs(datetime.now(UTC) - START - timedelta(days=3)) <= GRAIN
            assert abs(time.monotonic() - before - 3 * 86_400) < 1


async def test_an_event_posted_for_a_time_of_day_comes_at_that_time(sim: SimBackend) -> None:
    """An application computes it from `datetime.now`, and the store's clock is the virtual one."""
    with sim.frozen_time():
        async with sim.autojump(), DTimer(sim) as timer:
            await timer.post("x", at=datetime.now(UTC).replace(hour=18))
            async with timer.events() as events:
                await anext(events)
            assert abs(sim.now - START.replace(hour=18)) <= GRAIN


async def test_the_event_loop_goes_on_by_real_time(sim: SimBackend) -> None:
    """Else a real timeout of the test's own would never end."""
    with sim.frozen_time():
        async with asyncio.timeout(10):
            await asyncio.sleep(0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.get_running_loop().create_future()


async def test_afterwards_the_clocks_are_real_again(sim: SimBackend) -> None:
    """Also when the block raises."""
    with pytest.raises(ZeroDivisionError), sim.frozen_time():
        raise ZeroDivisionError

    await sim.advance(timedelta(days=1))

    assert datetime.now(UTC).year != START.year
    with sim.frozen_time():
        assert datetime.now(UTC) == sim.now == START + timedelta(days=1)


def test_two_blocks_at_once_are_refused(sim: SimBackend) -> None:
    with sim.frozen_time():
        with pytest.raises(SimMisuse, match="frozen already"), sim.frozen_time():
            pass
        assert datetime.now(UTC) == START


def test_without_freezegun_the_error_says_what_to_install(sim: SimBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "freezegun", None)

    with pytest.raises(ModuleNotFoundError, match="pip install freezegun"), sim.frozen_time():
        pass
