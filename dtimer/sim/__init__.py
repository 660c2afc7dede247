"""Timers without waiting: a backend for unit tests, with a clock that is moved by hand."""

from dtimer.sim.backend import SimBackend
from dtimer.sim.errors import SimMisuse, SimStuck

__all__ = ["SimBackend", "SimMisuse", "SimStuck"]
