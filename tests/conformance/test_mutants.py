"""The net holds: for every rule there is a break of correct code that its scenarios catch."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtimer.cli.targets import RedisTarget
from dtimer_conformance.rules import RULES
from dtimer_conformance.scenario import SCENARIOS
from support.breaking import BrokenSimTarget, broken_scripts, first_failure_in_a_process_of_its_own
from support.judge import first_failure
from support.mutants import MUTANTS, Kind, Mutant
from support.servers import running, server_binaries

pytestmark = pytest.mark.once


def of(kind: Kind) -> pytest.MarkDecorator:
    mutants = [mutant for mutant in MUTANTS if mutant.kind is kind]
    return pytest.mark.parametrize("mutant", mutants, ids=lambda mutant: f"{mutant.rule}-{mutant.name}")


@of(Kind.MACHINE)
def test_a_broken_machine_is_caught_by_its_rule(mutant: Mutant) -> None:
    """Others may catch it too; the one named for the rule must."""
    assert first_failure(mutant.rule, BrokenSimTarget(mutant))


@of(Kind.LUA)
def test_a_broken_script_is_caught_by_its_rule(mutant: Mutant, tmp_path: Path) -> None:
    """On one real server: they do not differ in this."""
    with running(server_binaries()[0]) as server, broken_scripts(mutant, tmp_path):
        assert first_failure(mutant.rule, RedisTarget(server.url))


@of(Kind.NODE)
def test_a_broken_client_is_caught_by_its_rule(mutant: Mutant) -> None:
    """With a sound store."""
    assert first_failure_in_a_process_of_its_own(mutant)


def test_rules_scenarios_and_mutants_agree() -> None:
    """A rule without a scenario is a wish, and one without a mutant an untested test."""
    assert {scenario.rule for scenario in SCENARIOS.values()} == set(RULES)
    assert {mutant.rule for mutant in MUTANTS} == set(RULES)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.rule}-{mutant.name}")
def test_every_mutant_is_up_to_date(mutant: Mutant) -> None:
    """One that breaks nothing any more would prove nothing."""
    compile(mutant.source(), mutant.file, "exec") if mutant.file.endswith(".py") else mutant.source()
