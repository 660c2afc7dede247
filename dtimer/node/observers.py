"""Telling what happens to a part of a timer to those that it does not know, and outlives."""

from __future__ import annotations

from collections.abc import Callable


class Observers:
    """Who is told of one kind of thing, in the order in which they came."""

    def __init__(self) -> None:
        self._all: dict[object, Callable[[], None]] = {}

    def add(self, observer: Callable[[], None]) -> Callable[[], None]:
        """Call it from now on, until the function is called that is returned. That may be done more than once."""
        key = object()
        self._all[key] = observer

        def remove() -> None:
            self._all.pop(key, None)

        return remove

    def notify(self) -> None:
        for observer in tuple(self._all.values()):
            observer()
