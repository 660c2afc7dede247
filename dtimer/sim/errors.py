"""What the simulator itself complains about: mistakes of a test or of the code under test, never of a store."""

from __future__ import annotations

from dtimer.errors import DTimerError


class SimStuck(DTimerError):
    """Virtual time cannot move, because work that it waits for does not end.

    Attributes:
        pieces: one description for each piece of work: its name, and where it hangs.
    """

    def __init__(self, problem: str, pieces: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join((problem, *(f"* {piece}" for piece in pieces))))
        self.pieces = pieces


class SimMisuse(DTimerError):
    """A call that moves virtual time was made where it could never return, or while another one was under way."""


class SimulationStuck(DTimerError):
    """Virtual time stands still for ever: all wait and no timer is set, or one task runs on and on at one instant.

    Attributes:
        now_us: the virtual time, in microseconds since the start.
        waiting: one description for each task: its process, its name, and the places where it waits, outermost first.
    """

    def __init__(self, problem: str, now_us: int, waiting: tuple[str, ...] = ()) -> None:
        super().__init__("\n".join((f"at {now_us / 1e6:.6f} s: {problem}", *(f"* {task}" for task in waiting))))
        self.now_us = now_us
        self.waiting = waiting


class SimulationRefused(DTimerError):
    """The code under simulation reached for the real world: a socket, a thread, a subprocess, a wait in real time.

    Attributes:
        call: what was called.
        instead: what to do in a simulation.
    """

    def __init__(self, call: str, instead: str) -> None:
        super().__init__(f"{call} leaves the simulation: {instead}")
        self.call = call
        self.instead = instead
