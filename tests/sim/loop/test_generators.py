"""Asynchronous generators are finished as in asyncio, except at moments that only the garbage collector knows."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator

import pytest

from dtimer.sim.loop import SimLoop

pytestmark = pytest.mark.filterwarnings("error")


async def numbers(said: list[str], name: str = "") -> AsyncGenerator[int]:
    try:
        for number in range(10):
            yield number
    finally:
        await asyncio.sleep(1)
        said.append(f"closed{name}")


async def take_one(generator: AsyncGenerator[int]) -> None:
    async for _ in generator:
        break


def test_one_that_is_dropped_is_closed_in_its_process() -> None:
    async def drop() -> None:
        await take_one(numbers(said))
        assert said == []
        await asyncio.sleep(2)
        assert said == ["closed"]
        assert loop.now_us == 2_000_000

    async def main() -> None:
        await loop.process("p").create_task(drop())

    said: list[str] = []
    loop = SimLoop()
    loop.run(main())


def test_one_that_only_the_garbage_collector_can_find_is_dropped_as_it_is() -> None:
    async def main() -> None:
        cycle: list[object] = [generator := numbers(said)]
        await take_one(generator)
        cycle.append(cycle)
        del cycle, generator
        gc.collect()
        await asyncio.sleep(5)

    said: list[str] = []
    SimLoop().run(main())
    gc.collect()

    assert said == []


def test_those_that_are_left_are_closed_in_the_end_in_order() -> None:
    async def main() -> None:
        for number in range(100):
            generator = numbers(said, f" {number}")
            await anext(generator)
            kept.append(generator)

    said: list[str] = []
    kept: list[AsyncGenerator[int]] = []
    loop = SimLoop()
    loop.run(main())

    assert said == [f"closed {number}" for number in range(100)]
    # One after the other.
    assert loop.now_us == 100_000_000


def test_those_of_a_killed_process_are_not_closed() -> None:
    async def inside() -> None:
        generator = numbers(said)
        await anext(generator)
        kept.append(generator)
        await take_one(numbers(said))
        await asyncio.sleep(100)

    async def main() -> None:
        process = loop.process("p")
        process.create_task(inside())
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(5)
        kept.clear()
        gc.collect()
        await asyncio.sleep(5)

    said: list[str] = []
    kept: list[AsyncGenerator[int]] = []
    loop = SimLoop()
    loop.run(main())

    assert said == []


def test_the_hooks_are_put_back() -> None:
    import sys

    before = sys.get_asyncgen_hooks()
    SimLoop().run(take_one(numbers([])))

    assert sys.get_asyncgen_hooks() == before


def test_one_that_fails_as_it_is_closed_is_told() -> None:
    async def failing() -> AsyncGenerator[int]:
        try:
            yield 1
        finally:
            raise LookupError

    async def main() -> None:
        kept.append(failing())
        await anext(kept[0])

    kept: list[AsyncGenerator[int]] = []
    loop = SimLoop()
    with pytest.raises(ExceptionGroup):
        loop.run(main())

    assert isinstance(loop.failures[0].error, LookupError)
