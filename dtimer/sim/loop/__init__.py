"""A virtual-time event loop with simulated processes. It knows nothing of timers, stores or nodes."""

from dtimer.sim.loop.failures import Failure
from dtimer.sim.loop.loop import SimLoop
from dtimer.sim.loop.process import Process

__all__ = ["Failure", "Process", "SimLoop"]
