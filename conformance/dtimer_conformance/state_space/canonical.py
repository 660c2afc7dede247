"""The canonical form of a state: two states with one form go on alike, so one of them is explored.

What names a thing without a meaning of its own is renamed: tokens by their first occurrence, places in the ring and
counts of joins by their order. Times are relative to the store's now, in milliseconds; of those that are closer to each
other, or further off than any comparison or path of the alphabet reaches, the order is left. All fields of all parts
are gone through, so that one which is added to the machine is part of the form by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, Final, cast

import attrs

from dtimer.limits import MILLISECOND_US, YEAR_US
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import EventData, Member
from dtimer.semantics import Machine
from dtimer_conformance.state_space.moves import Alphabet
from dtimer_conformance.state_space.state import State

_OF_MACHINE: Final = tuple(name for name in vars(Machine("")) if name not in {
    "epoch", "seq",  # they count what was done, and nothing depends on how much it was
    "_queue",  # the order of the live events, which the machine's own check compares with them
    "_at_us", "_skew_us", "_server", "_claimer",  # of the operation under way
})  # fmt: skip
_NOT_READ: Final = frozenset({"seq", "_last_position"})
"""Of other parts: shown to people alone, or later than all there are."""
_RANKS: Final = ("position", "joins")
_TOKENS: Final = "nonce"
_DURATIONS: Final = frozenset({"skew_us", "wall_skew_us", "wait_us"})
CENTURY_US: Final = 100 * YEAR_US

_AS_IT_IS: Final = frozenset({bool, bytes, type(None), EventData, Member})
"""What the form has as it is; so are enums and operations."""


def canonical(state: State, alphabet: Alphabet) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The form of a state, to be hashed and compared: its parts, of which times are pairs, and what is beside them."""
    form = _Form()
    machine, book = vars(state.machine), state.book
    for name in _OF_MACHINE:
        form.add(name, machine[name])
    form.add("receipts", state.receipts)
    form.add("live", book.live)
    form.add("dead", book.dead)
    form.add("took_over", {member: took for member, took in book.took_over.items() if took})
    form.add("buried_us", book.buried)
    form.add("holders", book.holders)
    form.add("errors", book.errors)
    form.add("refused", book.refused)
    form.add("joins", book.joins)
    form.add("lost", book.lost)
    # A host whose clock was set back is behind the store's time until the next operation adds to the skew.
    behind_us = state.now_us - state.host_us - state.clock.skew_us
    rest = (state.hears, state.server, state.clock.skew_us, behind_us, state.host_us // CENTURY_US)
    return form.finished(state.now_us, alphabet.past_us, alphabet.ahead_us), rest


class _Form:
    """What has been gone through, with times and ranks yet to be replaced, for they are seen against each other."""

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._times: list[int] = []
        self._ranks: dict[str, list[int]] = {name: [] for name in _RANKS}
        self._tokens: dict[str, int] = {}

    def add(self, name: str, value: Any) -> None:
        """One more value, under the name of its field."""
        kind = cast("Callable[[], object]", type(value))
        parts = self._parts
        if kind is int:
            if name in self._ranks:
                self._ranks[name].append(len(parts))
            elif name.endswith("_us") and name not in _DURATIONS:
                self._times.append(len(parts))
            parts.append(value)
        elif kind is str:
            parts.append(self._tokens.setdefault(value, len(self._tokens)) if name == _TOKENS and value else value)
        elif kind in _AS_IT_IS:
            parts.append(value)
        elif kind is dict:
            parts.append(len(value))
            for key in sorted(value) if _TEXT.issuperset(map(type, value)) else value:
                self.add(name, key)
                self.add(name, value[key])
        elif kind is tuple or kind is list:
            parts.append(len(value))
            for item in value:
                self.add(name, item)
        elif kind is frozenset or isinstance(value, Enum | Operation):
            parts.append(value)
        else:
            parts.append(kind)
            for inner in _fields(kind):
                self.add(inner, getattr(value, inner))

    def finished(self, now_us: int, past_us: int, ahead_us: int) -> tuple[Any, ...]:
        """The form, at this time."""
        parts = self._parts
        for places in self._ranks.values():
            order = {value: rank for rank, value in enumerate(sorted({parts[place] for place in places}))}
            for place in places:
                parts[place] = order[parts[place]]
        shown: dict[int, tuple[int, int]] = {}
        last_ms, rank = 0, 0
        for time_us in sorted({now_us, *(parts[place] for place in self._times)}):
            distance_us = max(-past_us, min(ahead_us, time_us - now_us))
            milliseconds = (distance_us + MILLISECOND_US // 2) // MILLISECOND_US
            rank = rank + 1 if milliseconds == last_ms else 0
            last_ms = milliseconds
            shown[time_us] = (milliseconds, rank)
        for place in self._times:
            parts[place] = shown[parts[place]]
        return tuple(parts)


_TEXT: Final = frozenset({str})


@cache
def _fields(kind: Callable[[], object]) -> tuple[str, ...]:
    return tuple(each.name for each in attrs.fields(cast("Any", kind)) if each.name not in _NOT_READ)
