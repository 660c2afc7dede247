"""Moves: what clients and the world do in one step, as a step of a program or one that only a small world has."""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen

from dtimer.protocol.operations import Operation
from dtimer.protocol.values import EventData
from dtimer_conformance.programs import Step


@frozen
class TimeOfDay:
    """Post an event for a time of day: `offset_us` from now by the clock of the store's host (T6)."""

    event: EventData
    offset_us: int


@frozen
class Lost:
    """A client makes a call and gets no reply: the call or the reply is lost (F1).

    Attributes:
        arrives: the call is applied, and only its reply is lost.
    """

    operation: Operation[object]
    arrives: bool


@frozen
class Repeated:
    """The client of the lost call repeats it, if a client repeats such calls; else it gives up (F1)."""


Part: TypeAlias = Step | TimeOfDay | Lost | Repeated


@frozen
class Move:
    """One step from a state to the next.

    Attributes:
        name: in paths; no other move of its alphabet has it.
    """

    name: str
    part: Part


@frozen
class Alphabet:
    """The moves of one small world.

    Attributes:
        about: what it is for, in some words.
        begin: how the world is at first.
        depth: to how many moves it is explored, if it is not closed before.
        short_depth: the same for the short version, of some seconds.
        past_us: of times further back only the order matters: no comparison looks back so far.
        ahead_us: of times further ahead only the order matters: no path of the depth lasts so long.
    """

    name: str
    about: str
    begin: tuple[Part, ...]
    moves: tuple[Move, ...]
    depth: int
    short_depth: int
    past_us: int
    ahead_us: int

    def move(self, name: str) -> Move:
        """
        Raises:
            KeyError: there is none of this name.
        """
        return {move.name: move for move in self.moves}[name]
