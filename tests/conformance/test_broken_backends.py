"""Backends that are broken on purpose: does the conformance suite find them out, and say so well, and in time?"""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from attrs import evolve

from dtimer import SimBackend, StoreUnreachable
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.outcomes import PostOutcome
from dtimer.protocol.values import Applied, Claimed
from dtimer_conformance import Feature
from dtimer_conformance.assertions import assert_that
from dtimer_conformance.report import Report, Unreached, make_report
from dtimer_conformance.runner import HANGS_MAX, ScenarioRunner
from dtimer_conformance.scenario import SCENARIOS
from dtimer_conformance.watchdog import Watched
from node.watched import Watched as WatchedBackend
from support.broken import A_SCENARIO, Changed, Target, Unwritten, tried, verdict_of
from support.waiting import TIMEOUT_S

pytestmark = pytest.mark.once

# --- broken backends ----------------------------------------------------------------------------------------------


def test_a_wrong_answer_is_named_with_operation_and_rule() -> None:
    """Both values, the operation, the history before it, the rule, and where to look."""

    class Forgetful(Changed):
        def change(self, operation: Operation[Any], reply: Applied[Any]) -> Any:
            if isinstance(operation, op.Post) and reply.value == (PostOutcome.REPLACED,):
                return evolve(reply, value=(PostOutcome.CREATED,))
            return reply

    said = tried(A_SCENARIO, Forgetful)

    assert "rule P3 (Afterwards exactly one event has the id) is broken" in said
    for part in ("REPLACED", "CREATED", "Post(events=", "Troubleshooting:", "docs/reference/semantics.md#p3"):
        assert part in said


def test_a_difference_that_no_scenario_looks_at_is_found_by_the_replay() -> None:
    """Scenarios look at what they are about; the machine looks at everything."""

    class Restless(Changed):
        def change(self, operation: Operation[Any], reply: Applied[Any]) -> Any:
            if not isinstance(reply.value, Claimed) or reply.value.come_at_us is None:
                return reply
            return evolve(reply, value=evolve(reply.value, come_at_us=reply.value.come_at_us + 1))

    said = tried("test_e1_confirms_ride_on_claims", Restless)

    assert "rule W4 " in said
    assert "value.come_at_us" in said


def test_details_and_table_name_the_same_rules_as_broken() -> None:
    """A scenario of one rule may fail by what breaks another one: neither may stand in the table as kept."""

    class Restless(Changed):
        def change(self, operation: Operation[Any], reply: Applied[Any]) -> Any:
            if not isinstance(reply.value, Claimed) or reply.value.come_at_us is None:
                return reply
            return evolve(reply, value=evolve(reply.value, come_at_us=reply.value.come_at_us + 1))

    scenario = SCENARIOS["test_e1_confirms_ride_on_claims"]
    report = Report("restless", frozenset(), (ScenarioRunner().try_one(scenario, Target(Restless)),))

    shown = report.as_text()
    table = dict(re.findall(r"^([A-Z]\d+) .*?  (kept|broken|not judged)  ", shown, re.MULTILINE))
    named = set(re.findall(r"rule ([A-Z]\d+) ", shown))
    assert named == {"E1", "W4"}
    assert {rule for rule, outcome in table.items() if outcome == "broken"} == named


def test_any_program_fails_with_few_lines() -> None:
    """Hypothesis shrinks the program, so the history is short enough to read."""

    class Greedy(Changed):
        def change(self, operation: Operation[Any], reply: Applied[Any]) -> Any:
            if isinstance(operation, op.Claim) and isinstance(reply.value, Claimed) and reply.value.more:
                return evolve(reply, value=evolve(reply.value, more=False))
            return reply

    said = tried("test_o1_any_program_does_what_the_machine_does", Greedy)

    assert "rule D5 " in said
    assert len(said.splitlines()) < 30


@pytest.mark.parametrize(
    ("nonsense", "expected"),
    [
        (lambda reply: None, "the reply is None, and not an Applied"),
        (lambda reply: reply.value, "and not an Applied"),
        (lambda reply: evolve(reply, value=("created",)), "value[0] is 'created', and not PostOutcome"),
        (lambda reply: evolve(reply, value=(PostOutcome.CREATED,) * 2), "value has 2 outcomes for 1 items"),
        (lambda reply: evolve(reply, at_us=float(reply.at_us)), "and not int"),
        (lambda reply: evolve(reply, value=[PostOutcome.CREATED]), "and not tuple"),
        (lambda reply: evolve(reply, seq=-1), "seq is -1, which is negative"),
    ],
)
def test_nonsense_is_named_with_its_method(nonsense: Callable[[Any], Any], expected: str) -> None:
    class Nonsense(Changed):
        def change(self, operation: Operation[Any], reply: Applied[Any]) -> Any:
            return nonsense(reply) if isinstance(operation, op.Post) else reply

    said = tried(A_SCENARIO, Nonsense)

    assert "the reply of post is not what the protocol says" in said
    assert expected in said


@pytest.mark.parametrize("scenario", [A_SCENARIO, "test_p1_a_timer_posts_without_having_joined"])
def test_a_foreign_exception_is_named_with_its_method(scenario: str) -> None:
    """Also when a node met it, which goes on after it."""

    class Foreign(Changed):
        def change(self, operation: Operation[Any], reply: Applied[Any]) -> Any:
            if isinstance(operation, op.Post | op.Claim):
                raise KeyError("row")
            return reply

    said = tried(scenario, Foreign)

    assert "raised KeyError('row'), which is no BackendError" in said
    assert "rule F1 " in said


def test_a_backend_without_the_method_is_told_so() -> None:
    said = verdict_of(ScenarioRunner().try_one(SCENARIOS[A_SCENARIO], Unwritten()))

    assert "Unwritten must have a method `backend`" in said


def test_a_declared_feature_must_be_there() -> None:
    target = Target(cast("type[SimBackend]", NoLetters), frozenset({Feature.DEAD_LETTERS}))

    said = verdict_of(ScenarioRunner().try_one(SCENARIOS[A_SCENARIO], target))

    assert "Feature.DEAD_LETTERS is declared, but NoLetters is no SupportsDeadLetters" in said


class NoLetters(WatchedBackend):
    """A backend that has nothing to do with dead letters."""

    def __init__(self, *, namespace: str) -> None:
        super().__init__(SimBackend(namespace=namespace))


# --- hanging --------------------------------------------------------------------------------------------------------


class Waits(SimBackend):
    """Never answers a post."""

    async def perform(self, operation: Operation[Any]) -> Any:
        if isinstance(operation, op.Post):
            await asyncio.Event().wait()
        return await super().perform(operation)


class Blocks(SimBackend):
    """Blocks the event loop in a post."""

    async def perform(self, operation: Operation[Any]) -> Any:
        if isinstance(operation, op.Post):
            time.sleep(3600)  # noqa: ASYNC251  # that is what is wrong with it
        return await super().perform(operation)


class Spins(SimBackend):
    """Keeps the event loop busy in a post."""

    async def perform(self, operation: Operation[Any]) -> Any:
        while isinstance(operation, op.Post):
            pass
        return await super().perform(operation)


@pytest.mark.parametrize(
    ("kind", "where"),
    [(Waits, "the event loop waits"), (Blocks, "the event loop is blocked"), (Spins, "the event loop is blocked")],
)
def test_a_backend_that_hangs_gets_a_verdict_in_time(kind: type[SimBackend], where: str) -> None:
    """Whether it waits or blocks the loop, the verdict comes in time and says where it is."""
    scenario = evolve(SCENARIOS[A_SCENARIO], limit_s=0.5)
    begun = time.monotonic()

    said = verdict_of(ScenarioRunner().try_one(scenario, Target(kind)))

    assert time.monotonic() - begun < TIMEOUT_S
    assert "it hangs: nothing came of it within 0.5 s" in said
    assert where in said
    assert re.search(r"test_broken_backends\.py:\d+ in .*perform", said)


def test_after_some_hangs_the_rest_is_not_tried() -> None:
    """Nobody waits for an hour; and what was not tried has failed, and was not skipped."""
    court, scenario = ScenarioRunner(), evolve(SCENARIOS[A_SCENARIO], limit_s=0.2)

    said = [verdict_of(court.try_one(scenario, Target(Waits))) for _ in range(HANGS_MAX + 1)]

    assert all("it hangs" in one for one in said[:HANGS_MAX])
    assert "not tried: the backend has hung 3 times already" in said[HANGS_MAX]


def test_an_experiment_that_goes_on_does_not_hang() -> None:
    """It has a hundred worlds, which take long on a busy host; the limit is that of each."""
    ended = threading.Event()
    looks = itertools.count()

    def progress() -> int:
        begun = next(looks)
        if begun == 2:
            ended.set()
        return begun

    Watched().run(lambda: assert_that("it was let end", ended.wait(60)), limit_s=0.1, progress=progress)


# --- unreachable ----------------------------------------------------------------------------------------------------


class Nowhere(SimBackend):
    """A store that is not there."""

    async def perform(self, operation: Operation[Any]) -> Applied[Any]:
        raise StoreUnreachable(operation.method, "nobody listens on port 1")


def test_a_store_that_cannot_be_reached_is_a_failure() -> None:
    """A skip would look green."""
    court = ScenarioRunner()

    first, second = (verdict_of(court.try_one(SCENARIOS[A_SCENARIO], Target(Nowhere))) for _ in range(2))

    assert "the store cannot be reached; this is a failure, not a skip" in first
    assert "nobody listens on port 1" in second
    with pytest.raises(Unreached, match="nobody listens"):
        make_report(Target(Nowhere), "nowhere")
