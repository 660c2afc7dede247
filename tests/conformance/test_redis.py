"""Every server that this host has, judged by the conformance suite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from dtimer import TimerBackend
from dtimer.cli.targets import REDIS_FEATURES, RedisTarget
from dtimer_conformance import BackendSuite, Feature
from support.servers import Server


class TestRedis(BackendSuite):
    """Every rule; calls by a clock that is handed in, nodes by the server's own."""

    features = REDIS_FEATURES
    url: str

    @pytest.fixture(autouse=True)
    def _on(self, server: Server) -> None:
        self.url = server.url

    def backend(self, namespace: str, clock: Callable[[], int] | None) -> AbstractAsyncContextManager[TimerBackend]:
        return RedisTarget(self.url).backend(namespace, clock)


class TestRedisByItsOwnClock(TestRedis):
    """The same as a backend whose time cannot be moved."""

    features = REDIS_FEATURES - {Feature.CLOCK}
