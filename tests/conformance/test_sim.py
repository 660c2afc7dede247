"""The simulator, judged by the conformance suite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from dtimer import TimerBackend
from dtimer.cli.targets import SIM_FEATURES, SimTarget
from dtimer_conformance import BackendSuite


class TestSim(BackendSuite):
    """Every rule, in virtual time."""

    features = SIM_FEATURES
    target = SimTarget()

    def backend(self, namespace: str, clock: Callable[[], int] | None) -> AbstractAsyncContextManager[TimerBackend]:
        return self.target.backend(namespace, clock)
