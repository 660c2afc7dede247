"""Checked by mypy and pyright, never run: what a simulation is to a type checker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_type

from dtimer import DTimer, JsonValue, TimerBackend
from dtimer.protocol.backend import SupportsDeadLetters, SupportsInspection
from dtimer.sim import Crash, Fault, Faults, Host, Injected, LinkedBackend, Partition, Record, Run, Simulation, World

simulation = Simulation(seed=7, nodes=3, faults=Faults(script=[(3.5, Crash("n1"))], rates={"pause": 1}))


@simulation.node
async def program(host: Host) -> str:
    assert_type(DTimer(host.backend()), DTimer[JsonValue])
    return host.name


@simulation.node_named("n1")
async def other_program(host: Host) -> None: ...


async def scenario(world: World) -> list[int]:
    assert_type(world.inject(Crash("n1", at="reply", count=2)), Injected)
    return [1]


def the_result_has_the_type_of_the_scenario() -> None:
    run = simulation.run(scenario)
    assert_type(run, Run[list[int]])
    assert_type(run.result, list[int])
    assert_type(run.script, tuple[tuple[float, Fault], ...])
    assert_type(run.counts, Mapping[str, int])
    assert_type(run.trace, tuple[Record, ...])


async def a_program_keeps_its_type(host: Host) -> None:
    assert_type(await program(host), str)
    assert_type(await other_program(host), None)


def this_is_a_backend(backend: LinkedBackend) -> tuple[TimerBackend, SupportsDeadLetters, SupportsInspection]:
    return backend, backend, backend


Partition("n1", "sideways")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Simulation(nodes=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
simulation.run(lambda: None)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType]
