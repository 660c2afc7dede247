"""The clock of the real world, as backends on a server have it."""

from __future__ import annotations

import asyncio

from dtimer.runtime import AWAKE_BEFORE_S, AsyncioRuntime


async def fired_at_us(runtime: AsyncioRuntime, when_us: int) -> int:
    fired: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    runtime.call_at(when_us, lambda: fired.set_result(runtime.now_us()))
    return await fired


async def test_an_alarm_never_comes_early() -> None:
    """However the loop rounds: a claim that comes before the due time is one too many."""
    runtime = AsyncioRuntime()

    for ahead_us in (-1_000, 0, 1, 200, 499, 501, 999, 1_700, 3_333):
        when_us = runtime.now_us() + ahead_us
        assert await fired_at_us(runtime, when_us) >= when_us


async def test_an_alarm_that_is_near_lets_others_run() -> None:
    """It goes round with the loop, and does not hold it."""
    runtime = AsyncioRuntime()
    turns = 0
    alarm = asyncio.ensure_future(fired_at_us(runtime, runtime.now_us() + round(AWAKE_BEFORE_S * 1e6)))

    while not alarm.done():
        turns += 1
        await asyncio.sleep(0)

    assert turns > 3


async def test_an_alarm_is_cancelled_when_it_is_near_as_when_it_is_far() -> None:
    runtime = AsyncioRuntime()
    rung: list[str] = []
    in_time = False
    while not in_time:  # a busy machine may take longer for two turns of the loop than the near one is away
        rung.clear()
        near_us = runtime.now_us() + 400
        far = runtime.call_at(near_us + 1_600, lambda: rung.append("far"))
        near = runtime.call_at(near_us, lambda: rung.append("near"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        far.cancel()
        near.cancel()
        in_time = runtime.now_us() < near_us
    assert rung == []
    await fired_at_us(runtime, runtime.now_us() + 4_000)

    assert rung == []
