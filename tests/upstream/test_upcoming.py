"""Listing what is to come."""

from __future__ import annotations

from typing import Any

import pytest

from dtimer import InvalidArgument, Post
from support.worlds import World

S = 1_000
"""An overdue event stands before these: at 10 s, 20 s and 30 s."""

WINDOWS: list[tuple[dict[str, Any], str]] = [
    ({}, "over a1 a2 a3"),
    ({"offset": -1}, "over a1 a2 a3"),
    ({"offset": 0}, "a1 a2 a3"),
    ({"offset": 15 * S}, "a2 a3"),
    ({"duration": 15 * S}, "over a1"),
    ({"offset": 5 * S, "duration": 10 * S}, "a1"),
    ({"offset": 15 * S, "duration": 10 * S}, "a2"),
    ({"offset": 5 * S, "duration": 0}, ""),
    ({"duration": 0}, "over"),
    ({"duration": -1}, "over a1 a2 a3"),
    ({"limit": 1}, "over"),
    ({"limit": 0}, "over a1 a2 a3"),
    ({"limit": -1}, "over a1 a2 a3"),
    ({"offset": 0, "limit": 2}, "a1 a2"),
    ({"offset": 0.5, "duration": 10_000.25}, "a1"),
]


@pytest.mark.parametrize(("window", "listed"), WINDOWS, ids=lambda value: str(value) or "nothing")
async def test_a_window_shows_its_part_of_the_queue(world: World, window: dict[str, Any], listed: str) -> None:
    """What the original dtimer 0.3.3 did (P43), as here."""
    timer = world.timer()
    await timer.post("p", -1, id="over")
    await timer.post_many(Post(payload="p", delay=number * 10 * S, id=f"a{number}") for number in (1, 2, 3))
    await world.passes(1)

    assert " ".join(entry.id for entry in await timer.upcoming(**window)) == listed


@pytest.mark.parametrize("window", [{"limit": 1.5}, {"offset": "1"}, {"duration": "1"}, {"limit": True}])
async def test_what_is_no_window_is_refused(world: World, window: dict[str, Any]) -> None:
    """What the original dtimer 0.3.3 did (P43): the server refused such a limit, and an offset of "1" was ignored."""
    with pytest.raises(InvalidArgument, match=next(iter(window))):
        await world.timer().upcoming(**window)
