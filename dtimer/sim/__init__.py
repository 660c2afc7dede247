"""Timers without waiting: a backend for unit tests, and a whole cluster with everything that can go wrong.

Each name is imported when it is first used: pytest loads the plugin in here at the start of every run.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from dtimer.sim.backend import SimBackend
    from dtimer.sim.errors import SimMisuse, SimStuck
    from dtimer.sim.faulty.backend import LinkedBackend
    from dtimer.sim.faulty.fault_schedule import Faults, Injected, Rate
    from dtimer.sim.faulty.faults import (
        BreakSubscription,
        Crash,
        Disconnect,
        FalseAnnouncement,
        Fault,
        Hold,
        Latency,
        LoseCalls,
        Partition,
        Pause,
        Refuse,
        Restart,
        RestartStore,
        SpoilAnnouncements,
        StepClock,
        Stop,
    )
    from dtimer.sim.faulty.host import Host
    from dtimer.sim.faulty.observer import Observer
    from dtimer.sim.faulty.simulation import Run, Simulation
    from dtimer.sim.faulty.trace import Record
    from dtimer.sim.faulty.world import World
    from dtimer.sim.sim_clock import SimClock

_MODULES: Final = {
    "BreakSubscription": "faulty.faults",
    "Crash": "faulty.faults",
    "Disconnect": "faulty.faults",
    "FalseAnnouncement": "faulty.faults",
    "Fault": "faulty.faults",
    "Faults": "faulty.fault_schedule",
    "Hold": "faulty.faults",
    "Host": "faulty.host",
    "Injected": "faulty.fault_schedule",
    "Latency": "faulty.faults",
    "LinkedBackend": "faulty.backend",
    "LoseCalls": "faulty.faults",
    "Observer": "faulty.observer",
    "Partition": "faulty.faults",
    "Pause": "faulty.faults",
    "Rate": "faulty.fault_schedule",
    "Record": "faulty.trace",
    "Refuse": "faulty.faults",
    "Restart": "faulty.faults",
    "RestartStore": "faulty.faults",
    "Run": "faulty.simulation",
    "SimBackend": "backend",
    "SimClock": "sim_clock",
    "SimMisuse": "errors",
    "SimStuck": "errors",
    "Simulation": "faulty.simulation",
    "SpoilAnnouncements": "faulty.faults",
    "StepClock": "faulty.faults",
    "Stop": "faulty.faults",
    "World": "faulty.world",
}


def __getattr__(name: str) -> object:
    """PEP 562."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "BreakSubscription",
    "Crash",
    "Disconnect",
    "FalseAnnouncement",
    "Fault",
    "Faults",
    "Hold",
    "Host",
    "Injected",
    "Latency",
    "LinkedBackend",
    "LoseCalls",
    "Observer",
    "Partition",
    "Pause",
    "Rate",
    "Record",
    "Refuse",
    "Restart",
    "RestartStore",
    "Run",
    "SimBackend",
    "SimClock",
    "SimMisuse",
    "SimStuck",
    "Simulation",
    "SpoilAnnouncements",
    "StepClock",
    "Stop",
    "World",
]
