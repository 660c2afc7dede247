"""The conformance suite, on this backend."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from tempfile import mkdtemp

from dtimer import TimerBackend
from dtimer_conformance import BackendSuite, Feature

from dtimer_sqlite import SqliteBackend

FOLDER = mkdtemp()


class TestSqlite(BackendSuite):
    features = frozenset({Feature.CLOCK, Feature.DEAD_LETTERS, Feature.INSPECTION, Feature.PURGE, Feature.REACH})

    def backend(self, namespace: str, clock: Callable[[], int] | None) -> AbstractAsyncContextManager[TimerBackend]:
        options = {} if clock is None else {"clock_for_tests": clock}
        return SqliteBackend(f"{FOLDER}/{namespace}.db", namespace, synchronous="normal", **options)
