"""Whole clusters: what goes wrong has its effect on real nodes, and a run can be had again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Final, get_args

import pytest

from dtimer import BackendError, DTimer, DTimerError
from dtimer.sim import (
    BreakSubscription,
    Crash,
    Disconnect,
    FalseAnnouncement,
    Faults,
    Hold,
    Host,
    Latency,
    LoseCalls,
    Partition,
    Pause,
    Refuse,
    Restart,
    RestartStore,
    Run,
    SimStuck,
    Simulation,
    SpoilAnnouncements,
    StepClock,
    Stop,
    World,
)
from dtimer.sim.faulty.faults import KINDS
from dtimer.sim.faulty.link import Moment
from support.cluster import Shop
from support.digests import check_digests

STORM = Faults.everything(120)


async def storm(world: World) -> int:
    """Posts through everything that happens, then heals and drains; how many events are left over."""
    timer = DTimer(world.backend())
    for number in range(60):
        try:
            await timer.post({"n": number}, delay=number % 7 * 1_000, id=f"e{number}", max_retries=50)
        except DTimerError as error:
            world.note("post_failed", id=f"e{number}", error=type(error).__name__)
        await asyncio.sleep(3)
    world.heal()

    def drained() -> bool:
        inspection = world.inspect()
        return inspection is not None and inspection.live == 0 and len(inspection.ring) == len(world.nodes)

    await world.until(drained, within_s=300)
    return 0


def stormy(seed: int, faults: Faults = STORM) -> Run[int]:
    simulation = Simulation(seed=seed, nodes=3, faults=faults)
    Shop(simulation)
    return simulation.run(storm)


async def test_an_ordinary_loop_has_nothing_to_do_with_it() -> None:
    """A simulation is started outside of any loop."""
    simulation = Simulation()

    async def nothing(world: World) -> None: ...

    with pytest.raises(RuntimeError, match="event loop"):
        simulation.run(nothing)


def test_another_node_takes_over_from_one_that_died() -> None:
    """The reason for it all."""
    simulation = Simulation(seed=3, nodes=2)
    first: list[str] = []

    @simulation.node
    async def program(host: Host) -> None:
        timer = DTimer(host.backend(), node_id=host.name)

        @timer.on("event")
        async def handle(event: object) -> None:
            first.append(host.name)
            if len(first) == 1:
                await asyncio.sleep(60)
            async with event:  # type: ignore[attr-defined]
                pass

        async with timer:
            await host.forever()

    async def scenario(world: World) -> int | None:
        timer = DTimer(world.backend())
        await timer.post({}, delay=1_000, max_retries=1, confirm_timeout=5)
        await world.until(lambda: first)
        world.inject(Crash(first[0]))
        await world.until(lambda: len(first) == 2, within_s=6.1)
        await asyncio.sleep(1)
        inspection = world.inspect()
        return None if inspection is None else inspection.live

    run = simulation.run(scenario)

    assert run.result == 0
    assert set(first) == {"n1", "n2"}
    assert (run.counts["retries"], run.counts["takeovers"]) == (1, 1)


@pytest.mark.parametrize("seed", range(4))
def test_after_a_storm_everything_drains(seed: int) -> None:
    """Every kind of fault, then none: each node is a member again, and nothing is left over."""
    run = stormy(seed)

    assert run.result == 0
    assert run.counts["faults"] > 0


def test_one_seed_is_one_run() -> None:
    assert stormy(5).digest == stormy(5).digest != stormy(6).digest


FAULTS: Final = {
    "crash": Crash("n1"),
    "stop": Stop("n1"),
    "restart": Restart("n1"),
    "pause": Pause("n1"),
    "partition": Partition("n1"),
    "hold": Hold("n1"),
    "latency": Latency("n1", 1, 2),
    "lose_calls": LoseCalls("n1", count=1_000),
    "disconnect": Disconnect("n1"),
    "spoil_announcements": SpoilAnnouncements("n1"),
    "false_announcement": FalseAnnouncement("n1", "pulse"),
    "break_subscription": BreakSubscription("n1"),
    "restart_store": RestartStore(down_s=60),
    "refuse": Refuse("busy"),
    "step_clock": StepClock(1),
}
MOMENTARY: Final = {"restart", "disconnect", "false_announcement", "break_subscription", "step_clock"}
PLAIN: Final = {"crash", "stop", "pause", "partition", "hold", "latency", "lose_calls", "restart_store", "refuse"}
"""While one of these lasts, a cluster of one node handles nothing in less than a second."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["block", "end", "heal"])
def test_a_fault_ends_with_its_block_by_its_handle_or_when_all_is_healed(kind: str, how: str) -> None:
    """Whatever it is, it is injected in one way and ended in one way, and afterwards all is as before."""
    simulation = Simulation(seed=1, nodes=1)
    shop = Shop(simulation)

    async def handled(timer: DTimer, world: World, within_s: float) -> bool:
        before = len(shop.handled)
        try:
            await timer.post({}, delay=0, max_retries=9, confirm_timeout=1, repeat_within=0)
            await world.until(lambda: len(shop.handled) > before, within_s=within_s)
        except (TimeoutError, BackendError):
            return False
        return True

    async def scenario(world: World) -> tuple[bool, bool]:
        timer = DTimer(world.backend())
        await asyncio.sleep(3)
        with world.inject(FAULTS[kind]) if how == "block" else nullcontext(world.inject(FAULTS[kind])) as fault:
            assert fault
            during = await handled(timer, world, 0.9)
        if how == "end":
            fault.end()
            fault.end()
        elif how == "heal":
            world.heal()
        await asyncio.sleep(12)
        return during, await handled(timer, world, 1.2)

    run = simulation.run(scenario)

    during, after = run.result
    assert after
    assert not (during and kind in PLAIN)
    ends = [record for record in run.trace if record["what"] == "fault_end"]
    assert len(ends) == (kind not in MOMENTARY and how != "heal")


def test_a_crash_that_is_over_before_its_moment_does_not_come() -> None:
    simulation = Simulation(seed=1, nodes=1)
    shop = Shop(simulation)

    async def scenario(world: World) -> None:
        timer = DTimer(world.backend())
        await asyncio.sleep(2)
        for moment in get_args(Moment)[1:]:
            with world.inject(Crash("n1", at=moment, count=1_000)):
                pass
        for number in range(1_000):
            await timer.post({}, delay=0, id=f"e{number}")
            await world.until(lambda: len(shop.handled) > number)  # noqa: B023

    assert not [record for record in simulation.run(scenario).trace if record["what"] == "down"]


def test_what_changes_nothing_is_no_fault() -> None:
    """Neither counted nor recorded: the crash of what is down, for instance."""
    simulation = Simulation(nodes=1)

    async def scenario(world: World) -> None:
        for fault in (Crash("n1"), Stop("n1"), Pause("n1"), Disconnect("n1"), BreakSubscription("n1")):
            with world.inject(fault) as injected:
                assert not injected
        world.inject(RestartStore(down_s=10))
        assert not world.inject(RestartStore())

    assert simulation.run(scenario).counts["faults"] == 1


@pytest.mark.parametrize("seed", range(4))
def test_the_script_of_a_run_makes_the_same_run(seed: int) -> None:
    """So a failure can be stored as what happened, and shortened."""
    drawn = stormy(seed)

    scripted = stormy(seed, Faults.from_json(Faults(script=drawn.script).to_json()))

    assert drawn.script
    assert scripted.digest == drawn.digest
    assert scripted.script == drawn.script


def test_a_kind_that_is_left_out_changes_no_other() -> None:
    """Draws are keyed: faults can be taken away one kind at a time."""
    faults = Faults(rates={"crash": 60, "partition": 60, "step_clock": 60}, until_s=600)
    fewer = Faults(rates={"partition": 60, "step_clock": 60}, until_s=600)

    def partitions(faults: Faults) -> list[tuple[float, object]]:
        return [(at_s, fault) for at_s, fault in stormy(1, faults).script if fault.kind == "partition"]

    assert partitions(faults) == partitions(fewer) != []


def test_the_same_trace_comes_out_of_other_processes_whatever_their_hashes() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from sim.faulty.test_simulation import stormy\n"
        "print(stormy(int(sys.argv[2])).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parents[2]), "2"],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hash_seed in ("0", "1", "random")
    }

    assert digests == {stormy(2).digest}


def test_the_same_trace_comes_out_of_every_python() -> None:
    """One file for all versions, each of which runs this test; `make digests` writes it anew."""
    check_digests(Path(__file__).with_name("digests.json"), {seed: stormy(seed).digest for seed in range(6)})


def test_a_run_without_a_trace_is_the_same_run() -> None:
    simulation = Simulation(seed=4, nodes=3, faults=STORM, record=False)
    Shop(simulation)

    run = simulation.run(storm)

    assert run.trace == ()
    assert run.counts == stormy(4).counts


class TestWhatIsRaised:
    def test_by_the_scenario(self) -> None:
        simulation = Simulation()

        async def scenario(world: World) -> None:
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            simulation.run(scenario)

    def test_by_a_program(self) -> None:
        """Its author's mistake ends the run, and says where it was made."""
        simulation = Simulation(nodes=1)

        @simulation.node
        async def program(host: Host) -> None:
            await asyncio.sleep(2)
            raise KeyError("mine")

        async def scenario(world: World) -> None:
            await asyncio.sleep(10)

        with pytest.raises(KeyError) as raised:
            simulation.run(scenario)

        assert raised.value.__notes__ == ["raised by the program of 'n1' at 2.000000 s"]

    def test_a_program_that_cannot_reach_its_store_is_started_again(self) -> None:
        simulation = Simulation(nodes=1)
        shop = Shop(simulation)

        async def scenario(world: World) -> int:
            timer = DTimer(world.backend())
            world.inject(Partition("n1", for_s=20))
            await timer.post({}, delay=1_000, id="e", max_retries=1)
            await asyncio.sleep(40)
            return world.host("n1").incarnation

        run = simulation.run(scenario)

        assert run.result > 1
        assert [(node, id) for node, id, _ in shop.handled] == [("n1", "e")]

    def test_when_nothing_can_ever_happen(self) -> None:
        simulation = Simulation(nodes=0)

        async def scenario(world: World) -> None:
            await asyncio.get_running_loop().create_future()

        with pytest.raises(SimStuck, match="the scenario"):
            simulation.run(scenario)
