"""Checked by mypy and pyright, never run: what is a backend and what is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

from redis import Redis as SyncRedis
from redis.asyncio import Redis, RedisCluster, Sentinel

from dtimer import DTimer, RedisBackend, SimBackend, TimerBackend
from dtimer.backends.redis.partition import RedisPartition
from dtimer.protocol.backend import SupportsDeadLetters, SupportsInspection, SupportsPartitions, SupportsPurge
from dtimer.protocol.outcomes import BuryOutcome, ExtendOutcome, PostOutcome
from dtimer.protocol.values import Applied, Extension, NewEvent, Receipt
from node.watched import Watched


def these_are_backends(watched: Watched, sim: SimBackend, redis: RedisBackend) -> list[TimerBackend]:
    return [watched, sim, redis]


def the_simulator_has_every_ability(
    sim: SimBackend,
) -> tuple[SupportsDeadLetters, SupportsInspection, SupportsPurge]:
    return sim, sim, sim


def redis_has_every_ability(
    redis: RedisBackend,
) -> tuple[SupportsDeadLetters, SupportsInspection, SupportsPartitions, SupportsPurge]:
    return redis, redis, redis, redis


def three_kinds_of_clients_make_one(sentinel: Sentinel, cluster: RedisCluster) -> None:
    for client in (Redis(), sentinel.master_for("timers"), cluster):
        assert_type(RedisBackend(client, partitions=16), RedisBackend)
    RedisBackend(SyncRedis())  # type: ignore[arg-type]


def the_partitions_of_one_are_backends(redis: RedisBackend) -> Sequence[TimerBackend]:
    assert_type(redis.partitions, Sequence[RedisPartition])
    return redis.partitions


def the_simulator_has_no_partitions(sim: SimBackend) -> SupportsPartitions:
    return sim  # type: ignore[return-value]


class WithoutNumbers(SimBackend):
    """A reply that is not in the namespace's history."""

    async def post(self, events: Sequence[NewEvent]) -> tuple[PostOutcome, ...]:  # type: ignore[override]
        return ()


class OnlyPosts:
    """A backend that lacks all methods but one."""

    async def post(self, events: Sequence[NewEvent]) -> Applied[tuple[PostOutcome, ...]]:
        raise NotImplementedError


def this_is_none(almost: OnlyPosts) -> None:
    DTimer(almost)  # type: ignore[call-overload]


async def its_methods_have_the_types_of_the_operations(backend: TimerBackend, receipt: Receipt) -> None:
    assert_type(await backend.bury(receipt, detail="why"), Applied[BuryOutcome])
    assert_type(await backend.extend([Extension(receipt, 5)]), Applied[tuple[ExtendOutcome, ...]])
    await backend.bury(receipt, detail=5)  # type: ignore[arg-type]
    await backend.bury(receipt)  # type: ignore[call-arg]
    await backend.extend([receipt])  # type: ignore[list-item]


def it_lacks_an_ability(watched: Watched) -> SupportsDeadLetters:
    return watched  # type: ignore[return-value]


def values_are_frozen(new: NewEvent, applied: Applied[int]) -> None:
    """For type checkers, who alone see to it."""
    new.event = new.event  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    applied.seq = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
