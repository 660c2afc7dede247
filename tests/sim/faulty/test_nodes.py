"""What faults do to real nodes: which promises they keep, and how soon they are back."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from random import Random

import pytest

from dtimer import (
    BackendError,
    Counters,
    DTimer,
    DTimerError,
    MalformedWakeup,
    NodeDisturbed,
    StoreClockLeapt,
    StoreClockStepped,
    StoreLostWrites,
)
from dtimer.protocol.values import RingMember
from dtimer.sim import (
    BreakSubscription,
    Crash,
    FalseAnnouncement,
    Faults,
    Hold,
    Host,
    Latency,
    LoseCalls,
    Partition,
    Pause,
    Refuse,
    RestartStore,
    Run,
    Simulation,
    SpoilAnnouncements,
    StepClock,
    Stop,
    World,
)
from dtimer.sim.faulty.faults import MOMENTS
from support.cluster import Shop

IDS = ("e", "f", "g", "h")


async def drained(world: World, within_s: float = 60) -> None:
    def empty() -> bool:
        inspection = world.inspect()
        return inspection is not None and inspection.live == 0

    await world.until(empty, within_s=within_s)


def posted(simulation: Simulation, faults: Faults, *, max_retries: int = 5) -> tuple[Run[None], Shop]:
    """A few events for two nodes, through faults."""
    simulation.faults = faults
    shop = Shop(simulation)
    timeout = 2 if max_retries else None

    async def scenario(world: World) -> None:
        timer = DTimer(world.backend())
        for number, id in enumerate(IDS):
            await timer.post({}, delay=200 * number + 100, id=id, max_retries=max_retries, confirm_timeout=timeout)
        await drained(world)

    return simulation.run(scenario), shop


def crashed_at(moment: str, count: int) -> tuple[Run[None], Shop]:
    return posted(Simulation(seed=7, nodes=2), Faults(script=[(0, Crash("n1", 1.0, moment, count))]))  # type: ignore[arg-type]


def test_nodes_do_not_look_by_themselves_until_something_goes_wrong() -> None:
    """Rule W1: before the first fault a node only shows that it lives; from then on the pulse insures it."""
    simulation = Simulation(nodes=3)
    shop = Shop(simulation)

    async def scenario(world: World) -> None:
        timer = DTimer(world.backend())
        await timer.post({}, delay=3_600_000)
        await asyncio.sleep(600)
        assert 3 * 60 <= sum(counters(shop, name).claims for name in simulation.nodes) < 3 * 70
        assert not any(counters(shop, name).pulses_heard for name in simulation.nodes)
        assert world.inject(SpoilAnnouncements("n1"))
        heard = {name: counters(shop, name).pulses_heard for name in simulation.nodes}
        await asyncio.sleep(60)
        for name in ("n2", "n3"):
            assert counters(shop, name).pulses_heard - heard[name] > 60

    simulation.run(scenario)


def test_an_event_whose_node_has_ended_waits_for_no_sign_of_life() -> None:
    """Rules D7 and W1: nothing is wrong with announcements, but the armed node claims no more, and has not left."""
    simulation = Simulation(nodes=3)
    ended = {name: asyncio.Event() for name in simulation.nodes}
    came_s: list[float] = []

    @simulation.node
    async def program(host: Host) -> None:
        timer = DTimer(host.backend(), node_id=host.name)
        timer.on("event", lambda event: came_s.append(asyncio.get_running_loop().time()))
        async with timer:
            await ended[host.name].wait()
            for task in asyncio.all_tasks():
                if task.get_name().startswith("dtimer: node"):
                    task.cancel()
            await host.forever()

    async def scenario(world: World) -> None:
        timer = DTimer(world.backend())
        for number in range(1, 3):
            await asyncio.sleep(1)
            begun_s = asyncio.get_running_loop().time()
            await timer.post({}, delay=2_000)
            inspection = world.inspect()
            assert inspection is not None
            assert inspection.arm is not None
            ended[inspection.arm.node].set()
            await asyncio.sleep(8)
            assert len(came_s) == number
            assert 2.05 < came_s[-1] - begun_s < 3

    simulation.run(scenario)


def test_a_node_may_die_before_any_of_its_steps() -> None:
    """Exhaustively: from its start until it has nothing to do any more; each time all events are handled in the end."""
    outcomes: Counter[tuple[int, int]] = Counter()
    for step in range(1, 1_000):
        run, shop = crashed_at("step", step)
        downs = [record for record in run.trace if record["what"] == "down"]
        if not downs:
            break
        assert {id for _, id, _ in shop.handled} == set(IDS)
        outcomes[len(shop.handled), run.counts.get("retries", 0)] += 1
    else:
        pytest.fail("it never came to an end")

    assert step > 30
    assert outcomes[4, 1], f"it never died with an event in hand: {outcomes}"
    assert outcomes[5, 1], f"it never died with an event handled and not confirmed: {outcomes}"


@pytest.mark.parametrize("moment", MOMENTS[2:])
def test_a_node_may_die_at_any_of_its_calls(moment: str) -> None:
    """Before it is sent, after, with the reply unread, and with an event handled of which nobody knows."""
    for count in range(1, 100):
        run, shop = crashed_at(moment, count)
        assert {id for _, id, _ in shop.handled} == set(IDS)
        if all(record["what"] != "down" for record in run.trace):
            break
    else:
        pytest.fail("it never came to an end")

    assert count > (1 if moment == "handled" else 4)


def test_what_is_not_tracked_is_lost_with_its_node_at_most_once() -> None:
    """Nobody gets it twice, whenever the node dies."""
    for count in range(1, 12):
        _, shop = posted(
            Simulation(seed=7, nodes=2), Faults(script=[(0, Crash("n1", 1.0, "reply", count))]), max_retries=0
        )
        ids = [id for _, id, _ in shop.handled]
        assert len(ids) == len(set(ids))


def counters(shop: Shop, node: str) -> Counters:
    return shop.timers[node].counters


class TestAnnouncements:
    @pytest.mark.parametrize("seed", range(5))
    def test_without_any_an_event_is_late_by_a_second_at_most(self, seed: int) -> None:
        """D7, W1."""
        simulation = Simulation(seed=seed, nodes=2)
        shop = Shop(simulation)

        async def scenario(world: World) -> None:
            timer = DTimer(world.backend())
            await asyncio.sleep(5)
            for node in world.nodes:
                world.inject(SpoilAnnouncements(node, "lose"))
            for number in range(20):
                await timer.post({}, delay=100, id=f"e{number}")
                await world.until(lambda: len(shop.handled) == number + 1, within_s=1.11)  # noqa: B023

        run = simulation.run(scenario)

        assert run.counts["announcements_lost"] > 0

    def test_late_repeated_and_forged_ones_do_no_harm(self) -> None:
        """W3: who comes in vain is told when to come."""
        simulation = Simulation(seed=1, nodes=2)
        shop = Shop(simulation)

        async def scenario(world: World) -> None:
            timer = DTimer(world.backend())
            world.inject(SpoilAnnouncements("n1", "delay", 2.0, share=0.5))
            world.inject(SpoilAnnouncements("n2", "repeat", 0.5))
            await asyncio.sleep(1)
            for number in range(50):
                await timer.post({}, delay=100, id=f"e{number}")
                world.inject(FalseAnnouncement("n1", due_s=-1, ahead=10**9))
                world.inject(FalseAnnouncement("n2", due_s=10, ahead=10**9))
                world.inject(FalseAnnouncement("n1", "pulse"))
                await world.until(lambda: len(shop.handled) == number + 1, within_s=1.2)  # noqa: B023
            assert world.counts["claims"] < 1_000

        run = simulation.run(scenario)

        assert run.counts["announcements_repeated"] > 0
        assert run.counts["announcements_late"] > 0
        assert run.counts["announcements_heard"] > 0

    def test_garbage_is_counted_and_reported(self) -> None:
        simulation = Simulation(nodes=1)
        shop = Shop(simulation)

        async def scenario(world: World) -> None:
            await asyncio.sleep(1)
            world.inject(FalseAnnouncement("n1", "garbage"))
            await asyncio.sleep(1)

        simulation.run(scenario)

        assert [type(error) for _, error in shop.errors] == [MalformedWakeup]
        assert counters(shop, "n1").malformed_wakeups == 1

    def test_a_silently_dead_subscription_is_found_out(self) -> None:
        """W1: who does not hear its own pulse subscribes anew."""
        simulation = Simulation(nodes=1)
        shop = Shop(simulation)

        async def scenario(world: World) -> None:
            timer = DTimer(world.backend())
            await asyncio.sleep(2)
            assert world.inject(BreakSubscription("n1", "silence"))
            await asyncio.sleep(3)
            assert world.inspect() is not None
            begun_us = world.now_us
            await timer.post({}, delay=10, id="e")
            await world.until(lambda: shop.handled, within_s=1, every_s=0.001)
            assert world.now_us - begun_us < 20_000, "it was told"

        simulation.run(scenario)

    def test_a_subscription_that_breaks_is_made_anew(self) -> None:
        simulation = Simulation(nodes=1)
        shop = Shop(simulation)

        async def scenario(world: World) -> None:
            await asyncio.sleep(2)
            assert world.inject(BreakSubscription("n1"))
            await asyncio.sleep(2)

        simulation.run(scenario)

        assert counters(shop, "n1").failed_subscriptions == 1
        assert counters(shop, "n1").reconnects == 1
        assert [type(error) for _, error in shop.errors] == [NodeDisturbed]


class TestTheStore:
    @pytest.mark.parametrize("lose_s", [0.0, 0.5, "all"])
    def test_a_restart_brings_every_node_back(self, lose_s: float | str) -> None:
        """L3 in the words of users: nobody has to help."""
        simulation = Simulation(nodes=3)
        shop = Shop(simulation)

        async def scenario(world: World) -> None:
            timer = DTimer(world.backend())
            await asyncio.sleep(2)
            await timer.post({}, delay=10)
            await asyncio.sleep(0.1)
            shop.handled.clear()
            world.inject(RestartStore(lose_s=lose_s, down_s=2, loading_s=1))  # type: ignore[arg-type]
            await asyncio.sleep(8)
            inspection = world.inspect()
            assert inspection is not None
            assert {member.node for member in inspection.ring} == {"n1", "n2", "n3"}
            await timer.post({}, delay=100)
            await world.until(lambda: shop.handled, within_s=0.2)

        simulation.run(scenario)

        lost = [type(error) for _, error in shop.errors].count(StoreLostWrites)
        assert (lost > 0) == (lose_s != 0.0)

    @pytest.mark.parametrize("seed", range(30))
    def test_each_lost_call_is_told_to_the_one_who_made_it_and_no_other(self, seed: int) -> None:
        """O2: posters and nodes at work, and servers that come back or fail over, having lost much, little or nothing:
        what is told as lost is what is not there, post by post and poster by poster."""
        simulation = Simulation(nodes=2, seed=seed)
        Shop(simulation)
        rng = Random(seed)

        async def scenario(world: World) -> None:
            posters = [DTimer(world.backend(), node_id=f"p{number}") for number in range(3)]
            posted: list[list[str]] = [[] for _ in posters]
            told: list[list[DTimerError]] = [[] for _ in posters]

            async def post(place: int) -> None:
                with suppress(BackendError):
                    posted[place].append(await posters[place].post({}, 10**8, repeat_within=30))

            async def work(place: int) -> None:
                while True:
                    await post(place)
                    await asyncio.sleep(rng.uniform(0.01, 0.5))

            for place, poster in enumerate(posters):
                poster.on("error", told[place].append)
            workers = [asyncio.create_task(work(place)) for place in range(len(posters))]
            for _ in range(4):
                await asyncio.sleep(rng.uniform(0.5, 5))
                lose_s, down_s = rng.choice((0, 0, 0.02, 0.3, 2)), rng.uniform(0.01, 2)
                if rng.random() < 0.5:
                    world.inject(RestartStore(lose_s=lose_s, down_s=down_s, loading_s=rng.choice((0, 1))))
                else:
                    world.inject(RestartStore(lose_s=lose_s, down_s=down_s, clock_by_s=rng.uniform(-0.5, 0.5)))
                await asyncio.sleep(rng.choice((0, 0, down_s)))
            await asyncio.sleep(40)
            for worker in workers:
                worker.cancel()
            for place in range(len(posters)):
                await post(place)
            there = {entry.id for entry in await posters[0].upcoming()}

            for ids, reports in zip(posted, told, strict=True):
                calls = [call for report in reports if isinstance(report, StoreLostWrites) for call in report.calls]
                assert sorted(id for call in calls for id in call.ids) == sorted(set(ids) - there)
                assert len(reports) <= 4

        simulation.run(scenario)

    def test_acknowledged_writes_of_the_last_moments_are_gone(self) -> None:
        """What the journal takes away, and no more."""
        simulation = Simulation(nodes=0)

        async def scenario(world: World) -> list[str]:
            timer = DTimer(world.backend())
            for number in range(10):
                await timer.post({}, delay=10**6, id=f"e{number}")
                await asyncio.sleep(0.1)
            world.inject(RestartStore(lose_s=0.45, down_s=0.01))
            await asyncio.sleep(1)
            return [upcoming.id for upcoming in await timer.upcoming()]

        assert simulation.run(scenario).result == ["e0", "e1", "e2", "e3", "e4", "e5"]

    def test_a_clock_that_goes_forward_makes_events_early_and_one_that_goes_back_is_reported(self) -> None:
        """T2."""
        simulation = Simulation(nodes=1)
        shop = Shop(simulation)

        async def scenario(world: World) -> None:
            timer = DTimer(world.backend())
            await asyncio.sleep(1)
            await timer.post({}, delay=100_000, id="e")
            world.inject(StepClock(timedelta(seconds=90)))
            await world.until(lambda: shop.handled, within_s=11)
            world.inject(StepClock(-3_600))
            await timer.post({}, delay=5_000, id="f")
            await world.until(lambda: len(shop.handled) == 2, within_s=7)

        simulation.run(scenario)

        assert [type(error) for _, error in shop.errors] == [StoreClockLeapt, StoreClockStepped]

    def test_a_failover_loses_and_has_a_clock_of_its_own(self) -> None:
        simulation = Simulation(nodes=0)

        async def scenario(world: World) -> tuple[list[str], int]:
            timer = DTimer(world.backend())
            await timer.post({}, delay=timedelta(seconds=1_000), id="kept")
            await asyncio.sleep(1)
            await timer.post({}, delay=timedelta(seconds=1_000), id="lost")
            world.inject(RestartStore(lose_s=0.5, down_s=2, clock_by_s=100))
            await asyncio.sleep(3)
            pending = await timer.upcoming()
            return [upcoming.id for upcoming in pending], round(pending[0].time_left.total_seconds())

        assert simulation.run(scenario).result == (["kept"], 896)

    def test_a_read_only_store_delays_events_and_loses_none(self) -> None:
        simulation = Simulation(nodes=2)
        shop = Shop(simulation)

        async def scenario(world: World) -> None:
            timer = DTimer(world.backend())
            await timer.post({}, delay=1_000, max_retries=3)
            world.inject(Refuse("read_only", for_s=10))
            await asyncio.sleep(9)
            assert not shop.handled
            await drained(world, within_s=4)

        simulation.run(scenario)

    def test_a_full_store_still_gives_out_what_it_has(self) -> None:
        """F5."""
        simulation = Simulation(nodes=2)
        shop = Shop(simulation)

        async def scenario(world: World) -> None:
            timer = DTimer(world.backend())
            await timer.post({}, delay=1_000, max_retries=3)
            world.inject(Refuse("out_of_memory"))
            await drained(world, within_s=2)

        simulation.run(scenario)

        assert len(shop.handled) == 1


class TestProcesses:
    def test_one_that_is_asked_to_end_leaves(self) -> None:
        simulation = Simulation(nodes=2)
        Shop(simulation)

        async def scenario(world: World) -> tuple[list[str], list[str]]:
            await asyncio.sleep(1)
            world.inject(Stop("n1", down_s=5))
            await asyncio.sleep(1)
            without = [member.node for member in _ring(world)]
            await asyncio.sleep(6)
            return without, sorted(member.node for member in _ring(world))

        assert simulation.run(scenario).result == (["n2"], ["n1", "n2"])

    def test_one_that_stands_still_is_passed_over_and_comes_back(self) -> None:
        """W5: it costs one late event; and its confirm counts if nobody was faster."""
        simulation = Simulation(nodes=2)
        shop = Shop(simulation)

        async def scenario(world: World) -> None:
            timer = DTimer(world.backend())
            await asyncio.sleep(2)
            world.inject(Pause("n1", for_s=10))
            for number in range(10):
                await timer.post({}, delay=100, id=f"e{number}", max_retries=2)
                await world.until(lambda: len(shop.handled) == number + 1, within_s=1.2)  # noqa: B023
            assert {node for node, _, _ in shop.handled} == {"n2"}
            await asyncio.sleep(12)
            assert not [member for member in _ring(world) if member.parked]

        simulation.run(scenario)

    def test_wrong_clocks_of_nodes_change_nothing(self) -> None:
        """T1: nobody reads them."""

        def run(offset_s: float) -> tuple[list[tuple[str, str, int]], str]:
            simulation = Simulation(seed=3, nodes=3)
            shop = Shop(simulation)

            async def scenario(world: World) -> str:
                timer = DTimer(world.backend())
                if offset_s:
                    world.inject(StepClock(offset_s, "n1"))
                for number in range(10):
                    await timer.post({}, delay=number * 10, id=f"e{number}", max_retries=1)
                await drained(world)
                return str(world.host("n1").wall_clock().year)

            return shop.handled, simulation.run(scenario).result

        right, right_year = run(0)
        wrong, wrong_year = run(-10 * 365 * 86_400)
        assert right == wrong
        assert (right_year, wrong_year) == ("2030", "2020")


def test_healing_ends_everything() -> None:
    """After it, a cluster is as good as new: the phase in which promises are judged."""
    simulation = Simulation(nodes=4)
    shop = Shop(simulation)

    async def scenario(world: World) -> None:
        timer = DTimer(world.backend())
        await asyncio.sleep(2)
        world.inject(Crash("n1"))
        world.inject(Pause("n2"))
        world.inject(Partition("n3"))
        world.inject(Hold("n4"))
        world.inject(SpoilAnnouncements("n2", "lose"))
        world.inject(Latency("n3", 1, 2))
        world.inject(LoseCalls("client", "reply", 5))
        world.inject(Crash("n3", at="call", count=50))
        world.inject(Refuse("busy"))
        world.inject(RestartStore(down_s=100, loading_s=100))
        await asyncio.sleep(30)
        world.heal()
        await asyncio.sleep(10)
        assert sorted(member.node for member in _ring(world)) == ["n1", "n2", "n3", "n4"]
        for number in range(8):
            await timer.post({}, delay=10, id=f"e{number}")
            await world.until(lambda: len(shop.handled) == number + 1, within_s=0.1)  # noqa: B023
        assert {node for node, _, _ in shop.handled} == {"n1", "n2", "n3", "n4"}

    simulation.run(scenario)


def _ring(world: World) -> tuple[RingMember, ...]:
    inspection = world.inspect()
    assert inspection is not None
    return inspection.ring
