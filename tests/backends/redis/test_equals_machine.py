"""The Lua scripts and the pure machine say the same, operation by operation, whatever the program."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from redis.asyncio import Redis

from dtimer.backends.redis import RedisBackend
from dtimer.limits import SECOND_US
from dtimer_conformance.programs import Runner, Step, programs
from dtimer_conformance.replay import replay
from support.servers import Server

_SETTINGS = settings(
    deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@settings(_SETTINGS, max_examples=200)
@given(program=programs())
def test_any_program_at_any_times(server: Server, program: list[Step]) -> None:
    """Days pass in a program, so the server's clock is handed in: every deadline, expiry and age comes up."""
    now_us = [1_800_000_000 * SECOND_US]

    async def wait(duration_us: int) -> None:
        now_us[0] += duration_us

    async def run() -> Runner:
        async with RedisBackend(Redis.from_url(server.url), "program", clock_for_tests=lambda: now_us[0]) as backend:
            await backend.purge()
            runner = Runner(backend, wait)
            await runner.run(program)
            return runner

    difference = replay(asyncio.run(run()).history)

    assert difference is None, f"\n{difference}"


@settings(_SETTINGS, max_examples=50)
@given(program=programs())
def test_any_program_by_the_servers_own_clock(server: Server, program: list[Step]) -> None:
    """Replies carry the time at which they were true, so a clock that nobody controls needs no tolerance."""

    async def wait(duration_us: int) -> None:
        await asyncio.sleep(min(duration_us, 100) / 1e6)

    async def run() -> Runner:
        async with RedisBackend.from_url(server.url, "program") as backend:
            await backend.purge()
            runner = Runner(backend, wait)
            await runner.run(program)
            return runner

    difference = replay(asyncio.run(run()).history)

    assert difference is None, f"\n{difference}"


async def test_a_forged_reply_is_found_out(server: Server) -> None:
    """The net holds: one wrong word in a history is a difference, with the operation and both replies."""
    from attrs import evolve

    from dtimer.outcomes import PostOutcome
    from dtimer.semantics import operations as op
    from dtimer.values import After, EventData, NewEvent

    async with RedisBackend.from_url(server.url, "forged") as backend:
        runner = Runner(backend, asyncio.sleep)
        program: list[Step] = [op.Post((NewEvent(EventData(id="x", payload=b""), After(0)),))]
        history = await runner.run(program)
    history[1] = evolve(history[1], reply=evolve(history[1].reply, value=(PostOutcome.KEPT,)))

    difference = replay(history)

    assert difference is not None
    assert "KEPT" in str(difference)
    assert "CREATED" in str(difference)


async def test_a_gap_in_a_history_is_named(server: Server) -> None:
    """O1: a lost reply cannot hide."""
    from dtimer.semantics import operations as op

    async with RedisBackend.from_url(server.url, "gap") as backend:
        history = await Runner(backend, asyncio.sleep).run([op.Cancel(("a",)), op.Cancel(("b",))])

    with pytest.raises(ValueError, match=r"operation 1 of epoch .* is missing"):
        replay(record for record in history if record.reply.seq != 1)
