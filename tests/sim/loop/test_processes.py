"""Processes are killed and stopped as by SIGKILL and SIGSTOP, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dtimer.sim import SimStuck
from dtimer.sim.loop import Process, SimLoop

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def loop() -> Iterator[SimLoop]:
    loop = SimLoop(5)
    yield loop
    gc.collect()
    assert not loop.failures


async def tick(said: list[str], period_s: float = 1) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    while True:
        await asyncio.sleep(period_s)
        said.append(f"{loop.current.name} {loop.time():g}")


# --- belonging ------------------------------------------------------------------------------------------


def test_what_a_process_starts_belongs_to_it(loop: SimLoop) -> None:
    seen: list[Process] = []

    def note() -> None:
        seen.append(loop.current)

    async def inside() -> None:
        note()
        loop.call_soon(note)
        loop.call_later(1, note)
        loop.call_at_us(2, note)
        # Not even a context of its own leads out of a process.
        loop.call_soon(note, context=contextvars.Context())
        empty = loop.create_task(asyncio.sleep(0), context=contextvars.Context())
        empty.add_done_callback(lambda _: note(), context=contextvars.Context())
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(1)).add_done_callback(lambda _: note())

    async def main() -> None:
        process.run(note)
        process.create_task(inside())
        await asyncio.sleep(5)
        assert loop.current is loop.world

    process = loop.process("p")
    loop.run(main())

    assert len(seen) == 8
    assert set(seen) == {process}


def test_a_task_goes_on_in_its_own_process_whoever_wakes_it(loop: SimLoop) -> None:
    async def main() -> None:
        event = asyncio.Event()
        names: list[str] = []

        async def wait(context: contextvars.Context | None = None) -> None:
            await event.wait()
            names.append(loop.current.name)

        process.create_task(wait())
        # Without a process in its context, and woken by another process.
        process.run(lambda: loop.create_task(wait(), context=contextvars.Context()))
        await asyncio.sleep(1)
        event.set()
        await asyncio.sleep(1)
        assert names == ["p", "p"]

    process = loop.process("p")
    loop.run(main())


def test_a_process_sees_only_its_own_tasks(loop: SimLoop) -> None:
    """Who cancels `all_tasks()` before it leaves would end all others as well."""

    async def inside() -> set[str]:
        other = asyncio.create_task(asyncio.sleep(1), name="other")
        names = {task.get_name() for task in asyncio.all_tasks()}
        await other
        return names

    async def main() -> None:
        one, other = loop.process("one"), loop.process("other")
        inside_one = one.create_task(inside(), name="inside one")
        other.create_task(inside(), name="inside other")
        assert await inside_one == {"inside one", "other"}
        assert {task.get_name() for task in asyncio.all_tasks()} == {"main"}

    original = asyncio.all_tasks
    loop.run(main())
    assert asyncio.all_tasks is original


def test_context_variables_are_inherited_and_not_given_back(loop: SimLoop) -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def inside() -> str:
        seen = variable.get()
        variable.set("inside")
        return seen

    async def main() -> None:
        variable.set("main")
        process = loop.process("p")
        assert await process.create_task(inside()) == "main"
        assert await process.create_task(inside()) == "main"
        assert variable.get() == "main"

    loop.run(main())


def test_tasks_without_a_name_are_counted_by_process(loop: SimLoop) -> None:
    async def main() -> None:
        tasks = [process.create_task(asyncio.sleep(0)) for process in (*processes, loop.world) for _ in range(2)]
        assert [task.get_name() for task in tasks] == ["Task-1", "Task-2"] * 3

    processes = [loop.process("a"), loop.process("b")]
    loop.run(main())


# --- kill -----------------------------------------------------------------------------------------------


def test_nothing_of_a_killed_process_runs_any_more(loop: SimLoop) -> None:
    said: list[str] = []

    async def main() -> None:
        dead, alive = loop.process("dead"), loop.process("alive")
        for process in (dead, alive):
            process.create_task(tick(said))
        dead.run(lambda: loop.call_later(3.5, said.append, "never"))
        await asyncio.sleep(2.5)
        dead.run(said.append, "never")
        dead.kill()
        dead.run(said.append, "never")
        assert not dead.alive
        assert dead not in loop.processes
        await asyncio.sleep(2)

    loop.run(main())

    assert sorted(said) == ["alive 1", "alive 2", "alive 3", "alive 4", "dead 1", "dead 2"]


@contextmanager
def managed(said: list[str]) -> Iterator[None]:
    try:
        yield
    finally:
        said.append("managed")


@pytest.mark.parametrize("started", [True, False])
def test_a_finally_of_the_dead_has_no_effect(loop: SimLoop, started: bool) -> None:
    """Whatever it tries."""
    said: list[str] = []

    async def inside(queue: asyncio.Queue[str], future: asyncio.Future[str], task: asyncio.Task[None]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        try:
            await asyncio.sleep(1)
        finally:
            said.append(loop.current.name)
            loop.call_soon(said.append, "call_soon")
            loop.call_soon_threadsafe(said.append, "call_soon_threadsafe")
            loop.call_later(0, said.append, "call_later").cancel()
            loop.call_at(1, said.append, "call_at")
            loop.call_at_us(1, said.append, "call_at_us")
            loop.create_task(tick(said)).add_done_callback(lambda _: said.append("task"))
            loop.stop()
            loop.world.run(said.append, "run")
            other.run(said.append, "run")
            other.pause()
            other.kill()
            future.set_result("completed")
            future.cancel()
            task.cancel()
            queue.put_nowait("said")
            loop.call_exception_handler({"message": "said"})
            async with asyncio.TaskGroup() as group:
                group.create_task(tick(said))
                await asyncio.sleep(0)
            said.append("went on")

    async def main() -> None:
        queue: asyncio.Queue[str] = asyncio.Queue()
        future = loop.create_future()
        task = asyncio.create_task(asyncio.sleep(5))
        get = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        process = loop.process("dead")
        process.create_task(inside(queue, future, task))
        if started:
            await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(3)
        assert not future.done()
        assert not get.done()
        assert other.alive
        assert not other.paused
        assert said == (["dead"] if started else [])
        await task
        get.cancel()

    other = loop.process("other")
    loop.run(main())


def test_who_waits_for_what_the_dead_would_have_done_can_still_give_up(loop: SimLoop) -> None:
    """A future that was half completed would leave its waiter neither woken nor able to be cancelled."""

    async def inside(event: asyncio.Event) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            event.set()

    async def main() -> None:
        event = asyncio.Event()
        process = loop.process("dead")
        process.create_task(inside(event))
        loop.call_later(1, process.kill)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await event.wait()
        assert loop.now_us == 5_000_000

    loop.run(main())


def test_a_task_that_is_killed_in_its_finally_goes_no_further(loop: SimLoop) -> None:
    said: list[str] = []

    async def inside() -> None:
        try:
            try:
                await asyncio.sleep(1)
            finally:
                said.append("cleans up")
                await asyncio.sleep(10)
                said.append("cleaned up")
        finally:
            said.append("outer")
            await asyncio.sleep(10)
            said.append("never")

    async def main() -> None:
        process = loop.process("dead")
        process.create_task(inside())
        await asyncio.sleep(5)
        process.kill()
        await asyncio.sleep(20)

    loop.run(main())

    assert said == ["cleans up", "outer"]


STUBBORN = """
import asyncio, gc
from dtimer.sim.loop import SimLoop

async def stubborn():
    while True:
        try:
            await asyncio.sleep(1)
        except BaseException:
            pass

async def main():
    process = loop.process("dead")
    process.create_task(stubborn())
    await asyncio.sleep(5)
    process.kill()
    await asyncio.sleep(5)

loop = SimLoop()
loop.run(main())
gc.collect()
"""


def test_a_task_that_will_not_end_is_given_up_quietly() -> None:
    """Not even at the exit of Python does it run again: it would never come to an end."""
    command = [sys.executable, "-W", "error", "-c", STUBBORN]
    ended = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=50, cwd=Path(__file__).parents[3]
    )

    assert ended.stdout + ended.stderr == ""


Inside = Callable[[list[str]], Coroutine[Any, Any, None]]


async def numbers(said: list[str]) -> AsyncGenerator[int]:
    try:
        for number in range(10):
            await asyncio.sleep(1)
            yield number
    finally:
        said.append("generator ends")
        await asyncio.sleep(1)
        said.append("never")


async def in_a_generator(said: list[str]) -> None:
    async for _ in numbers(said):
        pass


async def between_two_steps(said: list[str]) -> None:
    async for _ in numbers(said):
        await asyncio.sleep(100)


async def in_a_group(said: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(asyncio.sleep(100))
        group.create_task(in_a_generator(said))


async def with_a_lock(said: list[str]) -> None:
    lock = asyncio.Lock()

    async def hold() -> None:
        async with lock:
            await asyncio.sleep(100)

    await asyncio.gather(hold(), hold(), hold())


async def behind_a_shield(said: list[str]) -> None:
    try:
        await asyncio.shield(asyncio.sleep(100))
    except asyncio.CancelledError:
        said.append("cancelled")


async def with_an_unstarted_coroutine(said: list[str]) -> None:
    coroutine = asyncio.sleep(1)
    await asyncio.sleep(100)
    await coroutine


async def with_a_failure_that_nobody_saw_yet(said: list[str]) -> None:
    async def fail() -> None:
        await asyncio.sleep(2.5)
        raise ValueError

    await asyncio.gather(fail(), asyncio.sleep(100), return_exceptions=True)


async def with_a_manager(said: list[str]) -> None:
    with managed(said):
        await asyncio.sleep(100)


@pytest.mark.parametrize(
    "inside",
    [
        in_a_generator,
        between_two_steps,
        in_a_group,
        with_a_lock,
        behind_a_shield,
        with_an_unstarted_coroutine,
        with_a_failure_that_nobody_saw_yet,
        with_a_manager,
    ],
)
@pytest.mark.parametrize("collected", [True, False])
def test_nobody_hears_of_what_was_suspended(
    loop: SimLoop, inside: Inside, collected: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """No warning that a coroutine was never awaited or a task destroyed; not even when garbage is collected."""
    said: list[str] = []

    async def main() -> None:
        process = loop.process("dead")
        tasks = [process.create_task(inside(said)) for _ in range(2)]
        ends = [weakref.ref(task) for task in tasks]
        tasks.clear()
        await asyncio.sleep(2.5)
        process.kill()
        await asyncio.sleep(1)
        del process
        if collected:
            gc.collect()
            assert [end() for end in ends] == [None, None], "it would not be dropped before the end of the run"
        await asyncio.sleep(1)
        assert not all_tasks() - {asyncio.current_task()}

    all_tasks = asyncio.all_tasks
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        loop.run(main())
        gc.collect()

    assert warned == []
    assert "never" not in said
    assert "cancelled" not in said
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("started", [True, False])
def test_nobody_hears_of_a_dead_task_that_is_dropped_later(loop: SimLoop, started: bool) -> None:
    async def main() -> None:
        process = loop.process("dead")
        kept = [process.create_task(asyncio.sleep(5))]
        await asyncio.sleep(1 if started else 0)
        process.kill()
        await asyncio.sleep(1)
        kept.clear()
        await asyncio.sleep(1)

    loop.run(main())


def test_a_process_that_kills_itself_ends_before_its_next_step(loop: SimLoop) -> None:
    said: list[str] = []

    async def inside() -> None:
        loop.current.kill()
        said.append("in this step")
        loop.call_soon(said.append, "never")
        loop.create_task(tick(said))
        await asyncio.sleep(0)
        said.append("never")

    async def main() -> None:
        process = loop.process("dead")
        process.create_task(inside())
        process.create_task(tick(said))
        process.run(said.append, "never")
        await asyncio.sleep(5)
        assert process.tasks == ()

    loop.run(main())

    assert said == ["in this step"]


def test_a_process_is_killed_by_another(loop: SimLoop) -> None:
    async def kill(process: Process) -> None:
        await asyncio.sleep(1)
        process.kill()
        process.kill()

    async def main() -> None:
        one, other = loop.process("one"), loop.process("other")
        one.create_task(kill(other))
        other.create_task(kill(one))
        await asyncio.sleep(2)
        assert sorted([one.alive, other.alive]) == [False, True]

    loop.run(main())


def test_a_process_of_the_same_name_is_another(loop: SimLoop) -> None:
    async def main() -> None:
        first = loop.process("p")
        first.create_task(tick(said))
        await asyncio.sleep(1.5)
        first.kill()
        second = loop.process("p")
        assert (first.incarnation, second.incarnation) == (1, 2)
        second.create_task(tick(said))
        await asyncio.sleep(2.5)

    said: list[str] = []
    loop.run(main())

    assert said == ["p 1", "p 2.5", "p 3.5"]


def test_a_dead_process_takes_no_task(loop: SimLoop) -> None:
    async def main() -> None:
        process = loop.process("dead")
        process.kill()
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="'dead'"):
            process.create_task(asyncio.sleep(1))
        process.resume()
        process.pause()
        assert not process.paused

    loop.run(main())


def test_the_world_is_not_to_be_killed_or_paused(loop: SimLoop) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        loop.world.kill()
    with pytest.raises(RuntimeError, match="paused"):
        loop.world.pause()
    loop.close()


def test_who_waits_for_the_dead_waits_for_ever(loop: SimLoop) -> None:
    async def main() -> None:
        process = loop.process("dead")
        task = process.create_task(asyncio.sleep(5), name="the dead task")
        loop.call_later(1, process.kill)
        await task

    with pytest.raises(SimStuck, match=r"task 'main' waits for task 'the dead task' of dead, which was killed"):
        loop.run(main())


def test_who_waits_for_the_dead_can_give_up(loop: SimLoop) -> None:
    async def main() -> None:
        process = loop.process("dead")
        task = process.create_task(asyncio.sleep(5))
        loop.call_later(1, process.kill)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 3)
        assert loop.now_us == 3_000_000

    loop.run(main())


def test_a_process_can_be_killed_before_anything_runs(loop: SimLoop) -> None:
    process = loop.process("dead")
    process.create_task(asyncio.sleep(1))
    process.kill()

    loop.run(asyncio.sleep(2))


# --- pause ----------------------------------------------------------------------------------------------


def test_a_paused_process_goes_on_late(loop: SimLoop) -> None:
    said: list[str] = []

    async def main() -> None:
        process = loop.process("p")
        process.create_task(tick(said))
        await asyncio.sleep(1.5)
        process.pause()
        process.pause()
        process.run(said.append, "late")
        await asyncio.sleep(10)
        assert said == ["p 1"]
        process.resume()
        process.resume()
        await asyncio.sleep(2)

    loop.run(main())

    # The timer that came due meanwhile fires once, and the next one counts from there.
    assert said == ["p 1", "late", "p 11.5", "p 12.5", "p 13.5"]


def test_what_came_due_in_a_pause_keeps_its_order(loop: SimLoop) -> None:
    said: list[int] = []

    async def main() -> None:
        process = loop.process("p")
        for number in (3, 1, 2):
            process.run(loop.call_later, number, said.append, number)
        await asyncio.sleep(0.5)
        process.pause()
        await asyncio.sleep(2)
        process.run(said.append, 22)
        await asyncio.sleep(2)
        process.resume()
        await asyncio.sleep(1)

    loop.run(main())

    assert said == [1, 2, 22, 3]


def test_a_process_that_pauses_itself_stops_before_its_next_step(loop: SimLoop) -> None:
    said: list[str] = []

    async def inside() -> None:
        process = loop.current
        loop.call_soon(said.append, "soon")
        process.pause()
        said.append("in this step")
        await asyncio.sleep(0)
        said.append(f"at {loop.time():g}")

    async def main() -> None:
        process = loop.process("p")
        process.create_task(inside())
        await asyncio.sleep(3)
        assert said == ["in this step"]
        process.resume()
        await asyncio.sleep(1)

    loop.run(main())

    assert said == ["in this step", "soon", "at 3"]


def test_a_pause_that_is_over_at_once_changes_nothing(loop: SimLoop) -> None:
    def run(pauses: bool) -> list[str]:
        said: list[str] = []

        async def inside(process: Process) -> None:
            for number in range(20):
                if pauses:
                    process.pause()
                loop.call_soon(said.append, f"{number} {loop.now_us}")
                if pauses:
                    process.resume()
                await asyncio.sleep(number % 3)

        async def main() -> None:
            for name in "ab":
                process = loop.process(name)
                process.create_task(inside(process))
            await asyncio.sleep(100)

        loop = SimLoop(1)
        loop.run(main())
        return said

    assert run(pauses=True) == run(pauses=False)


def test_a_paused_process_can_be_killed(loop: SimLoop) -> None:
    said: list[str] = []

    async def main() -> None:
        process = loop.process("p")
        process.create_task(tick(said))
        process.pause()
        process.run(said.append, "never")
        await asyncio.sleep(5)
        process.kill()
        process.resume()
        assert not process.paused
        await asyncio.sleep(5)

    loop.run(main())

    assert said == []


def test_a_timer_can_be_cancelled_while_it_waits_for_the_end_of_a_pause(loop: SimLoop) -> None:
    async def main() -> None:
        process = loop.process("p")
        timers: list[asyncio.Handle] = []
        process.run(lambda: timers.append(loop.call_later(1, pytest.fail, "it was cancelled")))
        await asyncio.sleep(0.5)
        process.pause()
        await asyncio.sleep(1)
        timers[0].cancel()
        process.resume()
        await asyncio.sleep(1)

    loop.run(main())


def test_memory_stays_flat_however_many_processes_come_and_go(loop: SimLoop) -> None:
    async def main() -> None:
        for round_ in range(300):
            process = loop.process(f"p{round_ % 3}")
            for _ in range(5):
                process.create_task(tick([]))
            process.run(loop.call_later, 1e6, print)
            # Another error that the dead will not come to see.
            process.run(fail_later)
            await asyncio.sleep(2.5)
            process.kill()
            if round_ % 100 == 99:
                counts.append(count())

    def fail_later() -> None:
        loop.call_later(2.5, loop.create_future().set_exception, LookupError(), context=loop.world.context)

    def count() -> int:
        gc.collect()
        return sum(isinstance(thing, asyncio.Handle | asyncio.Future | Process) for thing in gc.get_objects())

    counts: list[int] = []
    loop.run(main())

    assert counts[2] - counts[0] < 20
