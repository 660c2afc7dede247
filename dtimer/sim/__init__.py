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
    from dtimer.sim.faulty.faults import (
        Accept,
        BreakSubscription,
        Crash,
        Deafen,
        DelayAnnouncements,
        Disconnect,
        Failover,
        Fault,
        ForgeAnnouncement,
        ForgePulse,
        Garble,
        Hold,
        LoseAnnouncements,
        LoseReplies,
        LoseRequests,
        NodeFault,
        Partition,
        Pause,
        Refuse,
        Release,
        Repair,
        RepeatAnnouncements,
        Restart,
        RestartStore,
        Resume,
        SetWallClock,
        Slow,
        StepClock,
        Stop,
        StoreFault,
    )
    from dtimer.sim.faulty.host import Host
    from dtimer.sim.faulty.observer import Observer
    from dtimer.sim.faulty.plan import Faults, Rate
    from dtimer.sim.faulty.simulation import Run, Simulation
    from dtimer.sim.faulty.trace import Record
    from dtimer.sim.faulty.world import World
    from dtimer.sim.sim_clock import SimClock

_MODULES: Final = {
    "Accept": "faulty.faults",
    "BreakSubscription": "faulty.faults",
    "Crash": "faulty.faults",
    "Deafen": "faulty.faults",
    "DelayAnnouncements": "faulty.faults",
    "Disconnect": "faulty.faults",
    "Failover": "faulty.faults",
    "Fault": "faulty.faults",
    "Faults": "faulty.plan",
    "ForgeAnnouncement": "faulty.faults",
    "ForgePulse": "faulty.faults",
    "Garble": "faulty.faults",
    "Hold": "faulty.faults",
    "Host": "faulty.host",
    "LinkedBackend": "faulty.backend",
    "LoseAnnouncements": "faulty.faults",
    "LoseReplies": "faulty.faults",
    "LoseRequests": "faulty.faults",
    "NodeFault": "faulty.faults",
    "Observer": "faulty.observer",
    "Partition": "faulty.faults",
    "Pause": "faulty.faults",
    "Rate": "faulty.plan",
    "Record": "faulty.trace",
    "Refuse": "faulty.faults",
    "Release": "faulty.faults",
    "Repair": "faulty.faults",
    "RepeatAnnouncements": "faulty.faults",
    "Restart": "faulty.faults",
    "RestartStore": "faulty.faults",
    "Resume": "faulty.faults",
    "Run": "faulty.simulation",
    "SetWallClock": "faulty.faults",
    "SimBackend": "backend",
    "SimClock": "sim_clock",
    "SimMisuse": "errors",
    "SimStuck": "errors",
    "Simulation": "faulty.simulation",
    "Slow": "faulty.faults",
    "StepClock": "faulty.faults",
    "Stop": "faulty.faults",
    "StoreFault": "faulty.faults",
    "World": "faulty.world",
}


def __getattr__(name: str) -> object:
    """PEP 562."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Accept",
    "BreakSubscription",
    "Crash",
    "Deafen",
    "DelayAnnouncements",
    "Disconnect",
    "Failover",
    "Fault",
    "Faults",
    "ForgeAnnouncement",
    "ForgePulse",
    "Garble",
    "Hold",
    "Host",
    "LinkedBackend",
    "LoseAnnouncements",
    "LoseReplies",
    "LoseRequests",
    "NodeFault",
    "Observer",
    "Partition",
    "Pause",
    "Rate",
    "Record",
    "Refuse",
    "Release",
    "Repair",
    "RepeatAnnouncements",
    "Restart",
    "RestartStore",
    "Resume",
    "Run",
    "SetWallClock",
    "SimBackend",
    "SimClock",
    "SimMisuse",
    "SimStuck",
    "Simulation",
    "Slow",
    "StepClock",
    "Stop",
    "StoreFault",
    "World",
]
