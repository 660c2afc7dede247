"""A seed is a case, and a case is a run: the same one, wherever it is run again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dtimer.errors import InvalidArgument
from dtimer.sim.faulty.fault_schedule import Faults
from dtimer.sim.faulty.faults import Crash
from dtimer.sim.scenario.campaign import report_of
from dtimer.sim.scenario.case import Case
from dtimer.sim.scenario.options import Options
from dtimer.sim.scenario.runner import run_case, run_seed
from dtimer.sim.scenario.steps import PostStep
from support.digests import check_digests

SMALL = Options(nodes=2, hours=0.1, rate=600, faults=Faults.everything(120))


@pytest.mark.parametrize("seed", range(3))
def test_a_case_is_the_same_run_again_from_its_json(seed: int) -> None:
    """Spelled out: with its calls and the faults that really were."""
    first = run_seed(SMALL, seed)

    again = run_case(Case.from_json(first.case.to_json()))

    assert first.case.options.faults.script
    assert not first.case.options.faults.rates
    assert again.run.digest == first.run.digest
    assert again.case == first.case


def test_a_case_is_the_same_run_in_another_process_whatever_its_hashes() -> None:
    outcome = run_seed(SMALL, 1)
    code = (
        "import sys\n"
        "from dtimer.sim.scenario.case import Case\n"
        "from dtimer.sim.scenario.runner import run_case\n"
        "print(run_case(Case.from_json(sys.stdin.read())).run.digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=outcome.case.to_json(),
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hash_seed in ("0", "random")
    }

    assert digests == {outcome.run.digest}


def test_every_python_makes_the_same_runs() -> None:
    """One file for all versions, which `make digests` writes anew."""
    options = Options(nodes=3, hours=0.1, rate=600, faults=Faults.everything(120))
    check_digests(
        Path(__file__).with_name("digests.json"),
        {seed: run_seed(options, seed, keep=0).run.digest for seed in range(4)},
    )


def test_the_checkers_and_the_trace_change_nothing() -> None:
    first = run_seed(SMALL, 2)

    assert run_seed(SMALL, 2, record=False).run.counts == first.run.counts
    assert run_seed(SMALL, 2, checked=False).run.digest == first.run.digest


@pytest.mark.parametrize(
    "options",
    [
        Options(nodes=2, hours=0.1, rate=600, faults=Faults()),
        Options(nodes=2, hours=0.1, rate=0, faults=Faults.everything(60)),
    ],
    ids=["nothing went wrong", "nothing came again"],
)
def test_a_run_that_shows_nothing_is_not_counted(options: Options) -> None:
    quiet = report_of(run_case(Case(seed=1, options=options, steps=())))

    assert not quiet.violations
    assert not quiet.counted
    assert report_of(run_seed(SMALL, 1)).counted


def test_an_event_that_its_node_took_to_the_grave_is_a_retry() -> None:
    options = Options(nodes=2, hours=0.01, rate=0, faults=Faults(script=[(5.0, Crash("n1")), (5.0, Crash("n2"))]))
    steps = tuple(PostStep(4.5, f"e{number}", number, max_retries=3) for number in range(20))

    report = report_of(run_case(Case(seed=3, options=options, steps=steps)))

    assert not report.violations
    assert report.counted
    assert report.counts["retries"] > 0


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"dtimer_case": 1}', '{"dtimer_case": 2, "seed": 1}'])
def test_what_is_no_case_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        Case.from_json(text)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"call": "post", "at_s": "soon", "id": "e", "number": 1}, "whose at_s is 'soon'"),
        ({"call": "post", "at_s": float("nan"), "id": "e", "number": 1}, "whose at_s is nan"),
        ({"call": "post", "at_s": 1, "id": 7, "number": 1}, "whose id is 7"),
        ({"call": "post", "at_s": 1, "id": "e", "number": True}, "whose number is True"),
        ({"call": "post", "at_s": 1, "id": "e", "number": 1, "if_exists": "burn"}, "whose if_exists is 'burn'"),
        ({"call": "post", "at_s": 1, "id": "e", "number": 1, "dead_letter": 1}, "whose dead_letter is 1"),
        ({"call": "post", "at_s": 1, "id": "e", "number": 1, "color": "red"}, "color"),
        ({"call": "shout", "at_s": 1}, "shout"),
        ({"at_s": 1}, "call"),
        ("post", "post"),
    ],
)
def test_a_call_that_is_none_is_refused_before_anything_runs(wrong: object, said: str) -> None:
    good = json.loads(Case.of(Options(hours=0.01), 1).to_json())
    good["steps"] = [{"call": "post", "at_s": 1, "id": "e", "number": 1, "retry_ms": None}]
    assert Case.from_json(json.dumps(good)).steps[0].to_json()["retry_ms"] is None

    with pytest.raises(InvalidArgument, match=re.escape(said) if said != "post" else "steps"):
        Case.from_json(json.dumps(good | {"steps": [wrong]}))
