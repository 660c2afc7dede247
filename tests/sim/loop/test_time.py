"""Virtual time, and the order of what happens in it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable

import pytest

from dtimer.sim import SimStuck
from dtimer.sim.loop import SimLoop


def test_a_year_passes_at_once_and_exactly() -> None:
    async def main() -> int:
        for _ in range(365 * 24):
            await asyncio.sleep(3_600)
        return loop.now_us

    loop = SimLoop()
    began = time.monotonic()

    assert loop.run(main()) == 365 * 24 * 3_600 * 1_000_000
    assert time.monotonic() - began < 60


def test_delays_do_not_add_up_rounding_errors() -> None:
    async def main() -> int:
        for _ in range(10_000):
            await asyncio.sleep(0.1)
        return loop.now_us

    loop = SimLoop()

    assert loop.run(main()) == 1_000_000_000


@pytest.mark.parametrize(
    ("delay_s", "after_us"),
    [(0, 0), (-5, 0), (1e-9, 0), (0.0000006, 1), (0.0015, 1_500), (86_400 * 365.25 * 100, 3_155_760_000_000_000)],
)
def test_a_delay_is_rounded_to_microseconds(delay_s: float, after_us: int) -> None:
    async def main() -> None:
        called = loop.create_future()
        loop.call_later(delay_s, lambda: called.set_result(loop.now_us))
        assert await called == after_us
        assert loop.time() == after_us / 1e6

    loop = SimLoop()
    loop.run(main())


def test_a_time_of_the_loop_in_seconds_leads_back_to_the_same_microsecond() -> None:
    async def main() -> None:
        for _ in range(1_000):
            await asyncio.sleep(12_345.678901)
            called = loop.create_future()
            when_us = loop.now_us + 1
            loop.call_at(when_us / 1e6, lambda: called.set_result(loop.now_us))  # noqa: B023 - awaited at once
            assert await called == when_us

    loop = SimLoop()
    loop.run(main())


def test_whole_microseconds_can_be_given() -> None:
    async def main() -> None:
        called = loop.create_future()
        timer = loop.call_at_us(7, called.set_result, None)
        assert timer.when() == 0.000007
        await called
        assert loop.now_us == 7

    loop = SimLoop()
    loop.run(main())


def test_an_infinite_sleep_is_not_a_timer_that_could_ever_fire() -> None:
    with pytest.raises(SimStuck):
        SimLoop().run(asyncio.sleep(math.inf))


def test_no_number_is_no_delay() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=r"(?i)nan"):
            asyncio.get_running_loop().call_later(math.nan, print)

    SimLoop().run(main())


def test_callbacks_of_one_process_run_first_in_first_out() -> None:
    async def main() -> list[int]:
        said: list[int] = []
        for number in range(100):
            loop.call_soon(said.append, number)
        await asyncio.sleep(0)
        return said

    loop = SimLoop()

    assert loop.run(main()) == list(range(100))


def equal_deadlines(seed: int) -> list[int]:
    async def one(number: int) -> None:
        await asyncio.sleep(1)
        said.append(number)

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(20)))

    said: list[int] = []
    SimLoop(seed).run(main())
    return said


def test_the_seed_draws_the_order_of_equal_deadlines() -> None:
    orders = [equal_deadlines(seed) for seed in range(20)]

    assert orders == [equal_deadlines(seed) for seed in range(20)]
    assert len({tuple(order) for order in orders}) == 20
    assert all(sorted(order) == list(range(20)) for order in orders)


def test_timers_run_by_time_whatever_the_seed() -> None:
    async def main(seed: int) -> None:
        said: list[int] = []
        for delay_us in (3, 1, 2, 5, 4):
            loop.call_at_us(delay_us, said.append, delay_us)
        await asyncio.sleep(1)
        assert said == [1, 2, 3, 4, 5], seed

    for seed in range(10):
        loop = SimLoop(seed)
        loop.run(main(seed))


def test_the_seed_draws_the_order_of_processes_at_each_instant_anew() -> None:
    async def one() -> None:
        for _ in range(20):
            await asyncio.sleep(1)
            said.append(loop.current.name)
            await asyncio.sleep(0)
            said.append(loop.current.name)

    async def main() -> None:
        for name in "abc":
            loop.process(name).create_task(one())
        await asyncio.sleep(30)

    said: list[str] = []
    loop = SimLoop(1)
    loop.run(main())
    instants = ["".join(said[at : at + 6]) for at in range(0, len(said), 6)]

    # Each goes on until it has nothing left to do at this instant.
    assert set(instants) == {"aabbcc", "aaccbb", "bbaacc", "bbccaa", "ccaabb", "ccbbaa"}


def test_a_cancelled_timer_does_not_run_and_does_not_stay() -> None:
    async def main() -> None:
        timers = [loop.call_later(3_600, pytest.fail, "it was cancelled") for _ in range(10_000)]
        for timer in timers:
            timer.cancel()
            timer.cancel()
            assert timer.cancelled()
        assert len(loop._timers) < 100
        await asyncio.sleep(7_200)

    loop = SimLoop()
    loop.run(main())
    assert loop._timers_cancelled == 0


def test_a_callback_cancels_one_of_the_same_instant() -> None:
    async def main() -> None:
        for _ in range(50):
            handles: list[asyncio.Handle] = []

            def cancel_others(handles: list[asyncio.Handle] = handles) -> None:
                said.append(loop.now_us)
                for handle in handles:
                    handle.cancel()

            handles += [loop.call_later(1, cancel_others) for _ in range(3)]
            await asyncio.sleep(2)

    said: list[int] = []
    loop = SimLoop()
    loop.run(main())

    assert len(said) == 50


async def by_timeout(seen: list[str]) -> None:
    try:
        async with asyncio.timeout(5):
            await asyncio.sleep(10)
    except TimeoutError:
        seen.append("timeout")


async def by_wait_for(seen: list[str]) -> None:
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 5)
    except TimeoutError:
        seen.append("timeout")


async def by_wait(seen: list[str]) -> None:
    _, pending = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(10))], timeout=5)
    seen.append("timeout" if pending else "done")


async def by_queue(seen: list[str]) -> None:
    queue: asyncio.Queue[str] = asyncio.Queue()
    asyncio.get_running_loop().call_later(5, queue.put_nowait, "timeout")
    seen.append(await queue.get())


async def by_condition(seen: list[str]) -> None:
    condition = asyncio.Condition()

    async def notify() -> None:
        await asyncio.sleep(5)
        async with condition:
            condition.notify_all()

    async with condition, asyncio.TaskGroup() as group:
        group.create_task(notify())
        await condition.wait()
        seen.append("timeout")


@pytest.mark.parametrize("wait", [by_timeout, by_wait_for, by_wait, by_queue, by_condition])
def test_what_asyncio_offers_to_wait_works(wait: Callable[[list[str]], Awaitable[None]]) -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        await wait(seen)
        assert loop.now_us == 5_000_000
        return seen

    loop = SimLoop()

    assert loop.run(main()) == ["timeout"]
