"""No error is lost, and all are told in the same order in every run."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from dtimer.sim.loop import SimLoop


class Boom(Exception):
    pass


def boom(*_: object) -> None:
    raise Boom


async def fail_after(delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    raise Boom


def forget(loop: SimLoop, delay_s: float, name: str | None = None) -> None:
    """Start a task that fails, and that nobody waits for."""
    loop.create_task(fail_after(delay_s), name=name)


def test_a_callback_that_fails_is_told_in_the_end() -> None:
    async def main() -> None:
        process = loop.process("p")
        process.run(boom)
        loop.call_later(1, boom)
        await asyncio.sleep(5)

    loop = SimLoop()
    with pytest.raises(ExceptionGroup) as caught:
        loop.run(main())

    assert [str(failure) for failure in loop.failures] == [
        "at 0.000000 s, in process 'p': exception in boom: Boom: ",
        "at 1.000000 s, in process 'world': exception in boom: Boom: ",
    ]
    assert [type(error) for error in caught.value.exceptions] == [Boom, Boom]
    assert caught.value.exceptions[0].__notes__ == [str(loop.failures[0])]


def test_the_error_of_the_program_comes_first() -> None:
    async def main() -> None:
        loop.call_soon(boom)
        await asyncio.sleep(1)
        raise LookupError

    loop = SimLoop()
    with pytest.raises(LookupError) as caught:
        loop.run(main())

    assert caught.value.__notes__ == ["Also at 0.000000 s, in process 'world': exception in boom: Boom: "]


@pytest.mark.parametrize("how", ["dropped", "kept", "in a cycle", "at the last moment"])
def test_a_task_that_fails_is_told_if_nobody_waits_for_it(how: str) -> None:
    async def main() -> None:
        task = asyncio.create_task(fail_after(5 if how == "at the last moment" else 1))
        if how == "kept":
            kept.append(task)
        elif how == "in a cycle":
            cycle: list[object] = [task]
            cycle.append(cycle)
        elif how == "dropped":
            del task
        await asyncio.sleep(3)
        if how == "at the last moment":
            await asyncio.sleep(2)
        gc.collect()

    kept: list[object] = []
    loop = SimLoop(seed=1)
    with pytest.raises(ExceptionGroup):
        loop.run(main())

    (failure,) = loop.failures
    assert failure.at_us == (5_000_000 if how == "at the last moment" else 1_000_000)
    assert isinstance(failure.error, Boom)


def test_a_future_that_fails_is_told_if_nobody_waits_for_it() -> None:
    async def main() -> None:
        loop.create_future().set_exception(Boom())
        kept.append(loop.create_future())
        kept[0].set_exception(Boom())
        await asyncio.sleep(3)

    kept: list[asyncio.Future[Any]] = []
    loop = SimLoop()
    with pytest.raises(ExceptionGroup):
        loop.run(main())

    assert len(loop.failures) == 2


def test_an_error_that_is_taken_late_is_none() -> None:
    async def main() -> None:
        tasks = [asyncio.create_task(fail_after(1)) for _ in range(200)]
        future = loop.create_future()
        future.set_exception(Boom())
        await asyncio.sleep(3)
        assert all(isinstance(task.exception(), Boom) for task in tasks)
        assert isinstance(future.exception(), Boom)

    loop = SimLoop()
    loop.run(main())
    assert loop.failures == ()


@pytest.mark.parametrize("threshold", [0, 1, 700])
def test_the_garbage_collector_does_not_change_what_is_told(threshold: int) -> None:
    async def main() -> None:
        for number in range(60):
            process = loop.process(f"p{number % 3}")
            process.run(forget, loop, number % 5, f"task {number}")
            loop.call_later(number % 7, boom)
            cycle: list[object] = [loop.create_future()]
            cycle[0].set_exception(Boom(str(number)))  # type: ignore[attr-defined]
            cycle.append(cycle)
        await asyncio.sleep(10)

    loop = SimLoop(4)
    before = gc.get_threshold()
    gc.set_threshold(threshold)
    try:
        with pytest.raises(ExceptionGroup):
            loop.run(main())
    finally:
        gc.set_threshold(*before)

    told = [str(failure) for failure in loop.failures]
    assert len(told) == 180
    assert told == EXPECTED or not EXPECTED
    EXPECTED[:] = told


EXPECTED: list[str] = []


def test_a_process_has_an_exception_handler_of_its_own() -> None:
    told: list[str] = []

    def handler(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        told.append(f"{loop.current.name} {context['message']} {context['exception']!r}")

    async def main() -> None:
        process = loop.process("p")
        process.run(loop.set_exception_handler, handler)
        process.run(boom)
        process.run(lambda: forget(loop, 1))
        await asyncio.sleep(3)
        assert loop.get_exception_handler() is None

    loop = SimLoop()
    loop.run(main())

    # Handled, and yet no secret.
    assert told == ["p exception in boom Boom()", "p SimTask exception was never retrieved Boom()"]
    assert [(failure.process, failure.handled) for failure in loop.failures] == [("p", True), ("p", True)]


def test_an_exception_handler_that_fails_is_told_as_well() -> None:
    async def main() -> None:
        loop.set_exception_handler(boom)
        loop.call_soon(boom)
        await asyncio.sleep(1)

    loop = SimLoop()
    with pytest.raises(ExceptionGroup):
        loop.run(main())

    assert [failure.message for failure in loop.failures] == ["exception in boom", "the exception handler failed"]


def test_what_a_process_failed_to_do_before_it_was_killed_is_told() -> None:
    async def waits_in_vain() -> None:
        task = asyncio.create_task(fail_after(1))
        await asyncio.wait([task, asyncio.create_task(asyncio.sleep(100))])

    async def main() -> None:
        for name in ("before", "after"):
            process = loop.process(name)
            process.run(forget, loop, 1 if name == "before" else 3)
            # Somebody was to see to this one, and did not come to it.
            process.create_task(waits_in_vain())
            loop.call_later(2, process.kill)
        await asyncio.sleep(5)

    loop = SimLoop()
    with pytest.raises(ExceptionGroup):
        loop.run(main())

    assert [(failure.process, failure.at_us) for failure in loop.failures] == [("before", 1_000_000)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("as_task", [True, False])
def test_who_ends_the_program_ends_the_run(error: type[BaseException], as_task: bool) -> None:
    def end() -> None:
        raise error

    async def in_a_task() -> None:
        await asyncio.sleep(1)
        raise error

    async def main() -> None:
        if as_task:
            asyncio.get_running_loop().create_task(in_a_task())
        else:
            asyncio.get_running_loop().call_later(1, end)
        await asyncio.sleep(5)

    loop = SimLoop()
    with pytest.raises(error):
        loop.run(main())

    assert loop.now_us == 1_000_000
    assert loop.is_closed()


def test_an_error_of_the_program_itself_is_raised_as_it_is() -> None:
    loop = SimLoop()
    with pytest.raises(Boom):
        loop.run(fail_after(1))

    assert loop.failures == ()
