"""The conformance suite itself: it has a scenario for every rule, none can be dropped, and its reports are true."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dtimer import SimBackend
from dtimer.cli import main
from dtimer.cli.targets import SIM_FEATURES, SimTarget, UnknownTarget, find_target
from dtimer_conformance import BackendSuite, Feature, expected_failure
from dtimer_conformance.report import BROKEN, KEPT, NOT_JUDGED, Report
from dtimer_conformance.rules import RULES
from dtimer_conformance.runner import Result, ScenarioRunner, Status
from dtimer_conformance.scenario import SCENARIOS, Scenario
from support.broken import A_SCENARIO, Target, Unwritten, broken

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]


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

from dtimer import SimBackend
from dtimer_conformance import BackendSuite, Feature, expected_failure
from support.broken import LateToCreate


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


# --- features and reports -----------------------------------------------------------------------------------------


def test_without_a_feature_a_test_is_skipped_in_words() -> None:
    target = Target(SimBackend, frozenset())
    court = ScenarioRunner()

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


def test_the_command_takes_a_factory_and_tells_by_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    broken.features = frozenset({Feature.ADVANCE})  # type: ignore[attr-defined]  # as the docs say

    assert main(["conformance", "support.broken:broken"]) == 1

    out = capsys.readouterr().out
    assert "rule P3 (Afterwards exactly one event has the id) is broken" in out
    assert re.search(r"^P3 .* broken ", out, re.MULTILINE)


@pytest.mark.parametrize(
    "name",
    [
        "nothing",
        "no.such.module:thing",
        "dtimer:NoSuchThing",
        "dtimer:__all__",
        "redis://[",
        "http://x",
        ":",
        ".:x",
        "..a:x",
        "not_python:x",
        "raises:x",
        "exits:x",
    ],
)
def test_what_is_no_target_is_an_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its module does while it is imported."""
    for module, source in (("not_python", "def (:"), ("raises", "raise KeyError"), ("exits", "raise SystemExit(0)")):
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownTarget):
        find_target(name)
    assert main(["conformance", name]) == 2
    assert capsys.readouterr().err.startswith("dtimer conformance: ")


@pytest.mark.parametrize("path", ["nowhere/report.json", "."])
def test_a_report_that_cannot_be_written_is_an_error_before_anything_runs(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["conformance", "sim", "--json", path]) == 2

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"dtimer conformance: {path} cannot be written")


def test_a_server_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["conformance", "redis://:secret@127.0.0.1:1/0"]) == 2

    printed = capsys.readouterr()
    assert "the store cannot be reached" in printed.err
    assert "secret" not in printed.err + printed.out


def test_a_suite_class_is_a_target() -> None:
    assert isinstance(find_target("support.broken:Unwritten"), Unwritten)
    assert isinstance(find_target("sim"), SimTarget)
