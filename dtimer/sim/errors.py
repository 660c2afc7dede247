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
