"""Putting the clock of a namespace right after its server's was set, while no node is joined (rule T2).

Theory of operation
-------------------
All times that a namespace keeps are by its own clock, which is ahead of the server's by the skew.
A reset makes each of them earlier by that, and the skew 0.
That is done in many short scripts, between which the server serves its other clients.
From the first to the last of them the number of partitions that is kept is ``clock-reset 1``, say: operations are
refused as of a busy store, so nothing else changes the namespace meanwhile.
Each script keeps in the namespace how far it has got. So being interrupted anywhere does no harm: the reset can be run
again, and goes on from there. ``lua/reset_begin.lua`` and ``lua/reset_some.lua`` say what is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from attrs import frozen
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import InvalidResponse

from dtimer import _validation
from dtimer.backends.redis.connector import Connector
from dtimer.backends.redis.keys import Keys
from dtimer.backends.redis.partition import RedisPartition
from dtimer.backends.redis.parts import CLOCK_RESET_MARK
from dtimer.backends.redis.pool import REQUEST_TIMEOUT_DEFAULT_S
from dtimer.backends.redis.wire.resp import Reply, as_bytes, as_int, as_list, utf8
from dtimer.epochs import epoch_after_reset
from dtimer.errors import OutcomeUnknown, PartitionsMismatch, StoreBusy, StoreRefused
from dtimer.limits import NAMESPACE_DEFAULT
from dtimer.protocol.values import ClockReset
from dtimer.runtime import AsyncioRuntime

OPERATION: Final = "reset_clock"


@frozen
class _Begun:
    """A reset that can go on.

    Attributes:
        fresh: it was begun just now, and has changed nothing yet.
    """

    skew_us: int
    epoch: str
    fresh: bool


@frozen
class Clocks:
    """What there is to reset.

    Attributes:
        skew_us: by how much the namespace's time is ahead of the server's clock; the largest of its partitions.
        interrupted: a reset was begun and not finished.
    """

    skew_us: int
    partitions: int
    interrupted: bool


class _Part(RedisPartition):
    """A partition while its clock is reset."""

    async def begin(self) -> tuple[int, tuple[str, ...], str]:
        """The skew, the nodes that are joined, and the epoch."""
        applied = await self._run("reset_begin", (), _begun)
        return *applied.value, applied.epoch

    async def some(self, epoch: str) -> tuple[bool, int, int]:
        """Whether all is done, and how many events and dead letters were done so far."""
        return (await self._run("reset_some", (epoch,), _done)).value

    async def take_back(self) -> None:
        """Make it as it was before it was begun, unless something is done already."""
        await self._run("reset_some", ("",), _done)

    async def ask(self, *command: bytes) -> Reply:
        """By a plain command about its meta."""
        name, *rest = command
        route = await self._connector.route(OPERATION, self._keys.prefix)
        return await route.request(OPERATION, name, self._keys.all[0], *rest)


def _begun(reply: Reply) -> tuple[int, tuple[str, ...]]:
    skew_us, nodes = as_list(reply)
    return as_int(skew_us), tuple(as_bytes(node).decode("utf-8", "replace") for node in as_list(nodes))


def _done(reply: Reply) -> tuple[bool, int, int]:
    done, events, letters = map(as_int, as_list(reply))
    return done == 1, events, letters


class Reset:
    """The reset of one namespace, partition by partition."""

    def __init__(
        self, servers: Connector, namespace: str, partitions: int, clock_for_tests: Callable[[], int] | None = None
    ) -> None:
        def all_of_them(number: int | str) -> list[_Part]:
            return [_part(servers, namespace, place, number, clock_for_tests) for place in range(partitions)]

        self._plain = all_of_them(partitions)
        self._marked = all_of_them(f"{CLOCK_RESET_MARK}{partitions}")
        self._number = partitions

    async def look(self) -> Clocks:
        """What there is to do; changes nothing."""
        found = [await self._interrupted(place) for place in range(self._number)]
        skews_us = [
            (await self._plain[place].open()).skew_us if interrupted is None else interrupted.skew_us
            for place, interrupted in enumerate(found)
        ]
        return Clocks(max(skews_us), self._number, interrupted=any(found))

    async def run(self) -> ClockReset:
        """Begin or go on, and finish it. Runs at once do it together."""
        found = [await self._interrupted(place) for place in range(self._number)]
        begun: list[_Begun | None] = []
        try:
            for place, interrupted in enumerate(found):
                begun.append(interrupted or await self._begin(place, going_on=any(found)))
        except StoreRefused:
            for part, was in zip(self._marked, begun, strict=False):
                if was is not None and was.fresh:
                    with suppress(PartitionsMismatch):
                        await part.take_back()
            raise
        counts = [(0, 0) if was is None else await self._finish(place, was) for place, was in enumerate(begun)]
        return ClockReset(
            skew_us=max([0 if was is None else was.skew_us for was in begun]),
            events=sum(events for events, _ in counts),
            dead_letters=sum(letters for _, letters in counts),
        )

    async def _begin(self, place: int, *, going_on: bool) -> _Begun | None:
        """None if its clock is right."""
        try:
            skew_us, nodes, epoch = await self._plain[place].begin()
        except StoreBusy:
            # Another run may have begun it meanwhile.
            interrupted = await self._interrupted(place)
            if interrupted is None:
                raise
            return interrupted
        # Where there is nothing to do any more, nodes may be on their way in already.
        if nodes and (skew_us or not going_on):
            problem = f"nodes are joined, or have died less than 100 s ago: {', '.join(sorted(nodes))}"
            raise StoreRefused(OPERATION, problem)
        return _Begun(skew_us, epoch, fresh=True) if skew_us else None

    async def _finish(self, place: int, was: _Begun) -> tuple[int, int]:
        """How many events and dead letters were done in all."""
        part, epoch = self._marked[place], epoch_after_reset(was.epoch)
        done, events, letters = False, 0, 0
        while not done:
            try:
                done, events, letters = await part.some(epoch)
            except PartitionsMismatch as error:
                if as_bytes(await part.ask(b"HGET", b"epoch")).decode() == epoch:
                    return events, letters  # another run has done the rest
                problem = "another run of it was refused, and has taken back its beginning; run it again"
                raise StoreRefused(OPERATION, problem) from error
        return events, letters

    async def _interrupted(self, place: int) -> _Begun | None:
        stored, reset, epoch = as_list(await self._plain[place].ask(b"HMGET", b"partitions", b"reset", b"epoch"))
        if not (isinstance(stored, bytes) and stored.startswith(utf8(CLOCK_RESET_MARK))):
            return None
        return _Begun(int(as_bytes(reset).split()[0]), as_bytes(epoch).decode(), fresh=False)


def _part(
    servers: Connector, namespace: str, place: int, number: int | str, clock_for_tests: Callable[[], int] | None = None
) -> _Part:
    return _Part(
        servers, Keys(namespace, place), AsyncioRuntime(), num_partitions=number, clock_for_tests=clock_for_tests
    )


async def look(client: Redis | RedisCluster, namespace: str = NAMESPACE_DEFAULT) -> Clocks | None:
    """What there is to reset; None for a namespace that does not exist. Changes nothing.

    Raises:
        InvalidArgument: before any I/O.
        PartitionsMismatch: the namespace is being moved into another number of partitions.
        BackendError: it could not be looked at.
    """
    name = _validation.name(namespace, "namespace")
    servers = Connector(client, request_timeout_s=REQUEST_TIMEOUT_DEFAULT_S)
    try:
        schema, stored = as_list(await _part(servers, name, 0, 1).ask(b"HMGET", b"schema", b"partitions"))
        if schema is None:
            return None
        number = "1" if stored is None else as_bytes(stored).decode("ascii", "replace")
        if not number.removeprefix(CLOCK_RESET_MARK).isdecimal():
            raise PartitionsMismatch(
                OPERATION, f"the namespace is in {number} partitions; see dtimer migrate-partitions"
            )
        partitions = int(number.removeprefix(CLOCK_RESET_MARK))
        return await Reset(servers, name, partitions).look()
    except (InvalidResponse, ValueError, LookupError) as error:
        raise OutcomeUnknown(OPERATION, f"the server's reply is none that was asked for: {error}") from error
    finally:
        await servers.close()


async def reset_clock(client: Redis | RedisCluster, namespace: str = NAMESPACE_DEFAULT) -> ClockReset | None:
    """Take the skew out of a namespace; None for a namespace that does not exist. Safe to call again if interrupted.

    Raises:
        InvalidArgument: before any I/O.
        StoreRefused: nodes are joined; nothing was changed.
        PartitionsMismatch: the namespace is being moved into another number of partitions.
        BackendError: it was interrupted.
    """
    found = await look(client, namespace)
    if found is None:
        return None
    servers = Connector(client, request_timeout_s=REQUEST_TIMEOUT_DEFAULT_S)
    try:
        return await Reset(servers, namespace, found.partitions).run()
    except (InvalidResponse, ValueError, LookupError) as error:
        raise OutcomeUnknown(OPERATION, f"the server's reply is none that was asked for: {error}") from error
    finally:
        await servers.close()
