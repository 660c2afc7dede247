"""Whole clusters: what goes wrong has its effect on real nodes, and a run can be had again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from dtimer import DTimer, DTimerError
from dtimer.sim import Faults, Host, Run, SimStuck, Simulation, World
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
        world.crash(first[0])
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
            world.partition("n1", for_s=20)
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
