"""What is judged: something that makes backends, and says what they can do."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from dtimer.protocol.backend import TimerBackend
from dtimer_conformance.features import Feature


class Target(Protocol):
    """A kind of backend."""

    @property
    def features(self) -> AbstractSet[Feature]:
        """What it declares."""
        ...

    def backend(self, namespace: str, clock: Callable[[], int] | None) -> AbstractAsyncContextManager[TimerBackend]:
        """A client of a namespace on the store; called again for the same one, another client of it.

        Args:
            clock: what the backend is to take its time from: microseconds since 1970.
                None, as it always is without :attr:`Feature.CLOCK`, leaves the time to the store.
        """
        ...
