"""A run as lines of text."""

from __future__ import annotations

import pytest

from dtimer.sim.faulty.trace import Record
from dtimer.sim.scenario.options import Options
from dtimer.sim.scenario.runner import run_seed
from dtimer.sim.show.lines import clock, describe, lines

CLAIM: Record = {"t": 5, "who": "store", "what": "applied", "method": "claim", "from": "n1", "ids": [], "outcome": []}


def one(record: Record) -> str:
    (line,) = lines([record])
    return line


def test_lines_are_aligned_whoever_speaks_and_whenever() -> None:
    shown = list(
        lines(
            [
                {"t": 1, "who": "n1", "what": "paused"},
                {"t": 3_600_000_000 * 49, "who": "warehouse", "what": "resumed"},
            ]
        )
    )

    assert shown == [
        "      00:00.000001   n1         paused",
        "2d 01:00:00.000000   warehouse  resumed",
    ]


def test_faults_and_violations_are_marked() -> None:
    fault: Record = {"t": 0, "who": "world", "what": "fault", "fault": "pause", "node": "n1", "for_us": 2_000}
    over: Record = {"t": 0, "who": "world", "what": "fault_end", "fault": "pause", "node": "n1"}
    wrong: Record = {"t": 0, "who": "world", "what": "violation", "rules": "D2", "at": "n1", "id": "e", "text": "no!"}

    assert one(fault).endswith("* world  pause n1 for_us=2000")
    assert one(over).endswith("* world  pause n1 is over")
    assert one(wrong).endswith("! world  VIOLATION of D2 at n1, e: no!")


@pytest.mark.parametrize("what", ["call", "reply", "pulse"])
def test_what_the_store_tells_anyway_is_left_out_unless_asked_for(what: str) -> None:
    record: Record = {"t": 0, "who": "n1", "what": what, "method": "post", "ids": ["e"], "from": "n1"}

    assert not list(lines([record]))
    assert len(list(lines([record], everything=True))) == 1


def test_a_claim_is_left_out_if_nothing_came_of_it_at_all() -> None:
    assert not list(lines([{**CLAIM, "got": []}]))
    assert one({**CLAIM, "got": [["e", 2, 1]]}).endswith("claim of n1 takes e (delivery 2, retries 1)")
    assert one({**CLAIM, "got": [], "ids": ["e"], "outcome": ["confirmed"]}).endswith(
        "claim of n1 confirms e: confirmed takes nothing"
    )
    assert one({**CLAIM, "got": [], "extended": [["e", "stale"]]}).endswith(
        "claim of n1 extends e: stale takes nothing"
    )
    assert one({**CLAIM, "got": [], "ended": [["e", "expired"]]}).endswith("takes nothing e: expired")


def test_a_record_of_the_users_own_comes_with_its_fields() -> None:
    assert describe({"t": 0, "who": "n1", "what": "charged", "order": "o-7", "cents": 5}) == "charged order=o-7 cents=5"


def test_everything_that_a_storm_writes_can_be_said() -> None:
    """Nothing of the simulation's own is left as fields; and each record has a line."""
    run = run_seed(Options(nodes=3, hours=0.3), 2, keep=100_000).run
    shown = list(lines(run.trace, everything=True))
    bare = {record["what"] for record in run.trace if describe(record).startswith(f"{record['what']} ")}

    assert len(shown) == len(run.trace)
    assert {"applied", "call_failed", "announce", "handled", "down", "fault_end"} <= {r["what"] for r in run.trace}
    assert bare <= {"handler", "ended"}, "the first says so in words; the second is the application's own"


@pytest.mark.parametrize(
    ("time_us", "text"),
    [(0, "00:00.000000"), (61_000_001, "01:01.000001"), (3_600_000_000, "01:00:00.000000")],
)
def test_a_moment_is_told_in_full(time_us: int, text: str) -> None:
    assert clock(time_us) == text
