"""From what a user names to what is judged: ``sim``, a server's URL, or ``package.module:factory``."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import AsyncGenerator, Callable
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, Final, TypeAlias, cast

from attrs import define, field, frozen

from dtimer import RedisBackend, SimBackend
from dtimer.cli.errors import UsageError
from dtimer.errors import InvalidArgument
from dtimer.protocol.backend import TimerBackend
from dtimer.safe_repr import safe_repr
from dtimer.sim.backend import SERVER
from dtimer.sim.durations import MICROSECOND
from dtimer_conformance.features import Feature
from dtimer_conformance.suite import BackendSuite
from dtimer_conformance.target import Target

Factory: TypeAlias = Callable[[str, Callable[[], int] | None], AbstractAsyncContextManager[TimerBackend]]

URL_SCHEMES: Final = ("redis://", "rediss://", "unix://")

_BOTH: Final = frozenset(
    {
        Feature.DEAD_LETTERS,
        Feature.INSPECTION,
        Feature.CLOCK_RESET,
        Feature.PURGE,
        Feature.REACH,
        Feature.FOREIGN_RECORDS,
        Feature.BRANCHES,
    }
)
SIM_FEATURES: Final = _BOTH | {Feature.ADVANCE, Feature.STEP}
REDIS_FEATURES: Final = _BOTH | {Feature.CLOCK, Feature.FOREIGN_SCHEMA}


class UnknownTarget(UsageError):
    """A target that cannot be judged; the message says why."""


class _OpenSim(SimBackend):
    """A simulator into which others can write, and whose clock they can set."""

    @property
    def server_for_tests(self) -> str | None:
        return self._server

    @server_for_tests.setter
    def server_for_tests(self, name: str | None) -> None:
        self._server = SERVER if name is None else name

    async def write_record(self, id: str, raw: bytes, due_us: int) -> None:
        self._machine.plant(id, raw, due_us)

    async def step_clock(self, by: timedelta) -> None:
        self._host_off_us += by // MICROSECOND


@define
class SimTarget:
    """The simulator: one for each namespace, shared by all of its clients."""

    features: AbstractSet[Feature] = SIM_FEATURES
    _sims: dict[str, _OpenSim] = field(factory=dict)
    _made: int = 0

    @asynccontextmanager
    async def backend(self, namespace: str, clock: Callable[[], int] | None) -> AsyncGenerator[TimerBackend]:
        if namespace not in self._sims:
            # Another seed for each, or two namespaces would have one epoch.
            self._made += 1
            self._sims[namespace] = _OpenSim(namespace=namespace, seed=self._made)
        try:
            yield self._sims[namespace]
        finally:
            # Not closed, for there is one for all; and forgotten, for each test has a namespace of its own.
            self._sims.pop(namespace, None)


class _OpenRedis(RedisBackend):
    """A Redis backend into whose keys others can write (see ``docs/reference/redis-keys.md``)."""

    async def write_record(self, id: str, raw: bytes, due_us: int) -> None:
        keys, connections = self._keys.prefix, await self._connected("write_record")
        await connections.request("write_record", b"HSET", f"{keys}records", id, raw)
        await connections.request("write_record", b"ZADD", f"{keys}queue", due_us, id)

    async def write_schema(self, number: int) -> None:
        connections = await self._connected("write_schema")
        await connections.request("write_schema", b"HSET", f"{self._keys.prefix}meta", b"schema", number)


@frozen
class RedisTarget:
    """A Redis or Valkey server."""

    url: str
    features: AbstractSet[Feature] = REDIS_FEATURES

    @asynccontextmanager
    async def backend(self, namespace: str, clock: Callable[[], int] | None) -> AsyncGenerator[TimerBackend]:
        backend = _OpenRedis.from_url(self.url, namespace, clock_for_tests=clock)
        try:
            yield backend
        finally:
            await backend.close()


@frozen
class FactoryTarget:
    """Somebody's function that makes backends."""

    make: Factory
    features: AbstractSet[Feature]

    def backend(self, namespace: str, clock: Callable[[], int] | None) -> AbstractAsyncContextManager[TimerBackend]:
        return self.make(namespace, clock)


def find_target(name: str) -> Target:
    """What a user means.

    A factory is a :class:`BackendSuite`, or a function like its method `backend`; the function's features are those of
    its attribute `features`, if it has one.

    Raises:
        UnknownTarget: there is no such thing.
    """
    if name == "sim":
        return SimTarget()
    if "://" in name:
        try:
            # Made for its checks only: it connects to nothing.
            RedisBackend.from_url(name)
        except InvalidArgument as error:
            raise UnknownTarget(str(error)) from error
        return RedisTarget(name)
    module_name, colon, attribute = name.partition(":")
    if not colon:
        raise UnknownTarget(f"{name!r} is neither 'sim', nor a {', '.join(URL_SCHEMES)} URL, nor a module:factory")
    try:
        return _made_by(name, getattr(importlib.import_module(module_name), attribute))
    except UnknownTarget:
        raise
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise UnknownTarget(f"{name!r} cannot be imported: {safe_repr(error)}") from error


def _made_by(name: str, found: Any) -> Target:
    if inspect.isclass(found) and issubclass(found, BackendSuite):
        return found()
    if not callable(found):
        raise UnknownTarget(f"{name!r} is {safe_repr(found)}, which makes nothing")
    features: AbstractSet[Feature] = getattr(found, "features", frozenset[Feature]())
    return FactoryTarget(cast("Factory", found), features)
