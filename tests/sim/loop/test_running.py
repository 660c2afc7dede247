"""A run begins with nothing and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from typing import Any

import pytest

from dtimer.sim import SimMisuse
from dtimer.sim.loop import SimLoop

pytestmark = pytest.mark.filterwarnings("error")


async def nothing() -> str:
    return "done"


def test_a_run_gives_back_the_result() -> None:
    assert SimLoop().run(nothing()) == "done"


def test_a_loop_runs_one_program() -> None:
    loop = SimLoop()
    loop.run(nothing())

    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run(nothing())


def test_a_simulation_is_not_started_within_another_loop() -> None:
    async def outer() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            SimLoop().run(nothing())

    SimLoop().run(outer())
    asyncio.run(outer())


def test_the_loop_runs_in_its_own_program() -> None:
    async def main() -> None:
        assert asyncio.get_running_loop() is loop
        assert asyncio.get_event_loop() is loop
        assert loop.is_running()
        assert not loop.is_closed()
        task = asyncio.current_task()
        assert task is not None
        assert task.get_name() == "main"
        with pytest.raises(RuntimeError, match="running"):
            loop.close()
        with pytest.raises(RuntimeError, match="running"):
            loop.run_forever()

    loop = SimLoop()
    loop.run(main())
    assert not loop.is_running()


@pytest.mark.parametrize("error", [None, LookupError, KeyboardInterrupt])
def test_the_thread_is_as_before(error: type[BaseException] | None) -> None:
    async def main() -> None:
        asyncio.get_running_loop().create_task(asyncio.sleep(100))
        if error is not None:
            raise error

    hooks, callbacks, unraisable = sys.get_asyncgen_hooks(), list(gc.callbacks), sys.unraisablehook
    try:
        SimLoop().run(main())
    except BaseException as raised:
        assert error is not None
        assert isinstance(raised, error)  # noqa: PT017 - three cases in one

    assert asyncio._get_running_loop() is None
    assert (sys.get_asyncgen_hooks(), gc.callbacks, sys.unraisablehook) == (hooks, callbacks, unraisable)
    assert asyncio.run(nothing()) == "done"


def test_what_is_left_is_cancelled_in_the_order_in_which_it_was_started() -> None:
    async def one(number: int) -> None:
        try:
            await asyncio.sleep(1_000)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
            said.append(number)
            raise

    async def main() -> None:
        for number in range(50):
            kept.append(asyncio.create_task(one(number)))
        await asyncio.sleep(1)

    said: list[int] = []
    kept: list[object] = []
    SimLoop(1).run(main())

    assert sorted(said) == list(range(50))
    first, kept = said[:], []
    said.clear()
    SimLoop(1).run(main())
    assert said == first


def test_processes_are_killed_in_the_end() -> None:
    async def one() -> None:
        try:
            await asyncio.sleep(1_000)
        except asyncio.CancelledError:
            said.append("cancelled")

    async def main() -> None:
        loop.process("p").create_task(one())
        await asyncio.sleep(1)

    said: list[str] = []
    loop = SimLoop()
    loop.run(main())

    assert said == []
    assert loop.now_us == 1_000_000


def test_an_error_in_the_end_is_told() -> None:
    async def one() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            raise LookupError

    async def main() -> None:
        kept.append(asyncio.create_task(one(), name="one"))
        await asyncio.sleep(1)

    kept: list[object] = []
    loop = SimLoop()
    with pytest.raises(ExceptionGroup):
        loop.run(main())

    assert [failure.message for failure in loop.failures] == ["task 'one' failed when it was cancelled"]


def test_it_can_be_run_as_any_loop() -> None:
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        assert runner.run(nothing()) == "done"
        assert runner.run(asyncio.sleep(5, "slept")) == "slept"
        assert runner.get_loop().time() == 5


def test_it_runs_until_it_is_stopped() -> None:
    loop = SimLoop()
    loop.call_later(5, loop.stop)
    loop.call_later(6, pytest.fail, "it was stopped before")
    loop.run_forever()

    assert loop.now_us == 5_000_000
    loop.close()
    loop.close()


def test_a_program_that_is_stopped_has_no_result() -> None:
    async def main() -> None:
        loop.stop()
        await asyncio.sleep(1)

    loop = SimLoop()
    with pytest.raises(RuntimeError, match="stopped"):
        loop.run(main())


def test_debugging_can_be_switched_on() -> None:
    async def main() -> None:
        await asyncio.gather(asyncio.sleep(1), asyncio.sleep(2))

    loop = SimLoop()
    assert not loop.get_debug()
    loop.set_debug(True)
    loop.run(main())
    assert loop.get_debug()


def test_no_task_runs_in_the_midst_of_another() -> None:
    """It would run in the process of who starts it, and out of turn."""

    async def main() -> None:
        options: dict[str, Any] = {"eager_start": True}
        with pytest.raises(SimMisuse, match="eagerly"):
            loop.create_task(asyncio.sleep(1), **options)
        options["eager_start"] = False
        await loop.create_task(asyncio.sleep(1), **options)

    loop = SimLoop()
    loop.run(main())


def test_a_simulation_runs_in_any_thread() -> None:
    results: list[str] = []
    thread = threading.Thread(target=lambda: results.append(SimLoop().run(nothing())))
    thread.start()
    thread.join()

    assert results == ["done"]


def test_nothing_of_a_run_stays_in_memory() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        for number in range(5):
            process = loop.process(f"p{number}")
            process.create_task(asyncio.sleep(100))
        await asyncio.sleep(1)

    def count() -> int:
        gc.collect()
        return sum(isinstance(thing, SimLoop | asyncio.Future) for thing in gc.get_objects())

    before = count()
    SimLoop().run(main())

    assert count() <= before
