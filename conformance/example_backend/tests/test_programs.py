"""The backend and the rules say the same, operation by operation, whatever the program."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from dtimer.protocol import SECOND_US
from dtimer_conformance.programs import Runner, Step, programs
from dtimer_conformance.replay import replay
from dtimer_conformance.state_space import ALPHABETS, sample
from dtimer_conformance.state_space.state import START_US
from hypothesis import HealthCheck, given, settings

from dtimer_sqlite import SqliteBackend

_SETTINGS = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])


@settings(_SETTINGS, max_examples=300)
@given(program=programs())
def test_any_program_at_any_times(program: list[Step]) -> None:
    """Days pass in a program, so the clock is handed in: every deadline, expiry and age comes up."""
    now_us = [1_800_000_000 * SECOND_US]

    async def wait(duration_us: int) -> None:
        now_us[0] += duration_us

    async def run(folder: Path) -> Runner:
        async with SqliteBackend(
            folder / "t.db", "program", synchronous="normal", clock_for_tests=lambda: now_us[0]
        ) as backend:
            runner = Runner(backend, wait, leap=wait)
            await runner.run(program)
            return runner

    with TemporaryDirectory() as folder:
        difference = replay(asyncio.run(run(Path(folder))).history)

    assert difference is None, f"\n{difference}"


@settings(_SETTINGS, max_examples=50)
@given(program=programs())
def test_any_program_by_the_hosts_own_clock(program: list[Step]) -> None:
    """Replies carry the time at which they were true, so a clock that nobody controls needs no tolerance."""

    async def wait(duration_us: int) -> None:
        await asyncio.sleep(min(duration_us, 100) / 1e6)

    async def run(folder: Path) -> Runner:
        async with SqliteBackend(folder / "t.db", "program", synchronous="normal") as backend:
            runner = Runner(backend, wait)
            await runner.run(program)
            return runner

    with TemporaryDirectory() as folder:
        difference = replay(asyncio.run(run(Path(folder))).history)

    assert difference is None, f"\n{difference}"


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_paths_through_the_small_worlds(alphabet: str) -> None:
    """Each reply is the machine's, the time it was given included."""
    for path in sample(ALPHABETS[alphabet], 20):
        now_us = [START_US]

        async def run(folder: Path, now_us: list[int] = now_us, program: list[Step] = path.program) -> Runner:
            async def wait(duration_us: int) -> None:
                now_us[0] += duration_us

            async with SqliteBackend(
                folder / "t.db", "program", synchronous="normal", clock_for_tests=lambda: now_us[0]
            ) as backend:
                runner = Runner(backend, wait, leap=wait)
                await runner.run(program)
                return runner

        with TemporaryDirectory() as folder:
            history = asyncio.run(run(Path(folder))).history

        assert path.difference(history) is None, f"{path.difference(history)}"
        assert replay(history) is None
