"""A made-up program on a simulated loop, and what happened in it, line by line.

The program is drawn from a number of its own: several processes whose tasks sleep, wait, share queues and locks, fail,
and cancel each other, while the world pauses, kills and starts processes.
As a script it runs many: ``python simulated.py wild|steady SEED COUNT``.
A steady one leaves out what asyncio itself does differently from version to version: the cancellation of a task group
that has failed already, and what becomes of an error behind a shield.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final

from dtimer.sim.loop import Process, SimLoop
from dtimer.sim.rng import Rng

PROCESSES: Final = 3
DEPTH_MAX: Final = 2


class Boom(Exception):
    pass


class Program:
    """One run of a program.

    Attributes:
        lines: what happened.
    """

    def __init__(self, program: int, seed: int, *, steady: bool = False) -> None:
        self.loop = SimLoop(seed)
        self._steady = steady
        self._steps = [step for step in STEPS if not (steady and step is Program.shields)]
        self.lines: list[str] = []
        self._chance = Rng(program, "program")

    def run(self) -> list[str]:
        self.loop.run(self._world())
        self.lines += [str(failure) for failure in self.loop.failures]
        return self.lines

    def _say(self, *words: object) -> None:
        task = asyncio.current_task()
        name = "" if task is None else task.get_name()
        self.lines.append(" ".join(map(str, (self.loop.now_us, self.loop.current.name, name, *words))))

    async def _world(self) -> None:
        chance = self._chance.of("world")
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: self._say("told", context["message"], repr(context.get("exception")))
        )
        processes = [self._start(f"p{index}") for index in range(PROCESSES)]
        for _ in range(16):
            await asyncio.sleep(chance.below(4) / 1000 + 0.0000005 * chance.below(3))
            index = chance.below(PROCESSES)
            process = processes[index]
            match chance.below(4):
                case 0:
                    process.pause()
                case 1 | 2:
                    process.resume()
                case _:
                    process.kill()
                    processes[index] = self._start(process.name)
            self._say("did", process)

    def _start(self, name: str) -> Process:
        process = self.loop.process(name)
        process.run(
            lambda: asyncio.get_running_loop().set_exception_handler(
                lambda _, context: self._say("told", context["message"], repr(context.get("exception")))
            )
        )
        process.create_task(self._main(name, process.incarnation))
        return process

    async def _main(self, name: str, incarnation: int) -> None:
        shared = Shared()
        chance = self._chance.of(name, incarnation)
        for index in range(2):
            asyncio.get_running_loop().create_task(self._forever(chance.of(index), shared))
        asyncio.get_running_loop().call_later(0.002, self._say, "called back")

    async def _forever(self, chance: Rng, shared: Shared) -> None:
        while True:
            try:
                await self._some(chance, shared, 0)
            except Boom:
                self._say("boom")
            await asyncio.sleep(0.001)

    async def _some(self, chance: Rng, shared: Shared, depth: int) -> str:
        for _ in range(1 + chance.below(4)):
            step = chance.pick(self._steps if depth < DEPTH_MAX else LEAVES)
            self._say("begins", step.__name__)
            try:
                said = await step(self, chance, shared, depth + 1)
            finally:
                self._say("leaves", step.__name__)
            self._say("ends", step.__name__, said)
        return chance.token(2)

    async def sleeps(self, chance: Rng, shared: Shared, depth: int) -> object:
        return await asyncio.sleep(chance.below(3) / 1000, "slept")

    async def yields(self, chance: Rng, shared: Shared, depth: int) -> object:
        await asyncio.sleep(0)
        return "yielded"

    async def fails(self, chance: Rng, shared: Shared, depth: int) -> object:
        if chance.below(3) == 0:
            raise Boom
        return None

    async def locks(self, chance: Rng, shared: Shared, depth: int) -> object:
        async with shared.lock:
            await asyncio.sleep(chance.below(3) / 1000)
        return shared.lock.locked()

    async def queues(self, chance: Rng, shared: Shared, depth: int) -> object:
        if chance.below(2):
            shared.queue.put_nowait(chance.token(2))
            return "put"
        try:
            async with asyncio.timeout(chance.below(3) / 1000):
                return await shared.queue.get()
        except TimeoutError:
            return "nothing"

    async def groups(self, chance: Rng, shared: Shared, depth: int) -> object:
        failed = 0
        tasks: list[asyncio.Task[str]] = []
        try:
            async with asyncio.TaskGroup() as group:
                below = DEPTH_MAX if self._steady else depth
                tasks = [group.create_task(self._some(chance.of(depth, n), shared, below)) for n in range(8)]
                if not self._steady and chance.below(3) == 0:
                    await asyncio.sleep(0.001)
                    tasks[chance.below(8)].cancel()
        except* Boom as errors:
            failed = len(errors.exceptions)
        return failed or [task.cancelled() or task.result() for task in tasks]

    async def waits(self, chance: Rng, shared: Shared, depth: int) -> object:
        loop = asyncio.get_running_loop()
        futures: set[asyncio.Future[Any]] = {loop.create_future() for _ in range(3)}
        for future in futures:
            loop.call_later(chance.below(3) / 1000, future.cancel)
        futures |= {asyncio.create_task(self._some(chance.of(depth, n), shared, depth)) for n in range(5)}
        done, pending = await asyncio.wait(futures, timeout=0.002, return_when=asyncio.FIRST_COMPLETED)
        for future in pending:
            if not self._steady:
                future.cancel()
        await asyncio.wait(futures)
        return [len(done), *(future.cancelled() or repr(future.exception()) for future in futures)]

    async def gathers(self, chance: Rng, shared: Shared, depth: int) -> object:
        parts = [self._some(chance.of(depth, n), shared, depth) for n in range(3)]
        return [str(result) for result in await asyncio.gather(*parts, return_exceptions=True)]

    async def completes(self, chance: Rng, shared: Shared, depth: int) -> object:
        results = []
        for each in asyncio.as_completed([self._some(chance.of(depth, n), shared, depth) for n in range(6)]):
            try:
                results.append(await each)
            except Boom:
                results.append("boom")
        return results

    async def generates(self, chance: Rng, shared: Shared, depth: int) -> object:
        generator = self._numbers(chance)
        if chance.below(2):
            # Only the garbage collector can find it.
            cycle: list[object] = [generator]
            cycle.append(cycle)
        async for number in generator:
            if number == chance.below(4):
                break
        return "left"

    async def _numbers(self, chance: Rng) -> AsyncGenerator[int]:
        try:
            for number in range(4):
                await asyncio.sleep(chance.below(2) / 1000)
                yield number
        finally:
            self._say("generator closed")
            await asyncio.sleep(0.001)

    async def forgets(self, chance: Rng, shared: Shared, depth: int) -> object:
        asyncio.get_running_loop().create_task(self._some(chance.of(depth, "forgotten"), shared, DEPTH_MAX))
        return asyncio.get_running_loop().call_soon(self._say, "called back").cancelled()

    async def shields(self, chance: Rng, shared: Shared, depth: int) -> object:
        try:
            async with asyncio.timeout(0.001):
                return await asyncio.shield(self._some(chance.of(depth), shared, DEPTH_MAX))
        except TimeoutError:
            return "too late"


class Shared:
    """What the tasks of one process share."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.queue: asyncio.Queue[str] = asyncio.Queue()


Step = Callable[[Program, Rng, Shared, int], Coroutine[Any, Any, object]]

LEAVES: Final[list[Step]] = [Program.sleeps, Program.yields, Program.fails, Program.locks, Program.queues]
STEPS: Final[list[Step]] = [
    *LEAVES,
    Program.groups,
    Program.waits,
    Program.gathers,
    Program.completes,
    Program.generates,
    Program.forgets,
    Program.shields,
]


def digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def main(kind: str, seed: str, count: str) -> None:
    for number in range(int(count)):
        print(digest(Program(number, int(seed), steady=kind == "steady").run()))


if __name__ == "__main__":
    main(*sys.argv[1:])
