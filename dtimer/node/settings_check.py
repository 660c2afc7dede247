"""Checks the store's settings when a timer first joins, so that a risk is seen before it costs events."""

from __future__ import annotations

from dtimer.errors import BackendError
from dtimer.node.context import TimerContext
from dtimer.protocol.backend import SupportsExamination, TimerBackend
from dtimer.protocol.values import Risk


class SettingsCheck:
    """Warns of findings once, in the background; settings that cannot be read are skipped."""

    def __init__(self, backend: TimerBackend, context: TimerContext) -> None:
        self._backend: SupportsExamination | None = backend if isinstance(backend, SupportsExamination) else None
        self._background = context.background
        self._reporter = context.reporter

    def begin(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            self._background.start(lambda: self._warn(backend), "examining the store's settings")

    async def _warn(self, backend: SupportsExamination) -> None:
        try:
            found = await backend.examine()
        except BackendError:
            # The rights for this are optional, and calls that need a store which is away report that themselves.
            return
        for finding in found:
            what = "the clock of the store was wrong" if finding.risk is Risk.CLOCK else "the store may lose events"
            self._reporter.warn(f"{what}: {finding.detail}")
