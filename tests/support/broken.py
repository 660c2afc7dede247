"""Backends that are broken on purpose, and what the conformance suite says of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from attrs import evolve, frozen

from dtimer import SimBackend, TimerBackend
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.outcomes import PostOutcome
from dtimer.protocol.values import Applied
from dtimer_conformance import BackendSuite, Feature
from dtimer_conformance.runner import Result, ScenarioRunner, Status
from dtimer_conformance.scenario import SCENARIOS


@frozen
class Target:
    """A simulator of a broken kind."""

    kind: type[SimBackend]
    features: AbstractSet[Feature] = frozenset({Feature.ADVANCE})

    @asynccontextmanager
    async def backend(self, namespace: str, clock: Callable[[], int] | None) -> AsyncGenerator[TimerBackend]:
        yield self.kind(namespace=namespace)


class Changed(SimBackend):
    """Answers some operations in its own way."""

    def change(self, operation: Operation[Any], reply: Applied[Any]) -> Any:
        return reply

    async def perform(self, operation: Operation[Any]) -> Applied[Any]:
        return cast("Applied[Any]", self.change(operation, await super().perform(operation)))


def tried(scenario: str, kind: type[SimBackend]) -> str:
    """What is said when this scenario fails on this backend."""
    return verdict_of(ScenarioRunner().try_one(SCENARIOS[scenario], Target(kind)))


def verdict_of(result: Result) -> str:
    assert result.status is Status.FAILED, result
    return str(result.verdict)


A_SCENARIO: Final = "test_p3_if_exists_decides_what_becomes_of_a_live_event"


class LateToCreate(Changed):
    """Says of every post that it replaced something."""

    def change(self, operation: Operation[Any], reply: Applied[Any]) -> Any:
        return (
            evolve(reply, value=(PostOutcome.REPLACED,) * len(reply.value)) if isinstance(operation, op.Post) else reply
        )


@asynccontextmanager
async def broken(namespace: str, clock: Callable[[], int] | None) -> AsyncGenerator[TimerBackend]:
    """A factory, as a user has one."""
    yield LateToCreate(namespace=namespace)


class Unwritten(BackendSuite):
    """A suite whose author has written nothing yet."""
