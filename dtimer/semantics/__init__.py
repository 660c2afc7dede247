"""The rules of dtimer as a pure state machine: no await, no clock, no randomness, no I/O."""

from dtimer.protocol.operations import Operation
from dtimer.semantics.clock import StoreClock
from dtimer.semantics.machine import Machine

__all__ = ["Machine", "Operation", "StoreClock"]
