"""The Lua scripts and the pure machine say the same, operation by operation, whatever the program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from difflib import unified_diff
from itertools import islice

import pytest
from attrs import astuple
from hypothesis import HealthCheck, given, settings
from redis.asyncio import Redis

from dtimer.backends.redis import RedisBackend
from dtimer.limits import SECOND_US
from dtimer.protocol.values import Applied, Claimed, DeadLetterPage, Page
from dtimer_conformance.history import Record
from dtimer_conformance.programs import Runner, Step, large_program, programs
from dtimer_conformance.replay import Difference, replay
from dtimer_conformance.tour import tour_program
from support.servers import Server

pytestmark = pytest.mark.once

_SETTINGS = settings(
    deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


async def _history_at_any_times(server: Server, program: list[Step]) -> list[Record]:
    """Days pass in a program, so the server's clock is handed in: every deadline, expiry and age comes up."""
    now_us = [1_800_000_000 * SECOND_US]

    async def wait(duration_us: int) -> None:
        now_us[0] += duration_us

    async with RedisBackend(Redis.from_url(server.url), "program", clock_for_tests=lambda: now_us[0]) as backend:
        await backend.purge()
        return await Runner(backend, wait, leap=wait).run(program)


@settings(_SETTINGS, max_examples=50)
@given(program=programs())
def test_any_program_at_any_times(server: Server, program: list[Step]) -> None:
    difference = replay(asyncio.run(_history_at_any_times(server, program)))

    assert difference is None, f"\n{difference}"


@pytest.mark.campaign
@settings(_SETTINGS, max_examples=400)
@given(program=programs())
def test_many_more_programs_at_any_times(server: Server, program: list[Step]) -> None:
    """Every program of `test_any_program_at_any_times` is new, so servers, Pythons and days find more of them there."""
    difference = replay(asyncio.run(_history_at_any_times(server, program)))

    assert difference is None, f"\n{difference}"


@pytest.mark.parametrize("program", [tour_program, large_program])
async def test_a_fixed_program(server: Server, program: Callable[[], list[Step]]) -> None:
    """What chance leaves out, or comes to now and then."""
    difference = replay(await _history_at_any_times(server, program()))

    assert difference is None, _in_short(difference)


def _in_short(difference: Difference) -> str:
    """The history has thousands of lines, and a claim hundreds of deliveries: the end of one, and how the other begins.

    When one event more is delivered, all deliveries after it have later times.
    """
    expected, got = (_lines(reply) for reply in (difference.expected, difference.record.reply))
    apart = islice(unified_diff(expected, got, "expected", "got", n=0, lineterm=""), 20)
    before = [f"{record.operation}" for record in difference.before[-5:]]
    return "\n".join([*before, "then", f"{difference.record.operation}", *apart])


def _lines(part: object) -> list[str]:
    """A reply, with one line for each item in it, and what ended before what was delivered."""
    if isinstance(part, tuple):
        return [f"{item}" for item in part]
    if isinstance(part, Applied | Claimed | Page | DeadLetterPage):
        return [line for inner in reversed(astuple(part, recurse=False)) for line in _lines(inner)]
    return [f"{part}"]


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

    from dtimer.protocol import operations as op
    from dtimer.protocol.outcomes import PostOutcome
    from dtimer.protocol.values import After, EventData, NewEvent

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
    from dtimer.protocol import operations as op

    async with RedisBackend.from_url(server.url, "gap") as backend:
        history = await Runner(backend, asyncio.sleep).run([op.Cancel(("a",)), op.Cancel(("b",))])

    with pytest.raises(ValueError, match=r"operation 1 of epoch .* is missing"):
        replay(record for record in history if record.reply.seq != 1)
