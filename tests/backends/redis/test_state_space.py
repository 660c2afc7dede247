"""Paths through the small worlds, on real servers: each reply is the machine's, the time it was given included."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from redis.asyncio import Redis

from dtimer.backends.redis import RedisBackend
from dtimer_conformance.programs import Runner
from dtimer_conformance.replay import replay
from dtimer_conformance.state_space import ALPHABETS, sample
from dtimer_conformance.state_space.state import START_US, Recorded
from support.breaking import broken_scripts
from support.mutants import MUTANTS, Kind
from support.servers import Server, running, server_binaries

pytestmark = pytest.mark.once

PATHS = 60
BROKEN = {
    "retries": "double confirm",
    "refusals": "the refuser alone is asked again",
    "lost calls": "a repeated join fences the later one",
    "ring": "a join does not say that it fences another",
    "clock": "a time of day knows no skew",
    "expiry": "a phantom on change_delay",
}


@cache
def paths(alphabet: str) -> list[Recorded]:
    """Found once for all servers."""
    return sample(ALPHABETS[alphabet], PATHS)


async def difference(server: Server, path: Recorded) -> str | None:
    now_us = [START_US]

    async def wait(duration_us: int) -> None:
        now_us[0] += duration_us

    async with RedisBackend(Redis.from_url(server.url), "paths", clock_for_tests=lambda: now_us[0]) as backend:
        await backend.purge()
        history = await Runner(backend, wait, leap=wait).run(path.program)
    found = path.difference(history)
    return f"{replay(history)}" if found is None and replay(history) is not None else found


@pytest.mark.parametrize("alphabet", ALPHABETS)
async def test_a_server_answers_as_the_machine_does(alphabet: str, server: Server) -> None:
    assert len(paths(alphabet)) > PATHS // 2
    for path in paths(alphabet):
        found = await difference(server, path)
        assert found is None, found


@pytest.mark.parametrize("alphabet", ALPHABETS)
async def test_a_broken_script_is_found_on_the_way(alphabet: str, tmp_path: Path) -> None:
    """So few paths see much. On one real server: they do not differ in this."""
    (mutant,) = [each for each in MUTANTS if each.name == BROKEN[alphabet] and each.kind is Kind.LUA]
    with running(server_binaries()[0]) as server, broken_scripts(mutant, tmp_path):
        found = [await difference(server, path) for path in paths(alphabet)]

    assert any(found)
