"""RedisBackend: each operation is one Lua script and one round trip. The rules are in the scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from types import TracebackType
from typing import Final, Self, TypeVar

from redis.asyncio import Redis

from dtimer import arguments
from dtimer.backends.redis import replies
from dtimer.backends.redis.connections import REQUEST_TIMEOUT_DEFAULT_S, Argument, Connections, Reply
from dtimer.backends.redis.embedded import EmbeddedServer
from dtimer.backends.redis.keys import Keys
from dtimer.backends.redis.records import write_record
from dtimer.backends.redis.scripts import load_script
from dtimer.backends.redis.sentinel import SentinelMaster
from dtimer.backends.redis.settings import Place, SentinelSettings, client_settings
from dtimer.backends.redis.wakeups import subscribe
from dtimer.errors import BackendClosed, InvalidArgument
from dtimer.limits import NAMESPACE_DEFAULT
from dtimer.outcomes import (
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    ConfirmOutcome,
    DiscardOutcome,
    ExtendOutcome,
    PostOutcome,
    ReleaseOutcome,
    ResendOutcome,
)
from dtimer.protocol import Runtime
from dtimer.runtime import AsyncioRuntime
from dtimer.values import (
    After,
    Applied,
    Claimed,
    Cursor,
    DeadLetterCursor,
    DeadLetterPage,
    Due,
    IfExists,
    Inspection,
    Member,
    Message,
    NewEvent,
    Pace,
    Page,
    Pending,
    Receipt,
    Release,
    Window,
)

T = TypeVar("T")

EPOCH_NUM_BYTES: Final = 8

_SCRIPTS: Final = {
    name: load_script(name)
    for name in (
        "open", "post", "cancel", "change_delay", "claim", "confirm", "confirm_newest", "release", "extend", "bury",
        "peek", "upcoming", "join", "leave", "dead_letters", "resend", "discard", "inspect",
    )
}  # fmt: skip


class RedisBackend:
    """A namespace on Redis 6.2 or later, or on Valkey. Keeps every rule of :class:`dtimer.TimerBackend`.

    Connections are made when they are first needed, by the running event loop, and closed by :meth:`close`
    or at the end of ``async with backend:``.
    """

    def __init__(
        self,
        client: Redis,
        namespace: str = NAMESPACE_DEFAULT,
        *,
        request_timeout: float = REQUEST_TIMEOUT_DEFAULT_S,
        clock_for_tests: Callable[[], int] | None = None,
    ) -> None:
        """Takes address and credentials from `client`; its connections are not used and it is not closed.

        Args:
            client: a ``redis.asyncio.Redis`` that the application owns.
            namespace: an independent set of events and nodes; ``[A-Za-z0-9_.-]{1,64}``.
            request_timeout: seconds that one request may take as a whole.
            clock_for_tests: tells the time in us since 1970 in place of the server.

        Raises:
            InvalidArgument: before any I/O.
        """
        self._server: Place | EmbeddedServer = _place(client)
        self._keys = Keys(arguments.name(namespace, "namespace"))
        self._request_timeout_s = arguments.timeout_us(request_timeout, "request_timeout") / 1e6
        self._clock_for_tests = clock_for_tests
        self._runtime = AsyncioRuntime()
        self._connections: Connections | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    @classmethod
    def from_url(cls, url: str, namespace: str = NAMESPACE_DEFAULT) -> Self:
        """A backend on the server that a ``redis://``, ``rediss://`` or ``unix://`` URL names."""
        try:
            client = Redis.from_url(url)
        except (ValueError, AttributeError, TypeError) as error:
            raise InvalidArgument("url", f"is not a redis://, rediss:// or unix:// URL: {error}") from error
        return cls(client, namespace)

    @classmethod
    def embedded(cls, path: str | PathLike[str] | None = None, namespace: str = NAMESPACE_DEFAULT) -> Self:
        """A backend on a real Valkey server of its own; needs the extra ``dtimer[embedded]``.

        The server is started by the first call and stopped by :meth:`close`, or with the program.

        Args:
            path: a directory for its data, which it writes to disk once a second; None keeps nothing.
        """
        backend = cls(Redis(), namespace)
        backend._server = EmbeddedServer(path)
        return backend

    @property
    def namespace(self) -> str:
        return self._keys.namespace

    @property
    def runtime(self) -> Runtime:
        return self._runtime

    @property
    def pace(self) -> Pace:
        return Pace()

    @property
    def url(self) -> str | None:
        """The address of an embedded server that runs, for other processes; None for any other server."""
        return self._server.url if isinstance(self._server, EmbeddedServer) else None

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> Applied[None]:
        return await self._run("open", (), replies.nothing)

    async def close(self) -> None:
        self._closed = True
        if self._connections is not None:
            await self._connections.close()
        if isinstance(self._server, EmbeddedServer):
            await self._server.stop()

    async def post(self, events: Sequence[NewEvent]) -> Applied[tuple[PostOutcome, ...]]:
        args: list[Argument] = []
        for new in events:
            args += (new.event.id, _due(new.due), _IF_EXISTS[new.if_exists], write_record(new.event))
        return await self._run("post", args, replies.each_of(replies.POST))

    async def cancel(self, ids: Sequence[str]) -> Applied[tuple[CancelOutcome, ...]]:
        return await self._run("cancel", ids, replies.each_of(replies.CANCEL))

    async def change_delay(self, id: str, *, delay_us: int) -> Applied[ChangeOutcome]:
        return await self._run("change_delay", (id, f"+{delay_us}"), replies.one_of(replies.CHANGE))

    async def claim(
        self,
        member: Member,
        *,
        room: int,
        confirm_timeout_us: int,
        nonce: str,
        confirming: Sequence[Receipt] = (),
        pulse: bool = False,
    ) -> Applied[Claimed]:
        args: list[Argument] = [member.node, member.incarnation, room, confirm_timeout_us, nonce, int(pulse)]
        args += (member.poll_us, len(confirming), *_flat(confirming))
        return await self._run("claim", args, replies.claimed(nonce))

    async def confirm(self, receipts: Sequence[Receipt]) -> Applied[tuple[ConfirmOutcome, ...]]:
        return await self._run("confirm", _flat(receipts), replies.each_of(replies.CONFIRM))

    async def confirm_newest(self, id: str) -> Applied[ConfirmOutcome]:
        return await self._run("confirm_newest", (id,), replies.one_of(replies.CONFIRM))

    async def release(
        self, receipt: Receipt, *, how: Release, delay_us: int, detail: str = ""
    ) -> Applied[ReleaseOutcome]:
        args = (*_flat((receipt,)), how.value, f"+{delay_us}", detail)
        return await self._run("release", args, replies.one_of(replies.RELEASE))

    async def extend(self, receipt: Receipt, *, timeout_us: int) -> Applied[ExtendOutcome]:
        return await self._run("extend", (*_flat((receipt,)), timeout_us), replies.one_of(replies.EXTEND))

    async def bury(self, receipt: Receipt, *, detail: str) -> Applied[BuryOutcome]:
        return await self._run("bury", (*_flat((receipt,)), detail), replies.one_of(replies.BURY))

    async def peek(self, id: str) -> Applied[Pending | None]:
        return await self._run("peek", (id,), replies.peeked(id))

    async def upcoming(self, start: Window | Cursor, *, limit: int) -> Applied[Page]:
        if isinstance(start, Window):
            args: tuple[Argument, ...] = (limit, "w", _or_empty(start.offset_us), _or_empty(start.duration_us))
        else:
            args = (limit, "c", start.after_us, start.after_id, _or_empty(start.until_us))
        return await self._run("upcoming", args, replies.page)

    async def join(self, member: Member) -> Applied[bool]:
        return await self._run("join", (member.node, member.incarnation, member.poll_us), replies.truth)

    async def leave(self, member: Member) -> Applied[bool]:
        return await self._run("leave", (member.node, member.incarnation), replies.truth)

    @asynccontextmanager
    async def wakeups(self, node: str, epoch: str) -> AsyncGenerator[AsyncIterator[Message]]:
        connections = await self._connected("wakeups")
        channels = self._keys.channels(node, epoch)
        async with subscribe(connections, channels, timeout_s=self._request_timeout_s) as messages:
            yield messages

    async def dead_letters(self, cursor: DeadLetterCursor | None, *, limit: int) -> Applied[DeadLetterPage]:
        args: tuple[Argument, ...] = (limit,) if cursor is None else (limit, cursor.after_us, cursor.after_id)
        return await self._run("dead_letters", args, replies.dead_letter_page)

    async def resend(self, id: str, *, due: Due, if_exists: IfExists) -> Applied[ResendOutcome]:
        args = (id, _due(due), _IF_EXISTS[if_exists])
        return await self._run("resend", args, replies.one_of(replies.RESEND))

    async def discard(self, ids: Sequence[str]) -> Applied[tuple[DiscardOutcome, ...]]:
        return await self._run("discard", ids, replies.each_of(replies.DISCARD))

    async def inspect(self) -> Applied[Inspection]:
        return await self._run("inspect", (), replies.inspection)

    async def purge(self) -> None:
        connections = await self._connected("purge")
        await connections.request("purge", b"DEL", *self._keys.all)

    async def _run(self, operation: str, args: Sequence[Argument], read: Callable[[Reply], T]) -> Applied[T]:
        connections = await self._connected(operation)
        host_us: Argument = b"" if self._clock_for_tests is None else self._clock_for_tests()
        common = (self._runtime.token(EPOCH_NUM_BYTES), self._keys.prefix, host_us)
        reply = await _SCRIPTS[operation].run(connections, operation, self._keys.all, (*common, *args))
        return replies.applied(reply, read)

    async def _connected(self, operation: str) -> Connections:
        if self._connections is not None:
            return self._connections
        async with self._starting:
            if self._closed:
                raise BackendClosed(operation, "the backend was closed")
            if self._connections is None:
                place = self._server
                if isinstance(place, EmbeddedServer):
                    await place.start()
                    place = _place(place.client())
                self._connections = Connections(place, request_timeout_s=self._request_timeout_s)
            return self._connections


def _place(client: object) -> Place:
    settings = client_settings(client)
    return SentinelMaster(settings) if isinstance(settings, SentinelSettings) else settings


_IF_EXISTS: Final = {IfExists.REPLACE: "r", IfExists.KEEP: "k", IfExists.ERROR: "e"}


def _due(due: Due) -> str:
    return f"+{due.delay_us}" if isinstance(due, After) else f"={due.due_us}"


def _flat(receipts: Sequence[Receipt]) -> list[Argument]:
    return [part for receipt in receipts for part in (receipt.id, receipt.number, receipt.nonce)]


def _or_empty(number: int | None) -> Argument:
    return b"" if number is None else number
