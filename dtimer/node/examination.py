"""A look at the store's settings when a timer first joins, so that a risk is seen before it costs events."""

from __future__ import annotations

from dtimer.errors import BackendError
from dtimer.node.reports import Chores, Reports
from dtimer.protocol.backend import SupportsExamination, TimerBackend
from dtimer.protocol.values import Risk


class Examination:
    """Warns of what is found, once, beside the work; what cannot be looked at is passed over."""

    def __init__(self, backend: TimerBackend, chores: Chores, reports: Reports) -> None:
        self._backend: SupportsExamination | None = backend if isinstance(backend, SupportsExamination) else None
        self._chores = chores
        self._reports = reports

    def begin(self) -> None:
        backend, self._backend = self._backend, None
        if backend is not None:
            self._chores.start(lambda: self._warn(backend), "examining the store's settings")

    async def _warn(self, backend: SupportsExamination) -> None:
        try:
            found = await backend.examine()
        except BackendError:
            # Rights for this are a favour, and a store that is away is reported by whoever needs it.
            return
        for finding in found:
            what = "the clock of the store was wrong" if finding.risk is Risk.CLOCK else "the store may lose events"
            self._reports.warn(f"{what}: {finding.detail}")
