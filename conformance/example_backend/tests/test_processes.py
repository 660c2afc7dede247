"""Several processes on one file."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import define, field
from dtimer import DTimer
from dtimer.protocol import EventState, Parked
from dtimer_conformance import Record, RecordingBackend, replay

from dtimer_sqlite import SqliteBackend

PROGRAM = Path(__file__).with_name("node.py")


@define(eq=False)
class Node:
    process: asyncio.subprocess.Process
    ready: bool = False
    got: list[dict[str, Any]] = field(factory=list)

    @property
    def ids(self) -> list[str]:
        return [line["id"] for line in self.got]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.002)


@asynccontextmanager
async def node(file: Path, name: str) -> AsyncIterator[Node]:
    """One that has joined."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(PROGRAM), str(file), name),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    running = Node(process)

    async def listen() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            said = json.loads(line)
            if said == "ready":
                running.ready = True
            else:
                running.got.append(said)

    listening = asyncio.create_task(listen())
    try:
        await until(lambda: running.ready)
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


async def test_both_processes_take_events_and_each_event_has_one_taker(tmp_path: Path) -> None:
    file = tmp_path / "t.db"
    async with node(file, "a") as a, node(file, "b") as b, SqliteBackend(file) as backend:
        timer = DTimer(backend)
        ids = []
        for _ in range(20):
            ids.append(await timer.post("hello", delay=1, max_retries=1))
            await until(lambda: len(a.got) + len(b.got) == len(ids))

        assert a.got
        assert b.got
        assert sorted(a.ids + b.ids) == sorted(ids)
        assert sorted(line["ms"] for line in a.got + b.got)[10] < 500


async def test_what_a_killed_process_had_not_confirmed_reaches_the_other(tmp_path: Path) -> None:
    file = tmp_path / "t.db"
    async with node(file, "a") as a, node(file, "b") as b, SqliteBackend(file) as backend:
        timer = DTimer(backend)
        posted: list[str] = []
        while len(a.got) < 3:
            posted.append(await timer.post({"hold": "a"}, delay=0, max_retries=1))
            await until(lambda: set(posted) <= set(a.ids + b.ids))
        assert (await backend.peek(a.ids[0])).value is not None
        held = {id for id in a.ids if id not in b.ids}

        a.process.kill()
        await until(lambda: held <= set(b.ids))

        assert {line["retries"] for line in b.got if line["id"] in held} == {1}


async def test_the_arm_of_a_dead_process_is_found_out_when_it_is_told(tmp_path: Path) -> None:
    """N3: nobody is there at its socket, so that another is told in the same operation."""
    file = tmp_path / "t.db"
    async with node(file, "a") as a, SqliteBackend(file) as backend:
        a.process.kill()
        await a.process.wait()
        timer = DTimer(backend)
        await timer.post("hello", delay=60_000)
        inspection = (await backend.inspect()).value

        assert [(member.node, member.parked) for member in inspection.ring] == [("a", Parked.UNREACHED)]
        assert list(tmp_path.glob("t.db-????????????")) == []


async def test_nodes_on_several_connections_make_one_history(tmp_path: Path) -> None:
    """O1: what four nodes did at once has one order, in which the rules explain every reply."""
    backends = [RecordingBackend(SqliteBackend(tmp_path / "t.db")) for _ in range(4)]
    timers = [DTimer(backend) for backend in backends]
    got: list[str] = []
    for timer in timers:
        timer.on("event", lambda event: got.append(event.id))
        await timer.join()
    await asyncio.gather(*(timer.post(i, delay=i % 7) for i in range(100) for timer in timers))
    await until(lambda: len(got) == 400)
    for timer in timers:
        await timer.leave()
    for backend in backends:
        await backend.close()
    history: list[Record] = [record for backend in backends for record in backend.history]

    difference = replay(history)

    assert difference is None, f"\n{difference}"
    assert len(set(got)) == 400


async def test_events_outlive_every_process(tmp_path: Path) -> None:
    async with SqliteBackend(tmp_path / "t.db") as backend:
        epoch = (await backend.open()).epoch
        await DTimer(backend).post("hello", id="x", delay=60_000)

    async with SqliteBackend(tmp_path / "t.db") as backend:
        reply = await backend.peek("x")

        assert reply.epoch == epoch
        assert reply.value is not None
        assert reply.value.state is EventState.SCHEDULED
