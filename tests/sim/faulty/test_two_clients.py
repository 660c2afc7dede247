"""Two clients at one id, whose replies are lost: each is told what happened, once, whatever the other did (F1)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from attrs import define, field
from typing_extensions import override

from dtimer import BackendError, DTimer, Event, Known, NodeFenced, NodeIdDisputed
from dtimer.node import batcher
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Applied
from dtimer.sim import Disconnect, Host, LoseCalls, Observer, Simulation, World
from dtimer.sim.rng import Rng

CALLS_EACH: Final = 150
ASKS: Final[dict[str, Callable[[DTimer, int], Awaitable[Any]]]] = {
    "post": lambda timer, number: timer.post(number, number % 2 * 60_000, id="x", max_retries=2),
    "cancel": lambda timer, _: timer.cancel("x"),
    "change_delay": lambda timer, _: timer.change_delay("x", 50_000),
    "confirm_newest": lambda timer, _: timer.confirm("x"),
}


@define
class Witness(Observer):
    """Sees what the store applies for each client.

    Attributes:
        applied: method and outcome, by host.
        lies: what was told and is not so.
        told: how often what was told.
    """

    applied: dict[str, list[tuple[str, object]]] = field(factory=dict)
    lies: list[str] = field(factory=list)
    told: Counter[str] = field(factory=Counter)

    @override
    def on_applied(
        self, host: str, number: int, namespace: str, operation: Operation[Any], applied: Applied[Any]
    ) -> None:
        value: Any = applied.value
        self.applied.setdefault(host, []).append((operation.method, value[0] if isinstance(value, tuple) else value))

    async def ask(self, host: str, method: str, call: Awaitable[Any]) -> None:
        """Make a call, and compare what is told with what happened."""
        before = len(self.applied.get(host, []))
        try:
            told: object = await call
        except BackendError as error:
            told = error
        happened = [outcome for name, outcome in self.applied.get(host, [])[before:] if name == method]
        if isinstance(told, BackendError):
            fits = len(happened) <= (told.known is Known.PERHAPS_APPLIED)
            self.told[told.known.name] += 1
        else:
            fits = happened == [getattr(told, "outcome", told)]
            self.told["truth"] += 1
        if not fits:
            self.lies.append(f"{host} was told {told!r} of its {method}, and {happened} happened")


class FirstJoin(Witness):
    """Has the reply to the first join lost."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    @override
    def on_applied(
        self, host: str, number: int, namespace: str, operation: Operation[Any], applied: Applied[Any]
    ) -> None:
        if isinstance(operation, op.Join) and not self.applied:
            self.world.inject(LoseCalls(host, how="disconnect"))
            super().on_applied(host, number, namespace, operation, applied)


def run(seed: int) -> Witness:
    """Two hosts call at random, and a third takes what is due at once. One reply in five or so is lost."""
    witness = Witness()
    simulation = Simulation(seed=seed, nodes=["one", "other", "taker"])

    @simulation.node
    async def program(host: Host) -> None:
        timer = DTimer(host.backend(), node_id=host.name)
        if host.name == "taker":

            @timer.on("event")
            async def take(event: Event) -> None:
                await asyncio.sleep(0.2)

            async with timer:
                await host.forever()
        rng = Rng(seed, "client", host.name)
        for number in range(CALLS_EACH):
            method = rng.pick(list(ASKS))
            await witness.ask(host.name, method, ASKS[method](timer, number))
            await asyncio.sleep(rng.below(50) / 1_000)

    async def scenario(world: World) -> None:
        world.observe(witness)
        rng = Rng(seed, "losses")
        for _ in range(100):
            await asyncio.sleep(rng.below(200) / 1_000)
            world.inject(LoseCalls(rng.pick(["one", "other"]), how="disconnect"))
            if rng.happens(0.2):
                world.inject(Disconnect(rng.pick(["one", "other"])))

    simulation.run(scenario)
    return witness


@pytest.mark.parametrize("seed", range(5))
def test_what_each_is_told_is_what_happened(seed: int) -> None:
    witness = run(seed)

    assert witness.lies == []
    assert witness.told["truth"] > CALLS_EACH / 2
    assert witness.told["PERHAPS_APPLIED"] > CALLS_EACH / 10


def test_the_net_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """With posts and cancels repeated after lost replies, as they once were, somebody is lied to."""
    monkeypatch.setattr(batcher, "REPEATABLE", {"post", "cancel"})

    assert any(run(seed).lies for seed in range(3))


def test_a_join_that_is_repeated_fences_nobody_who_came_later() -> None:
    """N1: the early one hears that it is fenced, as if it had been a moment after its join."""
    simulation = Simulation(seed=7, nodes=["early", "late"])
    errors: dict[str, list[type[Exception]]] = {"early": [], "late": []}

    @simulation.node
    async def program(host: Host) -> None:
        timer = DTimer(host.backend(), node_id="n")
        timer.on("event", lambda event: None)
        timer.on("error", lambda error: errors[host.name].append(type(error)))
        # An event would belong to one process, and these are two.
        while host.name == "late" and not (watchers and watchers[0].applied):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await timer.join()
        await asyncio.sleep(3)
        joined[host.name] = timer.joined
        await host.forever()

    joined: dict[str, bool] = {}
    watchers: list[FirstJoin] = []

    async def scenario(world: World) -> int:
        watchers.append(FirstJoin(world))
        world.observe(watchers[0])
        await asyncio.sleep(5)
        seen = world.inspect()
        return 0 if seen is None else len(seen.ring)

    assert simulation.run(scenario).result == 1
    assert joined == {"early": False, "late": True}
    assert errors == {"early": [NodeFenced], "late": [NodeIdDisputed]}
