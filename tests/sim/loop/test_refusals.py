"""What would leave the simulation is refused by name."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, cast

import pytest

from dtimer.sim import SimMisuse
from dtimer.sim.loop import SimLoop


def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


REFUSED: dict[str, Callable[[], object]] = {
    "asyncio.open_connection": lambda: asyncio.open_connection("localhost", 1),
    "asyncio.start_server": lambda: asyncio.start_server(print, "localhost", 1),
    "asyncio.open_unix_connection": lambda: asyncio.open_unix_connection("/tmp/nothing"),
    "asyncio.start_unix_server": lambda: asyncio.start_unix_server(print, "/tmp/nothing"),
    "loop.create_datagram_endpoint": lambda: loop().create_datagram_endpoint(asyncio.DatagramProtocol),
    "loop.getaddrinfo": lambda: loop().getaddrinfo("localhost", 1),
    "loop.getnameinfo": lambda: loop().getnameinfo(("localhost", 1)),
    "loop.add_reader": lambda: loop().add_reader(0, print),
    "loop.add_writer": lambda: loop().add_writer(0, print),
    "loop.connect_read_pipe": lambda: loop().connect_read_pipe(asyncio.Protocol, None),
    "asyncio.create_subprocess_exec": lambda: asyncio.create_subprocess_exec("true"),
    "asyncio.create_subprocess_shell": lambda: asyncio.create_subprocess_shell("true"),
    "asyncio.to_thread": lambda: asyncio.to_thread(print),
    "loop.run_in_executor": lambda: loop().run_in_executor(None, print),
    "loop.set_default_executor": lambda: loop().set_default_executor(ThreadPoolExecutor()),
    "loop.add_signal_handler": lambda: loop().add_signal_handler(signal.SIGTERM, print),
    "loop.remove_signal_handler": lambda: loop().remove_signal_handler(signal.SIGTERM),
    "loop.set_task_factory": lambda: loop().set_task_factory(cast(Any, asyncio.Task)),
    "time.sleep": lambda: time.sleep(0.001),
    "threading.Thread.start": lambda: threading.Thread(target=print).start(),
    "subprocess.Popen": lambda: subprocess.run(["true"], check=False),
    "socket.socket": lambda: socket.create_connection(("127.0.0.1", 1)),
}


async def attempt(call: Callable[[], object]) -> None:
    result = call()
    if asyncio.iscoroutine(result):
        await result


@pytest.mark.parametrize("call", REFUSED)
def test_what_leaves_the_simulation_is_refused_by_name(call: str) -> None:
    async def main() -> None:
        with pytest.raises(SimMisuse) as caught:
            await attempt(REFUSED[call])
        assert call in str(caught.value)
        assert call in caught.value.call
        assert caught.value.instead

    SimLoop().run(main())


def test_every_method_of_a_loop_works_or_is_refused() -> None:
    """None is left to say no more than NotImplementedError, whatever a new Python version adds."""
    inherited = [
        name
        for name in dir(asyncio.AbstractEventLoop)
        if not name.startswith("__") and getattr(SimLoop, name) is getattr(asyncio.AbstractEventLoop, name)
    ]

    assert inherited == ["_timer_handle_cancelled"]


def test_a_call_from_another_thread_is_refused() -> None:
    errors: list[BaseException] = []

    def call_in() -> None:
        go.wait(30)
        try:
            sim.call_soon_threadsafe(print)
        except SimMisuse as error:
            errors.append(error)
        done.set()

    async def main() -> None:
        go.set()
        done.wait(30)

    sim, go, done = SimLoop(), threading.Event(), threading.Event()
    thread = threading.Thread(target=call_in)
    thread.start()
    sim.run(main())
    thread.join()

    assert "another thread" in str(errors[0])


def test_the_same_thread_may_call_as_from_another() -> None:
    async def main() -> None:
        event = asyncio.Event()
        loop().call_soon_threadsafe(event.set)
        await event.wait()

    SimLoop().run(main())


def test_other_threads_and_loops_are_left_alone() -> None:
    def elsewhere() -> None:
        go.wait(30)
        try:
            began = time.monotonic()
            time.sleep(0.01)
            assert time.monotonic() - began >= 0.01
            asyncio.run(asyncio.to_thread(time.sleep, 0.001))
            subprocess.run(["true"], check=True)
            said.append("works")
        finally:
            done.set()

    async def main() -> None:
        go.set()
        # Blocks, so that the other thread does all of it meanwhile.
        assert done.wait(30)

    said: list[str] = []
    go, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=elsewhere)
    thread.start()
    SimLoop().run(main())
    thread.join()

    assert said == ["works"]


def test_two_simulations_run_in_two_threads() -> None:
    def blocking() -> None:
        time.sleep(1)

    async def main() -> int:
        for _ in range(2_000):
            await asyncio.sleep(1)
        with pytest.raises(SimMisuse):
            blocking()
        return sim_loop().now_us

    def sim_loop() -> SimLoop:
        running = loop()
        assert isinstance(running, SimLoop)
        return running

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(lambda seed: SimLoop(seed).run(main()), range(8)))

    assert results == [2_000_000_000] * 8


def originals() -> tuple[object, ...]:
    return (
        time.sleep,
        threading.Thread.start,
        subprocess.Popen.__init__,
        socket.socket.__init__,
        asyncio.all_tasks,
        asyncio.tasks.all_tasks,
        "set" in vars(asyncio.tasks),
    )


@pytest.mark.parametrize("fails", [True, False])
def test_everything_is_put_back(fails: bool) -> None:
    async def main() -> None:
        assert all(now is not then for now, then in zip(originals(), before, strict=True))
        if fails:
            raise LookupError

    before = originals()
    with pytest.raises(LookupError) if fails else nullcontext():
        SimLoop().run(main())

    assert originals() == before


def test_what_somebody_else_replaced_meanwhile_is_left_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.setattr(time, "sleep", print)

    before = time.sleep
    SimLoop().run(main())
    assert time.sleep is print

    monkeypatch.undo()
    # What was found is put back, and lets everything through.
    time.sleep(0)
    time.sleep = before
