"""The backend: dtimer's protocol on a file, without ever blocking the event loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, cast

from dtimer.protocol import (
    NAME_PATTERN,
    NAMESPACE_DEFAULT,
    Applied,
    AsyncioRuntime,
    BackendClosed,
    BackendError,
    InvalidArgument,
    Message,
    Operation,
    Pace,
    ReplyT_co,
    StoreRefused,
    SupportsDeadLetters,
    SupportsInspection,
    TimerBackend,
    Unsupported,
)
from dtimer.protocol import operations as op

from dtimer_sqlite import claiming, letters, post_office, posting, reading, receipts, ring
from dtimer_sqlite.file import File
from dtimer_sqlite.turn import Turn

P = ParamSpec("P")

BUSY_TIMEOUT_S: Final = 5.0


def host_clock_us() -> int:
    return time.time_ns() // 1_000


class SqliteBackend(TimerBackend, SupportsDeadLetters, SupportsInspection):
    """One namespace in an SQLite file, which any number of processes on one machine may share."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        namespace: str = NAMESPACE_DEFAULT,
        *,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        synchronous: Literal["full", "normal"] = "full",
        clock_for_tests: Callable[[], int] = host_clock_us,
    ) -> None:
        """
        Args:
            path: of the file, which is made if it is not there.
            namespace: one independent set of events and nodes.
            busy_timeout_s: how long an operation waits for those of others before it fails with `StoreBusy`.
            synchronous: `full` survives a power failure; `normal` may lose the last moments then, and is faster.

        Raises:
            InvalidArgument: the namespace.
        """
        if not NAME_PATTERN.fullmatch(namespace):
            raise InvalidArgument("namespace", f"must match {NAME_PATTERN.pattern}, not {namespace!r}")
        self._namespace = namespace
        self._runtime = AsyncioRuntime()
        self._file = File(Path(path).absolute(), namespace, clock_for_tests, busy_timeout_s, synchronous)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dtimer-sqlite")
        self._closed = False
        self._listening: set[asyncio.Queue[Message | BackendError]] = set()

    @property
    def namespace(self) -> str:
        return self._namespace

    @property
    def runtime(self) -> AsyncioRuntime:
        return self._runtime

    @property
    def pace(self) -> Pace:
        return Pace()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for heard in self._listening:
            heard.put_nowait(_closed("wakeups"))
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown(wait=False)

    async def perform(self, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
        act, method = _act_of(operation), operation.method
        if isinstance(operation, op.Read):
            reply = await self._in_thread(method, self._file.read, method, act)
        else:
            settled = isinstance(operation, op.Claim)
            reply = await self._in_thread(method, self._file.change, method, act, settled=settled)
        return cast("Applied[ReplyT_co]", reply)

    async def purge(self) -> None:
        await self._in_thread("purge", self._file.purge)

    @asynccontextmanager
    async def wakeups(self, node: str, epoch: str) -> AsyncIterator[AsyncIterator[Message]]:
        """Listen at a socket of the subscription's own."""
        if self._closed:
            raise _closed("wakeups")
        loop = asyncio.get_running_loop()
        try:
            socket, address = post_office.bind(self._file.path)
        except OSError as error:
            raise StoreRefused("wakeups", f"no socket can be made: {error}") from error
        heard: asyncio.Queue[Message | BackendError] = asyncio.Queue()

        def hear() -> None:
            with suppress(BlockingIOError):
                while True:
                    heard.put_nowait(post_office.read(socket.recv(post_office.MESSAGE_MAX_BYTES)))

        loop.add_reader(socket, hear)
        self._listening.add(heard)
        try:
            await self._in_thread("wakeups", self._file.listen, address, node, epoch)
            yield _messages(heard)
        finally:
            self._listening.discard(heard)
            loop.remove_reader(socket)
            socket.close()
            with suppress(OSError):
                os.unlink(address)
            with suppress(BackendError):  # whoever finds nobody at the address forgets it
                await self._in_thread("wakeups", self._file.forget, address)

    # --- the thread -------------------------------------------------------------------------------

    async def _in_thread(
        self, operation: str, call: Callable[P, Any], *arguments: P.args, **keywords: P.kwargs
    ) -> object:
        if self._closed:
            raise _closed(operation)
        work = partial(call, *arguments, **keywords)
        result: object = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        return result


def _act_of(operation: Operation[object]) -> Callable[[Turn], object]:
    """What an operation does within its transaction."""
    match operation:
        case op.Open():
            return lambda _: None
        case op.Post(events):
            return lambda turn: posting.post(turn, events)
        case op.Cancel(ids):
            return lambda turn: posting.cancel(turn, ids)
        case op.ChangeDelay(id, delay_us):
            return lambda turn: posting.change_delay(turn, id, delay_us)
        case op.Claim():
            return lambda turn: claiming.claim(turn, operation)
        case op.Confirm(confirmed):
            return lambda turn: receipts.confirm(turn, confirmed)
        case op.ConfirmNewest(id):
            return lambda turn: receipts.confirm_newest(turn, id)
        case op.GiveBack():
            return lambda turn: receipts.release(turn, operation)
        case op.Extend(extensions):
            return lambda turn: receipts.extend(turn, extensions)
        case op.Bury(receipt, detail):
            return lambda turn: receipts.bury(turn, receipt, detail)
        case op.Peek(id):
            return lambda turn: reading.peek(turn, id)
        case op.Upcoming(start, limit):
            return lambda turn: reading.upcoming(turn, start, limit)
        case op.Inspect():
            return reading.inspect
        case op.ListDeadLetters(cursor, limit):
            return lambda turn: letters.dead_letters(turn, cursor, limit)
        case op.Resend(letter, due, if_exists):
            return lambda turn: letters.resend(turn, letter, due, if_exists)
        case op.Discard(discarded):
            return lambda turn: letters.discard(turn, discarded)
        case op.Join(member):
            return lambda turn: ring.join(turn, member)
        case op.Leave(member):
            return lambda turn: ring.leave(turn, member)
        case _:
            raise Unsupported(f"SqliteBackend has no operation {operation.method}")


def _closed(operation: str) -> BackendClosed:
    return BackendClosed(operation, "the backend was closed")


async def _messages(heard: asyncio.Queue[Message | BackendError]) -> AsyncIterator[Message]:
    while True:
        message = await heard.get()
        if isinstance(message, BackendError):
            raise message
        yield message
