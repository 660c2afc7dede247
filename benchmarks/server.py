"""The one server that all are measured on, in turn, and what it says about its work."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import redis
from attrs import frozen

from dtimer.backends.redis.embedded import server_binary
from dtimer.backends.redis.supervised import SupervisedProcess

HOST: Final = "127.0.0.1"
READY_TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.02
OWN_COMMANDS: Final = ("info", "flushall", "script|flush", "config|resetstat", "client|", "monitor", "hello")
"""What the benchmark itself says to the server, and what clients say once, when they connect."""

SETTINGS: Final = {"save": "", "appendonly": "no", "maxclients": "20000"}


@frozen
class Work:
    """What the server did between two looks.

    Attributes:
        cpu_us: of its process, user and system: parsing and sockets included.
        commands: all it executed, those called inside scripts and transactions included.
        by_command: their numbers.
        script_us: inside scripts.
        publish_us: in PUBLISH.
    """

    cpu_us: float
    commands: int
    by_command: dict[str, int]
    script_us: float
    publish_us: float

    def __sub__(self, before: Work) -> Work:
        by_command = {name: num - before.by_command.get(name, 0) for name, num in self.by_command.items()}
        return Work(
            self.cpu_us - before.cpu_us,
            self.commands - before.commands,
            {name: num for name, num in by_command.items() if num},
            self.script_us - before.script_us,
            self.publish_us - before.publish_us,
        )


def _binary() -> Path:
    """The host's own Redis, or else the Valkey that the environment has.

    Packages for tests put old servers into the environment's programs, which come first on its path.
    """
    own = Path(sys.prefix) / "bin"
    folders = [folder for folder in os.get_exec_path() if Path(folder) != own]
    found = shutil.which("redis-server", path=os.pathsep.join(folders))
    return Path(found) if found is not None else server_binary()


class Server:
    """A Redis or Valkey without persistence, on a free port of the loopback interface.

    It ends with this process, even if that is killed.
    """

    def __init__(self) -> None:
        self.binary = _binary()
        printed = subprocess.run([self.binary, "--version"], check=True, capture_output=True, text=True).stdout
        match = re.match(r"(Redis|Valkey) server v=([0-9.]+)", printed)
        self.name = f"{match[1]} {match[2]}" if match is not None else printed.strip()
        self._folder = tempfile.TemporaryDirectory(prefix="dtimer-bench-")
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port: int = probe.getsockname()[1]
        self._client = redis.Redis(host=HOST, port=self.port, socket_timeout=120)

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def folder(self) -> Path:
        """Where it runs."""
        return Path(self._folder.name).resolve()

    @property
    def pid(self) -> int:
        return int(self._client.info("server")["process_id"])

    def __enter__(self) -> Self:
        command: list[str] = [str(self.binary), "--port", str(self.port), "--bind", HOST]
        for name, value in SETTINGS.items():
            command += [f"--{name}", value]
        log = self.folder / "log"
        with open(os.devnull, "rb") as nothing:
            self._process = SupervisedProcess(command, folder=self.folder, log=log, inherited=nothing.fileno())
        try:
            self._wait_until_ready(log)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait_until_ready(self, log: Path) -> None:
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not self._answers():
            if self._process.exit_code is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"{self.binary} did not start; its log:\n{log.read_text(errors='replace')}")
            time.sleep(POLL_S)

    def _answers(self) -> bool:
        """Whether this server answers on the port, and not another one that took it first."""
        try:
            return self._client.config_get("dir")["dir"] == str(self.folder)
        except redis.ConnectionError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()
        self._process.kill()
        self._folder.cleanup()

    def flush(self) -> None:
        """Forget all data, scripts and statistics of the run before."""
        self.wait_until_alone()
        self._client.flushall()
        self._client.script_flush()
        self._client.config_resetstat()
        self._client.execute_command("MEMORY", "PURGE")

    def wait_until_alone(self) -> None:
        """Until the connections of processes that have ended are gone."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while int(self._client.info("clients")["connected_clients"]) > 1:
            if time.monotonic() > deadline_s:
                raise RuntimeError("somebody else is connected to the benchmark's server")
            time.sleep(POLL_S)

    def memory_bytes(self) -> int:
        """What data and their keeping take; `used_memory` when nobody is connected."""
        return int(self._client.info("memory")["used_memory"])

    def work(self) -> Work:
        """What it has done since it was flushed."""
        info = self._client.info("all")
        by_command: dict[str, int] = {}
        script_us = publish_us = 0.0
        for key, stats in info.items():
            name = str(key).removeprefix("cmdstat_")
            if name == key or name.startswith(OWN_COMMANDS):
                continue
            by_command[name] = int(stats["calls"])
            if name in {"eval", "evalsha", "fcall"}:
                script_us += float(stats["usec"])
            elif name in {"publish", "spublish"}:
                publish_us += float(stats["usec"])
        cpu_s = float(info["used_cpu_user"]) + float(info["used_cpu_sys"])
        return Work(cpu_s * 1e6, sum(by_command.values()), by_command, script_us, publish_us)

    def client_calls(self, during: Callable[[], object]) -> dict[str, int]:
        """How often clients called what while a function ran, commands inside scripts left out.

        By MONITOR, which tells the two apart, and is too slow to be on in a run that is timed.
        """
        calls: dict[str, int] = {}
        mark = f"benchmark-{os.getpid()}-{time.monotonic_ns()}"
        with redis.Redis(host=HOST, port=self.port, socket_timeout=120) as watching, watching.monitor() as monitor:
            during()
            self._client.echo(mark)
            for line in monitor.listen():
                assert line is not None, "listen() waits"
                words = str(line["command"]).split(" ")
                name = words[0].lower()
                if name == "echo" and words[-1] == mark:
                    return {name: num for name, num in calls.items() if not name.startswith(OWN_COMMANDS)}
                if line["client_type"] != "lua":
                    calls[name] = calls.get(name, 0) + 1
        raise AssertionError("MONITOR does not end")
