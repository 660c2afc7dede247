"""Faults as values: checked when they are made, the same after JSON, and drawn from where they should be."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

import pytest

from dtimer.errors import InvalidArgument
from dtimer.sim import Crash, Fault, Faults, Pause, Rate, RestartStore, Simulation, StepClock
from dtimer.sim.faulty.fault_schedule import script_from_json, script_to_json
from dtimer.sim.faulty.faults import KINDS, USUAL, NodeFault
from dtimer.sim.rng import Rng


def drawn(kind: str, seed: int) -> Fault:
    fault = KINDS[kind]
    given = {"node": "n1"} if issubclass(fault, NodeFault) else {}
    return fault.drawn(lambda name: Rng(seed, kind, name).fraction(), {}, **given)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_is_the_same_after_json(kind: str) -> None:
    for seed in range(50):
        script = [(seed / 7, drawn(kind, seed))]
        again = script_from_json(script_to_json(script))

        assert [fault for _, fault in again] == [fault for _, fault in script]
        assert again[0][0] == pytest.approx(seed / 7, abs=1e-6)


@pytest.mark.parametrize("kind", USUAL)
def test_draws_differ(kind: str) -> None:
    """A draw that always came out the same would try one thing only."""
    if KINDS[kind].choices:
        assert len({repr(drawn(kind, seed)) for seed in range(20)}) > 1


def test_drawn_times_lie_in_their_ranges() -> None:
    for seed in range(200):
        pause = drawn("pause", seed)
        step = drawn("step_clock", seed)
        assert isinstance(pause, Pause)
        assert isinstance(step, StepClock)
        assert 0.02 <= (pause.for_s or 0) <= 25
        assert -5 <= step.by_s <= 5


def test_times_are_seconds_or_durations_to_the_microsecond() -> None:
    assert Pause("n1", for_s=timedelta(milliseconds=1_500)) == Pause("n1", for_s=1.5)
    assert StepClock(by_s=0.1234567891) == StepClock(by_s=0.123457)


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "pause", "node": "n1", "for_s": -1},
        {"fault": "pause", "node": "n1", "for_s": math.nan},
        {"fault": "pause", "node": "n1", "for_s": "1"},
        {"fault": "crash", "node": "n1", "at": "later"},
        {"fault": "crash", "node": "n1", "count": 0},
        {"fault": "partition", "node": "n1", "direction": "up"},
        {"fault": "latency", "node": "n1", "min_s": 2, "max_s": 1},
        {"fault": "spoil_announcements", "node": "n1", "share": 0},
        {"fault": "refuse", "how": "politely"},
        {"fault": "restart_store", "lose_s": 11},
        {"fault": "restart_store", "lose_s": "everything"},
    ],
)
def test_a_nonsensical_fault_is_refused_when_it_is_made(fault: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        script_from_json([{"at_s": 1, **fault}])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Faults(rates={"nonsense": 1}),
        lambda: Faults(rates={"crash": -1}),
        lambda: Faults(script=[(-1, Crash("n1"))]),
        lambda: Faults.from_json("[]"),
        lambda: Faults.from_json("{"),
        lambda: Faults.from_json('{"script": [{"at_s": 1, "fault": "nonsense"}]}'),
        lambda: Faults.from_json('{"script": [{"at_s": 1, "fault": "crash", "nude": "n1"}]}'),
        lambda: Faults.from_json('{"speed": 1}'),
        lambda: Simulation(nodes=["a", "a"]),
        lambda: Simulation(nodes=["store"]),
        lambda: Simulation(nodes=["a b"]),
    ],
)
def test_nonsense_is_refused_before_anything_runs(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidArgument):
        make()


def test_a_script_that_names_nobody_is_refused() -> None:
    simulation = Simulation(nodes=1, faults=Faults(script=[(1, Crash("n2"))]))

    async def scenario(world: object) -> None: ...

    with pytest.raises(InvalidArgument, match="n1, client"):
        simulation.run(scenario)


def test_all_of_it_has_a_form_in_json() -> None:
    faults = Faults(
        script=[(3.5, Crash("n1", down_s=2)), (4, RestartStore(lose_s="all"))],
        rates={"pause": 2.5, "crash": Rate(1.0, {"down_s": (1.0, 2.0), "at": ("now", "sent")})},
        until_s=600,
        swarm=True,
    )

    assert Faults.from_json(faults.to_json()) == faults
