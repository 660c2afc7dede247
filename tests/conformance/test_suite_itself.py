"""The conformance suite, tried on backends that are broken on purpose: does it find them out, and say so well?"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import evolve, frozen

from dtimer import SimBackend, StoreUnreachable, TimerBackend
from dtimer.cli import main
from dtimer.outcomes import PostOutcome
from dtimer.semantics import operations as op
from dtimer.semantics.operations import Operation
from dtimer.values import Applied, Claimed, NewEvent
from dtimer_conformance import BackendSuite, Feature, expected_failure
from dtimer_conformance.court import HANGS_MAX, Court, Result, Status
from dtimer_conformance.report import BROKEN, KEPT, NOT_JUDGED, Report, Unreached, make_report
from dtimer_conformance.rules import RULES
from dtimer_conformance.scenario import SCENARIOS, Scenario
from dtimer_conformance.targets import SIM_FEATURES, SimTarget, UnknownTarget, find_target

ROOT = Path(__file__).resolve().parents[2]


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
    return verdict_of(Court().try_one(SCENARIOS[scenario], Target(kind)))


def verdict_of(result: Result) -> str:
    assert result.status is Status.FAILED, result
    return str(result.verdict)


A_SCENARIO = "test_p3_if_exists_decides_what_becomes_of_a_live_event"


# --- rules and scenarios ------------------------------------------------------------------------------------------


def test_the_rules_are_those_of_the_reference() -> None:
    """Reports and verdicts call rules by numbers and titles that can be looked up."""
    reference = (ROOT / "docs" / "reference" / "semantics.md").read_text(encoding="utf-8")

    assert dict(re.findall(r"^### ([A-Z][0-9]+)\. (.*)$", reference, re.MULTILINE)) == RULES


def test_every_rule_has_a_scenario_named_after_it() -> None:
    """A rule without one would be reported as kept by nobody."""
    assert {scenario.rule for scenario in SCENARIOS.values()} == set(RULES)


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
def test_every_scenario_says_what_it_claims_and_where_to_look(scenario: Scenario) -> None:
    """The docstring is what the author of a failing backend gets to read."""
    assert scenario.claim.endswith(".")
    assert scenario.hint
    assert len(scenario.name) < 100
    assert len(set(scenario.rules)) == len(scenario.rules)


def test_every_scenario_is_a_test_with_its_docstring() -> None:
    for name, scenario in SCENARIOS.items():
        test = getattr(BackendSuite, name)
        assert (test.__name__, test.__doc__) == (name, scenario.text)
        assert not asyncio.iscoroutinefunction(test)


# --- overriding ---------------------------------------------------------------------------------------------------


def guard(suite: type[BackendSuite]) -> None:
    suite().test_no_standard_test_is_dropped()


def test_a_test_that_was_dropped_fails_the_run() -> None:
    class Dropped(BackendSuite):
        pass

    guard(Dropped)
    setattr(Dropped, A_SCENARIO, None)

    with pytest.raises(pytest.fail.Exception, match=A_SCENARIO):
        guard(Dropped)


def test_a_test_that_was_overridden_fails_the_run() -> None:
    class Overridden(BackendSuite):
        def test_p3_if_exists_decides_what_becomes_of_a_live_event(self) -> None:
            """Nothing."""

    with pytest.raises(pytest.fail.Exception, match=A_SCENARIO):
        guard(Overridden)


def test_a_test_may_be_expected_to_fail_with_a_reason() -> None:
    class Expected(BackendSuite):
        @expected_failure(reason="our store has no replace")
        def test_p3_if_exists_decides_what_becomes_of_a_live_event(self) -> None: ...

    guard(Expected)
    (mark,) = getattr(Expected, A_SCENARIO).pytestmark
    assert (mark.name, mark.kwargs) == ("xfail", {"reason": "our store has no replace", "strict": True})
    with pytest.raises(ValueError, match="reason"):
        expected_failure(reason=" ")
    with pytest.raises(ValueError, match="no standard test"):
        expected_failure(reason="none")(guard)


SUITES = """
from contextlib import asynccontextmanager

from conformance.test_suite_itself import LateToCreate
from dtimer import SimBackend
from dtimer_conformance import BackendSuite, Feature, expected_failure


class TestRight(BackendSuite):
    features = {Feature.ADVANCE}

    @expected_failure(reason="but it does not fail")
    def test_p3_if_exists_decides_what_becomes_of_a_live_event(self) -> None: ...

    @asynccontextmanager
    async def backend(self, namespace, clock):
        yield SimBackend(namespace=namespace)


class TestWrong(TestRight):
    @asynccontextmanager
    async def backend(self, namespace, clock):
        yield LateToCreate(namespace=namespace)
"""


def test_pytest_needs_no_plugin_and_shows_the_verdict_alone(tmp_path: Path) -> None:
    """An expected failure that passes has failed; what fails shows the verdict and no traceback; skips have words."""
    (tmp_path / "test_mine.py").write_text(SUITES, encoding="utf-8")
    names = (A_SCENARIO, "test_p5_a_batch_is_as_its_items_one_by_one", "test_e5_a_dead_letter_is_discarded_once")
    chosen = [f"test_mine.py::{suite}::{name}" for suite in ("TestRight", "TestWrong") for name in names]
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path if entry)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "-p", "no:asyncio", *chosen],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )

    assert "2 failed, 1 passed, 2 skipped, 1 xfailed" in done.stdout
    assert "[XPASS(strict)] but it does not fail" in done.stdout
    assert "rule P5 (Many in one call) is broken" in done.stdout
    assert "Traceback" not in done.stdout
    assert "this backend has not Feature.DEAD_LETTERS" in done.stdout


def test_the_guard_itself_cannot_be_overridden() -> None:
    with pytest.raises(TypeError, match="must not override"):
        type("Sly", (BackendSuite,), {"test_no_standard_test_is_dropped": lambda self: None})


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
    class Empty(BackendSuite):
        pass

    said = verdict_of(Court().try_one(SCENARIOS[A_SCENARIO], Empty()))

    assert "Empty must have a method `backend`" in said


def test_a_declared_feature_must_be_there() -> None:
    target = Target(cast("type[SimBackend]", NoLetters), frozenset({Feature.DEAD_LETTERS, Feature.ADVANCE}))

    said = verdict_of(Court().try_one(SCENARIOS[A_SCENARIO], target))

    assert "Feature.DEAD_LETTERS is declared, but NoLetters is no SupportsDeadLetters" in said


class NoLetters(SimBackend):
    """A simulator that cannot resend."""

    resend = None  # type: ignore[assignment]  # what is not there is not callable


# --- hanging --------------------------------------------------------------------------------------------------------


class Waits(SimBackend):
    """Never answers a post."""

    async def post(self, events: Any) -> Any:
        await asyncio.Event().wait()


class Blocks(SimBackend):
    """Blocks the event loop in a post."""

    async def post(self, events: Any) -> Any:
        time.sleep(3600)  # noqa: ASYNC251  # that is what is wrong with it


class Spins(SimBackend):
    """Keeps the event loop busy in a post."""

    async def post(self, events: Any) -> Any:
        while True:
            pass


@pytest.mark.parametrize(
    ("kind", "where"),
    [(Waits, "the event loop waits"), (Blocks, "the event loop is blocked"), (Spins, "the event loop is blocked")],
)
def test_a_backend_that_hangs_gets_a_verdict_in_time(kind: type[SimBackend], where: str) -> None:
    """Whether it waits or blocks the loop, the verdict comes in time and says where it is."""
    scenario = evolve(SCENARIOS[A_SCENARIO], limit_s=0.5)
    begun = time.monotonic()

    said = verdict_of(Court().try_one(scenario, Target(kind)))

    assert time.monotonic() - begun < 5
    assert "it hangs: nothing came of it within 0.5 s" in said
    assert where in said
    assert re.search(r"test_suite_itself\.py:\d+ in .*post", said)


def test_after_some_hangs_the_rest_is_not_tried() -> None:
    """Nobody waits for an hour; and what was not tried has failed, and was not skipped."""
    court, scenario = Court(), evolve(SCENARIOS[A_SCENARIO], limit_s=0.2)

    said = [verdict_of(court.try_one(scenario, Target(Waits))) for _ in range(HANGS_MAX + 1)]

    assert all("it hangs" in one for one in said[:HANGS_MAX])
    assert "not tried: the backend has hung 3 times already" in said[HANGS_MAX]


# --- unreachable ----------------------------------------------------------------------------------------------------


class Nowhere(SimBackend):
    """A store that is not there."""

    async def perform(self, operation: Operation[Any]) -> Applied[Any]:
        raise StoreUnreachable(operation.method, "nobody listens on port 1")


def test_a_store_that_cannot_be_reached_is_a_failure() -> None:
    """A skip would look green."""
    court = Court()

    first, second = (verdict_of(court.try_one(SCENARIOS[A_SCENARIO], Target(Nowhere))) for _ in range(2))

    assert "the store cannot be reached; this is a failure, not a skip" in first
    assert "nobody listens on port 1" in second
    with pytest.raises(Unreached, match="nobody listens"):
        make_report(Target(Nowhere), "nowhere")


# --- features and reports -----------------------------------------------------------------------------------------


def test_without_a_feature_a_test_is_skipped_in_words() -> None:
    target = Target(SimBackend, frozenset())
    court = Court()

    def why(name: str) -> str:
        result = court.try_one(SCENARIOS[name], target)
        assert result.status is Status.SKIPPED
        return result.why

    assert why("test_e5_a_dead_letter_is_discarded_once") == "this backend has not Feature.DEAD_LETTERS"
    assert why("test_e5_after_thirty_days_a_dead_letter_does_not_exist") == (
        "this backend has not Feature.DEAD_LETTERS; "
        "its time cannot be moved: it has neither Feature.CLOCK nor Feature.ADVANCE"
    )


def test_a_rule_is_kept_only_if_it_was_judged() -> None:
    passed, failed, skipped = (Result(SCENARIOS[A_SCENARIO], status) for status in Status)

    def outcome(*results: Result) -> str:
        return Report("x", frozenset(), results).outcome("P3")

    assert outcome(passed, skipped) == KEPT
    assert outcome(passed, failed) == BROKEN
    assert outcome(skipped) == NOT_JUDGED
    assert outcome() == NOT_JUDGED


def test_the_command_judges_the_simulator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"

    assert main(["conformance", "sim", "--json", str(path)]) == 0

    assert f"sim: {len(RULES)} of {len(RULES)} rules kept, 0 broken, 0 not judged" in capsys.readouterr().out
    report = json.loads(path.read_text(encoding="utf-8"))
    assert (report["backend"], report["result"], report["suite"]["name"]) == ("sim", "kept", "dtimer_conformance")
    assert list(report["rules"]) == list(RULES)
    assert report["features"] == sorted(feature.name for feature in SIM_FEATURES)


@asynccontextmanager
async def broken(namespace: str, clock: Callable[[], int] | None) -> AsyncGenerator[TimerBackend]:
    """A factory, as a user has one."""
    yield LateToCreate(namespace=namespace)


class LateToCreate(Changed):
    """Says of every post that it replaced something."""

    def change(self, operation: Operation[Any], reply: Applied[Any]) -> Any:
        return evolve(reply, value=(PostOutcome.REPLACED,) * len(reply.value)) if _creates(operation) else reply


def _creates(operation: Operation[Any]) -> bool:
    return isinstance(operation, op.Post) and all(isinstance(new, NewEvent) for new in operation.events)


def test_the_command_takes_a_factory_and_tells_by_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    broken.features = frozenset({Feature.ADVANCE})  # type: ignore[attr-defined]  # as the docs say

    assert main(["conformance", f"{__name__}:broken"]) == 1

    out = capsys.readouterr().out
    assert "rule P3 (Afterwards exactly one event has the id) is broken" in out
    assert re.search(r"^P3 .* broken ", out, re.MULTILINE)


@pytest.mark.parametrize(
    "name", ["nothing", "no.such.module:thing", "dtimer:NoSuchThing", "dtimer:__all__", "redis://[", "http://x"]
)
def test_what_is_no_target_is_an_error(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownTarget):
        find_target(name)
    assert main(["conformance", name]) == 2
    assert capsys.readouterr().err.startswith("dtimer conformance: ")


def test_a_server_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "redis://:secret@127.0.0.1:1/0"]) == 2

    printed = capsys.readouterr()
    assert "the store cannot be reached" in printed.err
    assert "secret" not in printed.err + printed.out


def test_a_suite_class_is_a_target() -> None:
    from conformance.test_sim import TestSim

    assert isinstance(find_target("conformance.test_sim:TestSim"), TestSim)
    assert isinstance(find_target("sim"), SimTarget)
