"""What the simulator found in the library, each as the shortest scenario that showed it."""

from __future__ import annotations

import asyncio

from dtimer import DTimer
from dtimer.sim import Simulation, StepClock, World
from support.cluster import Shop


def test_a_clock_that_is_set_back_makes_no_node_claim_without_a_pause() -> None:
    """T1: the time from the last operation to the step is gone, and a node that does not see that is too early.

    Its claim was told when to come, which by its own reckoning was now, and so on, some 1,500 times a second.
    """
    simulation = Simulation(nodes=1)
    shop = Shop(simulation)

    async def scenario(world: World) -> int:
        timer = DTimer(world.backend())
        await asyncio.sleep(10)
        await timer.post({}, delay=5_000, id="e")
        await asyncio.sleep(0.5)
        world.inject(StepClock(-3))
        before = world.counts["claims"]
        await asyncio.sleep(10)
        return world.counts["claims"] - before

    run = simulation.run(scenario)

    assert [id for _, id, _ in shop.handled] == ["e"]
    assert run.result < 30
