"""Puts a mutant in the place of sound code, and has the scenarios of its rule judge it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from attrs import define, field

import dtimer.semantics.machine
from dtimer import SimBackend, TimerBackend
from dtimer.backends.redis import partition as redis_partition
from dtimer.backends.redis.scripts import load_script
from dtimer.cli.targets import SIM_FEATURES, SimTarget
from dtimer_conformance import Feature
from support.mutants import ROOT, Mutant


def _module(name: str, source: str) -> Any:
    module = ModuleType(name)
    # attrs looks a class's module up by its name.
    sys.modules[name] = module
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)
    return module


@define
class BrokenSimTarget:
    """Simulators with a broken part of the machine, or clock. Histories are replayed through the sound ones."""

    mutant: Mutant
    features: frozenset[Feature] = SIM_FEATURES
    _sound: SimTarget = field(factory=SimTarget)

    @asynccontextmanager
    async def backend(self, namespace: str, clock: Callable[[], int] | None) -> AsyncGenerator[TimerBackend]:
        async with self._sound.backend(namespace, clock) as sim:
            assert isinstance(sim, SimBackend)
            if sim._machine.seq == 0:
                self._break(sim)
            yield sim

    def _break(self, sim: Any) -> None:
        if Path(self.mutant.file).stem == "clock":
            sim._store_clock = broken_clock(self.mutant)()
        else:
            sim._machine = broken_machine(self.mutant)(sim._machine.epoch)


def broken_clock(mutant: Mutant) -> Any:
    """The class."""
    return _module("broken_clock", mutant.source()).StoreClock


def broken_machine(mutant: Mutant) -> Any:
    """The class, with its ring, dead letters, branches or refusals broken if the mutant is of those."""
    part = Path(mutant.file).stem
    broken = _module(f"broken_{part}", mutant.source())
    if part == "machine":
        return broken.Machine
    machine = _module("broken_machine", Path(dtimer.semantics.machine.__file__).read_text(encoding="utf-8"))
    for name in ("Ring", "DeadLetters", "Branches", "one_more", "wait_after"):
        setattr(machine, name, getattr(broken, name, getattr(machine, name)))
    return machine.Machine


@contextmanager
def broken_scripts(mutant: Mutant, folder: Path) -> Generator[None]:
    """Redis backends run the broken script meanwhile."""
    sound = dict(redis_partition._SCRIPTS)
    lua = ROOT / "backends" / "redis" / "lua"
    for path in lua.rglob("*.lua"):
        copied = folder / path.relative_to(lua)
        copied.parent.mkdir(exist_ok=True)
        copied.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / Path(mutant.file).relative_to("backends/redis/lua")).write_text(mutant.source(), encoding="utf-8")
    redis_partition._SCRIPTS.update({name: load_script(name, folder) for name in sound})
    try:
        yield
    finally:
        redis_partition._SCRIPTS.update(sound)


def first_failure_in_a_process_of_its_own(mutant: Mutant) -> str | None:
    """What fails on the simulator when a module is broken from the start, wherever it is imported."""
    job = {
        "module": ".".join(("dtimer", *Path(mutant.file).with_suffix("").parts)),
        "source": mutant.source(),
        "rule": mutant.rule,
    }
    path = os.pathsep.join(part for part in sys.path if part)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("broken_process.py")],
        input=json.dumps(job), env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: str | None = json.loads(done.stdout.splitlines()[-1])
    return found
