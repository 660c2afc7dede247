"""What the simulator itself complains about: mistakes of a test or of the code under test, never of a store."""

from __future__ import annotations

from typing import Final

from dtimer.errors import DTimerError


class SimStuck(DTimerError):
    """Virtual time cannot move: work does not end, all tasks wait and no timer is set, or work goes on at one instant.

    Attributes:
        waiting: one description for each task or other piece of work: its name, and the places where it waits,
            outermost first.
        now_us: in a simulation the virtual time, in microseconds since the start; None with a `SimBackend`.
    """

    def __init__(self, problem: str, waiting: tuple[str, ...] = (), *, now_us: int | None = None) -> None:
        at = "" if now_us is None else f"at {now_us / 1e6:.6f} s: "
        super().__init__("\n".join((f"{at}{problem}", *(f"* {each}" for each in waiting))))
        self.waiting = waiting
        self.now_us = now_us


class SimMisuse(DTimerError):
    """A call that virtual time does not allow.

    It moves time where it could never return, or while another call moves it; or, in a simulation, it reaches for the
    real world: a socket, a thread, a subprocess, a wait in real time.

    Attributes:
        call: what was called.
        instead: what to do; empty if nothing takes its place.
    """

    def __init__(self, call: str, problem: str, instead: str = "") -> None:
        super().__init__(f"{call} {problem}: {instead}" if instead else f"{call} {problem}")
        self.call = call
        self.instead = instead


LEAVES: Final = "leaves the simulation"
"""The problem of a call that reaches for the real world."""
