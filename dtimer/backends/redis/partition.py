"""One partition of a namespace, or the only one: each operation is one Lua script and one round trip."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar, cast

from typing_extensions import override

from dtimer.backends.redis import health
from dtimer.backends.redis.calls import CALLS, rows_of
from dtimer.backends.redis.connector import Connector
from dtimer.backends.redis.durability import require, waiting
from dtimer.backends.redis.keys import Keys
from dtimer.backends.redis.pool import Route, Then
from dtimer.backends.redis.pubsub import subscribe
from dtimer.backends.redis.scripts import load_script, sharded
from dtimer.backends.redis.wire import replies
from dtimer.backends.redis.wire.resp import Argument, Reply
from dtimer.errors import OutcomeUnknown, StoreRefused, StoreUnreachable, Unsupported
from dtimer.limits import REPEAT_WITHIN_US
from dtimer.loop_local import LoopRef, after_fork
from dtimer.protocol import operations as op
from dtimer.protocol.backend import OperationMethods, Runtime
from dtimer.protocol.operations import Operation, ReplyT_co
from dtimer.protocol.outcomes import PostOutcome
from dtimer.protocol.values import Applied, Durability, Finding, Message, NewEvent, Pace

T = TypeVar("T")

EPOCH_NUM_BYTES: Final = 8

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
        return Pace()

    async def close(self) -> None:
        """Its connections are the backend's."""

    @override
    async def perform(self, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
        if self._durability is not None and isinstance(operation, op.Post):
            return cast("Applied[ReplyT_co]", await self.post_durably(operation.events, self._durability))
        call = CALLS.get(type(operation))
        if call is None:
            raise Unsupported(f"RedisBackend has no operation {operation.method}")
        applied = await self._run(operation.method, call.args(operation), call.read(operation), rows_of(operation))
        return cast("Applied[ReplyT_co]", applied)

    @override
    async def post_durably(
        self, events: Sequence[NewEvent], durability: Durability
    ) -> Applied[tuple[PostOutcome, ...]]:
        post, call = op.Post(events), CALLS[op.Post]
        await self._connected("post")
        route = await self._connector.route("post", self._keys.prefix, durable=True)
        both = await self._reply(route, "post", call.args(post), rows=rows_of(post), then=waiting(durability))
        assert isinstance(both, list), "the replies to two commands"
        reply, reached = both
        require(durability, reached)
        return self._noted(replies.applied("post", reply, replies.each_of(replies.POST)))

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


def _text(reply: Reply) -> str:
    """A text, alone or as the second of a pair."""
    last = reply[-1] if isinstance(reply, list) and reply else reply
    return last.decode(errors="replace") if isinstance(last, bytes) else ""
