"""One partition of a namespace, or the only one: each operation is one Lua script and one round trip.

An operation has one entry in `CALLS`: the arguments of its script, and what reads the reply. Its script is
``lua/<method>.lua``, whose header says what it takes and returns.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, TypeVar, cast

from attrs import frozen
from typing_extensions import override

from dtimer.backends.redis import health
from dtimer.backends.redis.connector import Connector
from dtimer.backends.redis.durability import require, waiting
from dtimer.backends.redis.keys import Keys
from dtimer.backends.redis.pool import Route, Then, run_script
from dtimer.backends.redis.pubsub import subscribe
from dtimer.backends.redis.scripts import load_script, sharded
from dtimer.backends.redis.wire import values
from dtimer.backends.redis.wire.resp import Argument, Reply, pack_row, utf8
from dtimer.backends.redis.wire.values import each_of, one_of, write_record
from dtimer.errors import OutcomeUnknown, StoreRefused, StoreUnreachable, Unsupported
from dtimer.limits import REPEAT_WITHIN_US
from dtimer.loop_local import LoopRef, after_fork
from dtimer.protocol import operations as op
from dtimer.protocol.backend import OperationMethods, Runtime
from dtimer.protocol.operations import Operation, ReplyT_co
from dtimer.protocol.outcomes import PostOutcome
from dtimer.protocol.values import (
    After,
    Applied,
    At,
    Due,
    Durability,
    Extension,
    Finding,
    IfExists,
    Message,
    NewEvent,
    Pace,
    Receipt,
    Window,
)

T = TypeVar("T")
OperationT = TypeVar("OperationT", bound=Operation[Any])

EPOCH_NUM_BYTES: Final = 8
PACE: Final = Pace()


@frozen
class Call(Generic[OperationT]):
    """One kind of operation on its way.

    Attributes:
        args: the arguments of its script.
        read: what makes the value of its reply.
    """

    kind: type[OperationT]
    args: Callable[[OperationT], Sequence[Argument]]
    read: Callable[[OperationT], Callable[[Reply], object]]


def _call(
    kind: type[OperationT], args: Callable[[OperationT], Sequence[Argument]], read: Callable[[Reply], object]
) -> Call[Any]:
    """One whose replies are read without regard to what was asked."""
    return Call(kind, args, lambda _: read)


def _claim(claim: op.Claim) -> Sequence[Argument]:
    member = claim.member
    args: list[Argument] = [member.node, member.incarnation, claim.room, claim.confirm_timeout_us, claim.nonce]
    args += (int(claim.pulse), member.poll_us, len(claim.confirming))
    return args + _flat(claim.confirming) + _with_timeouts(claim.extending)


def _release(release: op.GiveBack) -> Sequence[Argument]:
    delay = _due(After(release.delay_us))
    args: list[Argument] = [*_flat((release.receipt,)), release.how.value, delay, release.refused_for_us]
    if release.failure is not None:
        args += (release.failure.type, release.failure.text)
    return args


def _upcoming(upcoming: op.Upcoming) -> Sequence[Argument]:
    start = upcoming.start
    if isinstance(start, Window):
        return (upcoming.limit, "w", _or_empty(start.offset_us), _or_empty(start.duration_us))
    return (upcoming.limit, "c", start.after_us, start.after_id, _or_empty(start.until_us))


def _dead_letters(listed: op.ListDeadLetters) -> Sequence[Argument]:
    cursor = listed.cursor
    return (listed.limit,) if cursor is None else (listed.limit, cursor.after_us, cursor.after_id)


def _discard(discard: op.Discard) -> Sequence[Argument]:
    return [part for letter in discard.letters for part in (letter.id, _or_empty(letter.buried_us))]


def _resend(resend: op.Resend) -> Sequence[Argument]:
    letter = resend.letter
    return (letter.id, _or_empty(letter.buried_us), _due(resend.due), _IF_EXISTS[resend.if_exists])


def _by_kind(*calls: Call[Any]) -> Mapping[type[Operation[Any]], Call[Any]]:
    return {call.kind: call for call in calls}


CALLS: Final = _by_kind(
    _call(op.Open, lambda _: (), values.nothing),
    _call(op.Post, lambda post: (_letters(post.events),), each_of(values.POST)),
    _call(op.Cancel, lambda cancel: cancel.ids, each_of(values.CANCEL)),
    _call(op.ChangeDelay, lambda change: (change.id, _due(After(change.delay_us))), one_of(values.CHANGE)),
    Call(op.Claim, _claim, lambda claim: values.claimed(claim.nonce)),
    _call(op.Confirm, lambda confirm: _flat(confirm.receipts), each_of(values.CONFIRM)),
    _call(op.ConfirmNewest, lambda confirm: (confirm.id,), one_of(values.CONFIRM)),
    _call(op.GiveBack, _release, one_of(values.RELEASE)),
    _call(op.Extend, lambda extend: _with_timeouts(extend.extensions), each_of(values.EXTEND)),
    _call(op.Bury, lambda bury: (*_flat((bury.receipt,)), bury.detail), one_of(values.BURY)),
    Call(op.Peek, lambda peek: (peek.id,), lambda peek: values.peeked(peek.id)),
    _call(op.Upcoming, _upcoming, values.page),
    _call(op.Join, lambda join: (join.member.node, join.member.incarnation, join.member.poll_us), one_of(values.JOIN)),
    _call(op.Leave, lambda leave: (leave.member.node, leave.member.incarnation), values.truth),
    _call(op.ListDeadLetters, _dead_letters, values.dead_letter_page),
    _call(op.Resend, _resend, one_of(values.RESEND)),
    _call(op.Discard, _discard, each_of(values.DISCARD)),
    _call(op.Inspect, lambda _: (), values.inspection),
    _call(op.ListBranches, lambda _: (), values.branches),
)

_IF_EXISTS: Final = {IfExists.REPLACE: "r", IfExists.KEEP: "k", IfExists.ERROR: "e"}


def _rows_of(operation: Operation[Any]) -> list[bytes]:
    """What follows the arguments of a post: of each event its id, when it is due, and what is kept of it."""
    if not isinstance(operation, op.Post):
        return []
    return [
        pack_row(utf8(new.event.id), _due(new.due), write_record(new.event, wall=isinstance(new.due, At)))
        for new in operation.events
    ]


def _letters(events: Sequence[NewEvent]) -> str:
    """What to do if they exist: a letter for each, or one for all."""
    first = events[0].if_exists
    for new in events:
        if new.if_exists is not first:
            return "".join([_IF_EXISTS[new.if_exists] for new in events])
    return _IF_EXISTS[first]


def _due(due: Due) -> bytes:
    """A time, or, not above 0, a delay times -1."""
    if isinstance(due, After):
        return b"%d" % -due.delay_us if due.delay_us > 0 else b"0"
    return b"%d" % due.due_us if due.due_us > 0 else b"0"


def _flat(receipts: Sequence[Receipt]) -> list[Argument]:
    return [part for receipt in receipts for part in (receipt.id, receipt.delivery_number, receipt.nonce)]


def _with_timeouts(extensions: Sequence[Extension]) -> list[Argument]:
    return [part for each in extensions for part in (*_flat((each.receipt,)), each.timeout_us)]


def _or_empty(number: int | None) -> Argument:
    return b"" if number is None else number


_SCRIPTS: Final = {name: load_script(name) for name in (*(kind.method for kind in CALLS), "reset_begin", "reset_some")}
_SHARDED: Final = {name: sharded(script) for name, script in _SCRIPTS.items()}


class RedisPartition(OperationMethods):
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
        return PACE

    async def close(self) -> None:
        """Its connections are the backend's."""

    @override
    async def perform(self, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
        for_all = self._for_all_partitions(type(operation))
        if for_all is not None:
            return cast("Applied[ReplyT_co]", await for_all())
        if self._durability is not None and isinstance(operation, op.Post):
            return cast("Applied[ReplyT_co]", await self.post_durably(operation.events, self._durability))
        call = CALLS.get(type(operation))
        if call is None:
            raise Unsupported(f"RedisBackend has no operation {operation.method}")
        applied = await self._run(operation.method, call.args(operation), call.read(operation), _rows_of(operation))
        return cast("Applied[ReplyT_co]", applied)

    def _for_all_partitions(self, kind: type[Operation[Any]]) -> Callable[[], Awaitable[Applied[Any]]] | None:
        """What carries out an operation of this kind in all partitions, if this one stands for all."""
        return None

    @override
    async def post_durably(
        self, events: Sequence[NewEvent], durability: Durability
    ) -> Applied[tuple[PostOutcome, ...]]:
        post, call = op.Post(events), CALLS[op.Post]
        await self._connected("post")
        route = await self._connector.route("post", self._keys.prefix, durable=True)
        both = await self._reply(route, "post", call.args(post), rows=_rows_of(post), then=waiting(durability))
        assert isinstance(both, list), "the replies to two commands"
        reply, reached = both
        require(durability, reached)
        return self._noted(values.applied("post", reply, values.each_of(values.POST)))

    @asynccontextmanager
    async def wakeups(self, node: str, epoch: str) -> AsyncGenerator[AsyncIterator[Message]]:
        route = await self._connected("wakeups")
        channels = self._keys.channels(node, epoch)
        timeout_s, sharded = self._connector.request_timeout_s, self._connector.sharded
        async with subscribe(route, channels, sharded=sharded, timeout_s=timeout_s) as messages:
            yield messages

    async def examine(self) -> tuple[Finding, ...]:
        return await self.examine_server((await self.open()).skew_us)

    async def examine_server(self, skew_us: int) -> tuple[Finding, ...]:
        """The server's settings; the skew is that of the namespace's clock."""
        if self._connector.are_our_own:
            return ()  # we wrote their settings; without a path nothing is to be kept
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
        rows: Sequence[bytes] = (),
    ) -> Applied[T]:
        way = self._way
        route = way[1] if way is not None and way[0].is_here() else await self._connected(operation)
        return self._noted(values.applied(operation, await self._reply(route, operation, args, rows=rows), read))

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
        return await run_script(
            route,
            self._scripts[operation],
            operation,
            self._keys.all,
            args,
            common=common,
            server=self.server_for_tests,
            rows=rows,
            then=then,
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


def _text(reply: Reply) -> str:
    """A text, alone or as the second of a pair."""
    last = reply[-1] if isinstance(reply, list) and reply else reply
    return last.decode(errors="replace") if isinstance(last, bytes) else ""
