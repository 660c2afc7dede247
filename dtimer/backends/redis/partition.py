"""One partition of a namespace, or the only one: each operation is one Lua script and one round trip."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from dtimer.backends.redis import health
from dtimer.backends.redis.connector import Connector
from dtimer.backends.redis.durability import require, waiting
from dtimer.backends.redis.keys import Keys
from dtimer.backends.redis.pool import Route, Then
from dtimer.backends.redis.pubsub import subscribe
from dtimer.backends.redis.scripts import load_script, sharded
from dtimer.backends.redis.wire import replies
from dtimer.backends.redis.wire.records import write_record
from dtimer.backends.redis.wire.resp import Argument, Reply, pack_row, utf8
from dtimer.errors import OutcomeUnknown, StoreRefused, StoreUnreachable
from dtimer.limits import REPEAT_WITHIN_US
from dtimer.loop_local import LoopRef, after_fork
from dtimer.protocol.backend import Runtime
from dtimer.protocol.outcomes import (
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    ConfirmOutcome,
    DiscardOutcome,
    ExtendOutcome,
    JoinOutcome,
    PostOutcome,
    ReleaseOutcome,
    ResendOutcome,
)
from dtimer.protocol.values import (
    After,
    Applied,
    At,
    Branch,
    Claimed,
    Cursor,
    DeadLetterCursor,
    DeadLetterPage,
    Due,
    Durability,
    Extension,
    Failure,
    Finding,
    IfExists,
    Inspection,
    LetterName,
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
        "peek", "upcoming", "join", "leave", "dead_letters", "resend", "discard", "inspect", "branches",
        "reset_begin", "reset_some",
    )
}  # fmt: skip
_POSTED: Final = replies.each_of(replies.POST)
_CANCELLED: Final = replies.each_of(replies.CANCEL)
_CONFIRMED: Final = replies.each_of(replies.CONFIRM)
_EXTENDED: Final = replies.each_of(replies.EXTEND)
_DISCARDED: Final = replies.each_of(replies.DISCARD)
_SHARDED: Final = {name: sharded(script) for name, script in _SCRIPTS.items()}


class RedisPartition:
    """A :class:`dtimer.TimerBackend` on one set of keys. The rules are in the scripts.

    Attributes:
        repeat_within_us: for how long a timer repeats its calls, unless a call says (rule F1).
        server_for_tests: a name of the server in place of its own (rule O2).
    """

    def __init__(
        self,
        connector: Connector,
        keys: Keys,
        runtime: Runtime,
        *,
        num_partitions: int | str = 1,
        first: RedisPartition | None = None,
        durability: Durability | None = None,
        repeat_within_us: int | None = None,
        clock_for_tests: Callable[[], int] | None = None,
    ) -> None:
        """
        Args:
            durability: of every post.
            repeat_within_us: for how long a timer repeats its calls.
            num_partitions: of the namespace; servers that know another number refuse every operation.
                While they are being moved it is no number.
            first: the partition that is asked before this one is first used, since it knows the number for sure.
            clock_for_tests: tells the time in us since 1970 in place of the server.
        """
        self._connector = connector
        self._keys = keys
        self._runtime = runtime
        self._num_partitions = num_partitions
        self._first = first
        self._durability = durability
        self.repeat_within_us = REPEAT_WITHIN_US if repeat_within_us is None else repeat_within_us
        self._clock_for_tests = clock_for_tests
        self.server_for_tests: str | None = None
        # The last caller's, and where that was: most callers are in the same event loop.
        self._way: tuple[LoopRef, Route] | None = None
        self._new_epoch = runtime.token(EPOCH_NUM_BYTES)
        self._scripts = _SHARDED if connector.sharded else _SCRIPTS
        after_fork(self, RedisPartition._forked)

    def _forked(self) -> None:
        # Two processes must not make namespaces with one epoch.
        self._new_epoch = self._runtime.token(EPOCH_NUM_BYTES)

    @property
    def namespace(self) -> str:
        return self._keys.namespace

    @property
    def runtime(self) -> Runtime:
        return self._runtime

    @property
    def pace(self) -> Pace:
        return Pace()

    async def open(self) -> Applied[None]:
        return await self._run("open", (), replies.nothing)

    async def close(self) -> None:
        """Its connections are the backend's."""

    async def post(self, events: Sequence[NewEvent]) -> Applied[tuple[PostOutcome, ...]]:
        if self._durability is not None:
            return await self.post_durably(events, self._durability)
        return await self._run("post", (_letters(events),), _POSTED, rows=_rows(events))

    async def post_durably(
        self, events: Sequence[NewEvent], durability: Durability
    ) -> Applied[tuple[PostOutcome, ...]]:
        await self._connected("post")
        route = await self._connector.route("post", self._keys.prefix, durable=True)
        both = await self._reply(route, "post", (_letters(events),), rows=_rows(events), then=waiting(durability))
        assert isinstance(both, list), "the replies to two commands"
        reply, reached = both
        require(durability, reached)
        return self._noted(replies.applied("post", reply, _POSTED))

    async def cancel(self, ids: Sequence[str]) -> Applied[tuple[CancelOutcome, ...]]:
        return await self._run("cancel", ids, _CANCELLED)

    async def change_delay(self, id: str, *, delay_us: int) -> Applied[ChangeOutcome]:
        return await self._run("change_delay", (id, _due(After(delay_us))), replies.one_of(replies.CHANGE))

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
        args: list[Argument] = [member.node, member.incarnation, room, confirm_timeout_us, nonce, int(pulse)]
        args += (member.poll_us, len(confirming), *_flat(confirming), *_with_timeouts(extending))
        return await self._run("claim", args, replies.claimed(nonce))

    async def confirm(self, receipts: Sequence[Receipt]) -> Applied[tuple[ConfirmOutcome, ...]]:
        return await self._run("confirm", _flat(receipts), _CONFIRMED)

    async def confirm_newest(self, id: str) -> Applied[ConfirmOutcome]:
        return await self._run("confirm_newest", (id,), replies.one_of(replies.CONFIRM))

    async def release(
        self, receipt: Receipt, *, how: Release, delay_us: int, failure: Failure | None = None, refused_for_us: int = 0
    ) -> Applied[ReleaseOutcome]:
        args: list[Argument] = [*_flat((receipt,)), how.value, _due(After(delay_us)), refused_for_us]
        if failure is not None:
            args += (failure.type, failure.text)
        return await self._run("release", args, replies.one_of(replies.RELEASE))

    async def extend(self, extensions: Sequence[Extension]) -> Applied[tuple[ExtendOutcome, ...]]:
        return await self._run("extend", _with_timeouts(extensions), _EXTENDED)

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

    async def join(self, member: Member) -> Applied[JoinOutcome]:
        args = (member.node, member.incarnation, member.poll_us)
        return await self._run("join", args, replies.one_of(replies.JOIN))

    async def leave(self, member: Member) -> Applied[bool]:
        return await self._run("leave", (member.node, member.incarnation), replies.truth)

    @asynccontextmanager
    async def wakeups(self, node: str, epoch: str) -> AsyncGenerator[AsyncIterator[Message]]:
        route = await self._connected("wakeups")
        channels = self._keys.channels(node, epoch)
        timeout_s, sharded = self._connector.request_timeout_s, self._connector.sharded
        async with subscribe(route, channels, sharded=sharded, timeout_s=timeout_s) as messages:
            yield messages

    async def dead_letters(self, cursor: DeadLetterCursor | None, *, limit: int) -> Applied[DeadLetterPage]:
        args: tuple[Argument, ...] = (limit,) if cursor is None else (limit, cursor.after_us, cursor.after_id)
        return await self._run("dead_letters", args, replies.dead_letter_page)

    async def resend(self, letter: LetterName, *, due: Due, if_exists: IfExists) -> Applied[ResendOutcome]:
        args = (letter.id, _or_empty(letter.buried_us), _due(due), _IF_EXISTS[if_exists])
        return await self._run("resend", args, replies.one_of(replies.RESEND))

    async def discard(self, letters: Sequence[LetterName]) -> Applied[tuple[DiscardOutcome, ...]]:
        args = [part for letter in letters for part in (letter.id, _or_empty(letter.buried_us))]
        return await self._run("discard", args, _DISCARDED)

    async def inspect(self) -> Applied[Inspection]:
        return await self._run("inspect", (), replies.inspection)

    async def branches(self) -> Applied[tuple[Branch, ...]]:
        return await self._run("branches", (), replies.branches)

    async def examine(self) -> tuple[Finding, ...]:
        return await self.examine_server((await self.open()).skew_us)

    async def examine_server(self, skew_us: int) -> tuple[Finding, ...]:
        """The server's settings; the skew is that of the namespace's clock."""
        if self._connector.are_our_own:
            return ()  # we wrote their settings, and whoever gave no path wanted nothing kept
        route = await self._connected("examine")
        info = _text(await route.request("examine", b"INFO"))
        try:
            save = _text(await route.request("examine", b"CONFIG", b"GET", b"save"))
        except StoreRefused:  # managed servers often forbid it
            save = None
        return health.warnings_of(info, save, skew_us)

    async def purge(self) -> None:
        route = await self._connector.route("purge", self._keys.prefix)
        await route.request("purge", b"DEL", *self._keys.all)

    async def _run(
        self,
        operation: str,
        args: Sequence[Argument],
        read: Callable[[Reply], T],
        *,
        rows: Sequence[bytes] = (),
    ) -> Applied[T]:
        way = self._way
        route = way[1] if way is not None and way[0].is_here() else await self._connected(operation)
        return self._noted(replies.applied(operation, await self._reply(route, operation, args, rows=rows), read))

    def _noted(self, applied: Applied[T]) -> Applied[T]:
        if applied.epoch == self._new_epoch:
            # This namespace has it now. One that is made after this one is gone needs another.
            self._new_epoch = self._runtime.token(EPOCH_NUM_BYTES)
        return applied

    async def _reply(
        self,
        route: Route,
        operation: str,
        args: Sequence[Argument],
        *,
        rows: Sequence[bytes] = (),
        then: Then | None = None,
    ) -> Reply:
        host_us: Argument = b"" if self._clock_for_tests is None else self._clock_for_tests()
        common = (self._new_epoch, self._keys.prefix, host_us, self._num_partitions)
        script = self._scripts[operation]
        return await script.run(
            route, operation, self._keys.all, args, common=common, server=self.server_for_tests, rows=rows, then=then
        )

    async def _connected(self, operation: str) -> Route:
        route = await self._connector.route(operation, self._keys.prefix)
        if self._first is not None:
            try:
                await self._first.open()
            except OutcomeUnknown as error:
                problem = f"the first partition was asked, and its reply was lost: {error.problem}"
                raise StoreUnreachable(operation, problem) from error
            self._first = None
        self._way = LoopRef(), route
        return route


_IF_EXISTS: Final = {IfExists.REPLACE: "r", IfExists.KEEP: "k", IfExists.ERROR: "e"}


def _text(reply: Reply) -> str:
    """A text, alone or as the second of a pair."""
    last = reply[-1] if isinstance(reply, list) and reply else reply
    return last.decode(errors="replace") if isinstance(last, bytes) else ""


def _letters(events: Sequence[NewEvent]) -> str:
    """What to do if they exist: a letter for each, or one for all."""
    first = events[0].if_exists
    for new in events:
        if new.if_exists is not first:
            return "".join([_IF_EXISTS[new.if_exists] for new in events])
    return _IF_EXISTS[first]


def _rows(events: Sequence[NewEvent]) -> list[bytes]:
    """Their ids, when they are due, and what is kept of each."""
    return [
        pack_row(utf8(new.event.id), _due(new.due), write_record(new.event, wall=isinstance(new.due, At)))
        for new in events
    ]


def _due(due: Due) -> bytes:
    """A time, or, not above 0, a delay times -1."""
    if isinstance(due, After):
        return b"%d" % -due.delay_us if due.delay_us > 0 else b"0"
    return b"%d" % due.due_us if due.due_us > 0 else b"0"


def _flat(receipts: Sequence[Receipt]) -> list[Argument]:
    return [part for receipt in receipts for part in (receipt.id, receipt.number, receipt.nonce)]


def _with_timeouts(extensions: Sequence[Extension]) -> list[Argument]:
    return [part for each in extensions for part in (*_flat((each.receipt,)), each.timeout_us)]


def _or_empty(number: int | None) -> Argument:
    return b"" if number is None else number
