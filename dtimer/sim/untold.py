"""What a handler raised that a test must hear of, kept until somebody can be told.

A handler that raises fails its event, in production and here.
But some of what a test's own handlers raise is meant for the test: pytest's outcomes, an `assert` that does not hold,
and what the simulator itself complains about.
It is raised by the call that moves the clock, where a timer or the simulator is left, or at the end of the test by the
plugin for pytest: whichever comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from dtimer.safe_repr import safe_repr
from dtimer.sim.errors import SimStuck
from dtimer.user_code import is_outcome

_untold: Final[list[tuple[Untold, BaseException]]] = []
"""Of all simulators, so that the end of a test finds what no other call has raised."""

_exceptions_of: Final[Callable[[BaseException], Sequence[BaseException]]] = vars(BaseExceptionGroup)[
    "exceptions"
].__get__


class Untold:
    """What the test of one simulator has yet to hear."""

    def __init__(self, *, raise_asserts: bool) -> None:
        """
        Args:
            raise_asserts: whether an AssertionError is for the test.
        """
        self._raise_asserts = raise_asserts

    def __bool__(self) -> bool:
        return any(owner is self for owner, _ in _untold)

    def add(self, error: BaseException) -> None:
        """A handler raised this."""
        known = any(other is error for _, other in _untold)
        if not known and is_for_the_test(error, raise_asserts=self._raise_asserts):
            _untold.append((self, error))

    def take(self) -> BaseException | None:
        """The first one, with a note that tells of the others; they have been heard then."""
        return _taken(self)


def take_any() -> BaseException | None:
    """As :meth:`Untold.take`, of all simulators."""
    return _taken(None)


def _taken(of: Untold | None) -> BaseException | None:
    errors = [error for owner, error in _untold if of is None or owner is of]
    _untold[:] = [entry for entry in _untold if of is not None and entry[0] is not of]
    if not errors:
        return None
    first, *others = errors
    if others:
        first.add_note(f"Handlers raised {len(others)} more: {', '.join(safe_repr(error) for error in others[:3])}")
    return first


def is_for_the_test(error: BaseException, *, raise_asserts: bool) -> bool:
    """Whether a test must hear of it. It is told by its type, and a group's parts by no property of its own."""
    remaining = [error]
    for one in remaining:
        kind = type(one)
        if issubclass(kind, BaseExceptionGroup):
            remaining += _exceptions_of(one)  # without recursion: they may be nested some thousand deep
        elif (raise_asserts and issubclass(kind, AssertionError)) or issubclass(kind, SimStuck) or is_outcome(one):
            return True
    return False
