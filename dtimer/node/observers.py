"""Notifies observers of an object that does not know them, and that outlives them."""

from __future__ import annotations

from collections.abc import Callable


class Observers:
    """The observers of one kind of happening; they are called in the order of their registration."""

    def __init__(self) -> None:
        self._all: dict[object, Callable[[], None]] = {}

    def add(self, observer: Callable[[], None]) -> Callable[[], None]:
        """Call the observer from now on, until the returned function is called. Calling that twice is harmless."""
        key = object()
        self._all[key] = observer

        def remove() -> None:
            self._all.pop(key, None)

        return remove

    def notify(self) -> None:
        for observer in tuple(self._all.values()):
            observer()
