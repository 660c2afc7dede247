"""The backend: dtimer's protocol on a file, without ever blocking the event loop."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, TypeVar, cast

from dtimer.protocol import (
    NAME_PATTERN,
    NAMESPACE_DEFAULT,
    Applied,
    AsyncioRuntime,
    BackendClosed,
    BackendError,
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    Claimed,
    ConfirmOutcome,
    Cursor,
    DeadLetterCursor,
    DeadLetterPage,
    DiscardOutcome,
    Due,
    ExtendOutcome,
    Extension,
    Failure,
    IfExists,
    Inspection,
    InvalidArgument,
    JoinOutcome,
    LetterName,
    Member,
    Message,
    NewEvent,
    Pace,
    Page,
    Pending,
    PostOutcome,
    Receipt,
    Release,
    ReleaseOutcome,
    ResendOutcome,
    StoreRefused,
    Window,
)

from dtimer_sqlite import claiming, letters, post_office, posting, reading, receipts, ring
from dtimer_sqlite.file import File
from dtimer_sqlite.turn import Turn

P = ParamSpec("P")
T = TypeVar("T")

BUSY_TIMEOUT_S: Final = 5.0


def host_clock_us() -> int:
    return time.time_ns() // 1_000


class SqliteBackend:
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

    async def open(self) -> Applied[None]:
        return await self._read("open", _nothing)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for heard in self._listening:
            heard.put_nowait(_closed("wakeups"))
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown(wait=False)

    # --- posting and changing ---------------------------------------------------------------------

    async def post(self, events: Sequence[NewEvent]) -> Applied[tuple[PostOutcome, ...]]:
        return await self._change("post", posting.post, events)

    async def cancel(self, ids: Sequence[str]) -> Applied[tuple[CancelOutcome, ...]]:
        return await self._change("cancel", posting.cancel, ids)

    async def change_delay(self, id: str, *, delay_us: int) -> Applied[ChangeOutcome]:
        return await self._change("change_delay", posting.change_delay, id, delay_us)

    # --- claiming, ending and giving back ---------------------------------------------------------

    async def claim(
        self,
        member: Member,
        *,
        room: int,
        confirm_timeout_us: int,
        nonce: str,
        confirming: Sequence[Receipt] = (),
        extending: Sequence[Extension] = (),
        pulse: bool = False,
    ) -> Applied[Claimed]:
        def act(turn: Turn) -> Claimed:
            return claiming.claim(
                turn,
                member,
                room=room,
                confirm_timeout_us=confirm_timeout_us,
                nonce=nonce,
                confirming=confirming,
                extending=extending,
                pulse=pulse,
            )

        return cast("Applied[Claimed]", await self._in_thread("claim", self._file.change, "claim", act, settled=True))

    async def confirm(self, receipts_: Sequence[Receipt]) -> Applied[tuple[ConfirmOutcome, ...]]:
        return await self._change("confirm", receipts.confirm, receipts_)

    async def confirm_newest(self, id: str) -> Applied[ConfirmOutcome]:
        return await self._change("confirm_newest", receipts.confirm_newest, id)

    async def release(
        self, receipt: Receipt, *, how: Release, delay_us: int, failure: Failure | None = None, refused_for_us: int = 0
    ) -> Applied[ReleaseOutcome]:
        return await self._change("release", receipts.release, receipt, how, delay_us, failure, refused_for_us)

    async def extend(self, extensions: Sequence[Extension]) -> Applied[tuple[ExtendOutcome, ...]]:
        return await self._change("extend", receipts.extend, extensions)

    async def bury(self, receipt: Receipt, *, detail: str) -> Applied[BuryOutcome]:
        return await self._change("bury", receipts.bury, receipt, detail)

    # --- reading ----------------------------------------------------------------------------------

    async def peek(self, id: str) -> Applied[Pending | None]:
        return await self._read("peek", reading.peek, id)

    async def upcoming(self, start: Window | Cursor, *, limit: int) -> Applied[Page]:
        return await self._read("upcoming", reading.upcoming, start, limit)

    async def inspect(self) -> Applied[Inspection]:
        return await self._read("inspect", reading.inspect)

    # --- dead letters -----------------------------------------------------------------------------

    async def dead_letters(self, cursor: DeadLetterCursor | None, *, limit: int) -> Applied[DeadLetterPage]:
        return await self._read("dead_letters", letters.dead_letters, cursor, limit)

    async def resend(self, letter: LetterName, *, due: Due, if_exists: IfExists) -> Applied[ResendOutcome]:
        return await self._change("resend", letters.resend, letter, due, if_exists)

    async def discard(self, letters_: Sequence[LetterName]) -> Applied[tuple[DiscardOutcome, ...]]:
        return await self._change("discard", letters.discard, letters_)

    async def purge(self) -> None:
        await self._in_thread("purge", self._file.purge)

    # --- nodes ------------------------------------------------------------------------------------

    async def join(self, member: Member) -> Applied[JoinOutcome]:
        return await self._change("join", ring.join, member)

    async def leave(self, member: Member) -> Applied[bool]:
        return await self._change("leave", ring.leave, member)

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

    async def _change(self, operation: str, rule: Callable[..., T], *arguments: object) -> Applied[T]:
        def act(turn: Turn) -> T:
            return rule(turn, *arguments)

        return cast("Applied[T]", await self._in_thread(operation, self._file.change, operation, act))

    async def _read(self, operation: str, rule: Callable[..., T], *arguments: object) -> Applied[T]:
        def look(turn: Turn) -> T:
            return rule(turn, *arguments)

        return cast("Applied[T]", await self._in_thread(operation, self._file.read, operation, look))

    async def _in_thread(
        self, operation: str, call: Callable[P, Any], *arguments: P.args, **keywords: P.kwargs
    ) -> object:
        if self._closed:
            raise _closed(operation)
        work = partial(call, *arguments, **keywords)
        result: object = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        return result


def _nothing(_: Turn) -> None:
    return None


def _closed(operation: str) -> BackendClosed:
    return BackendClosed(operation, "the backend was closed")


async def _messages(heard: asyncio.Queue[Message | BackendError]) -> AsyncIterator[Message]:
    while True:
        message = await heard.get()
        if isinstance(message, BackendError):
            raise message
        yield message
