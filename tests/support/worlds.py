"""One test on every backend: the simulator with its virtual time, and real servers with real, short delays."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeAlias

from attrs import define, field
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from typing_extensions import override

from dtimer import DTimer, DTimerError, Ended, Event, LoopBlocked, SimBackend
from dtimer.backends.redis import RedisBackend
from dtimer.protocol.values import Inspection
from support.bounds import LATE_MS
from support.waiting import TIMEOUT_S, until

NAMESPACE: Final = "dt"
SIM_STEP_MS: Final = 5
SIM_TIMEOUT_MS: Final = 600_000

Backend: TypeAlias = SimBackend | RedisBackend


@define(eq=False)
class Node:
    """A joined timer, with all that it was told.

    Attributes:
        events: what its handler was given, in order.
        errors: what its error handler was given, but for blocks of the event loop.
        ended: what ended here without having been confirmed.
    """

    timer: DTimer
    events: list[Event] = field(factory=list)
    errors: list[DTimerError] = field(factory=list)
    ended: list[Ended] = field(factory=list)

    @property
    def id(self) -> str:
        id = self.timer.node_id
        assert id is not None, "it has joined, or was given one"
        return id

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]

    @property
    def attempts(self) -> list[tuple[str, int]]:
        return [(event.id, event.num_retries) for event in self.events]

    def error_types(self) -> list[type[DTimerError]]:
        return [type(error) for error in self.errors]


def without_blocks(note: Callable[[DTimerError], object]) -> Callable[[DTimerError], None]:
    """An error handler that hands on all but blocks of the event loop.

    A busy host may stop any process for a while, which a node takes for such a block.
    """

    def take(error: DTimerError) -> None:
        if not isinstance(error, LoopBlocked):
            note(error)

    return take


def lateness_ms(event: Event) -> float:
    """By the store's clock."""
    return event.lateness / timedelta(milliseconds=1)


def gaps_ms(events: list[Event]) -> list[float]:
    """Between deliveries, by the store's clock."""
    gaps = [later.delivered_at - earlier.delivered_at for earlier, later in pairwise(events)]
    return [gap / timedelta(milliseconds=1) for gap in gaps]


class World(ABC):
    """A store, its time, and the timers that one test has on it.

    Attributes:
        prompt_ms: what is on time is not later than this. On a real server it says little, for a busy host may stop
            any process for a while; in virtual time it is exact.
    """

    prompt_ms: float

    def __init__(self) -> None:
        self._timers: list[DTimer[Any]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.gather(*(timer.leave(drain=False) for timer in self._timers))
        await self._close()

    @abstractmethod
    async def _close(self) -> None: ...

    @abstractmethod
    def backend(self) -> Backend:
        """Of another process, as it were: a simulator is shared, connections to a server are not."""

    @abstractmethod
    async def until(self, condition: Callable[[], object]) -> None:
        """Let time pass until it holds; ``TimeoutError`` if it never does."""

    @abstractmethod
    async def passes(self, duration_ms: float) -> None:
        """Let so much of the store's time pass, with all that happens in it."""

    @abstractmethod
    async def sleep(self, duration_ms: float) -> None:
        """For handlers."""

    @abstractmethod
    async def nothing_is_kept(self) -> bool:
        """No event is left in the store, nor any trace of one."""

    async def inspect(self) -> Inspection:
        return (await self._looker.inspect()).value

    @property
    def _looker(self) -> Backend:
        return self.backend()

    def timer(self, node_id: str | None = None, **options: Any) -> DTimer:
        """One that has not joined."""
        timer: DTimer = DTimer(self.backend(), node_id=node_id, **options)
        self.keep(timer)
        return timer

    def keep(self, timer: DTimer[Any]) -> None:
        """It leaves when the test ends."""
        self._timers.append(timer)

    async def node(
        self, node_id: str | None = None, handler: Callable[[Event], object] | None = None, **options: Any
    ) -> Node:
        """One that has joined; it notes what it is told, then the handler has its turn."""
        node = Node(self.timer(node_id, **options))

        def take(event: Event) -> object:
            node.events.append(event)
            return None if handler is None else handler(event)

        node.timer.on("event", take)
        node.timer.on("error", without_blocks(node.errors.append))
        node.timer.on("ended", node.ended.append)
        await node.timer.join()
        return node

    async def taken(self, count: int, *nodes: Node) -> None:
        """Let time pass until the nodes have been given so many events together."""
        await self.until(lambda: sum(len(node.events) for node in nodes) >= count)

    async def until_quiet(self) -> None:
        """Return when no event is left: all have been taken, and confirmed if they must be."""
        while (await self.inspect()).live:
            await self.passes(SIM_STEP_MS)


class SimWorld(World):
    """In virtual time."""

    prompt_ms = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.sim = SimBackend(namespace=NAMESPACE)

    @override
    async def _close(self) -> None:
        await self.sim.close()

    @override
    def backend(self) -> Backend:
        return self.sim

    @override
    async def until(self, condition: Callable[[], object]) -> None:
        await self.sim.run_until_idle()
        for _ in range(SIM_TIMEOUT_MS // SIM_STEP_MS):
            if condition():
                return
            await self.sim.advance(SIM_STEP_MS)
        raise TimeoutError

    @override
    async def passes(self, duration_ms: float) -> None:
        await self.sim.advance(duration_ms)

    @override
    async def sleep(self, duration_ms: float) -> None:
        await self.sim.sleep(duration_ms)

    @override
    async def nothing_is_kept(self) -> bool:
        await self.sim.run_until_idle()
        return not (await self.inspect()).live


class Address(Protocol):
    """Where a server, or a proxy before it, listens."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


class RedisWorld(World):
    """In real time."""

    prompt_ms = LATE_MS

    def __init__(self, server: Address, *, proxy: Address | None = None, **options: Any) -> None:
        """
        Args:
            proxy: before the server, if all timers are to use one.
            options: of each backend.
        """
        super().__init__()
        self._server = server
        self._way = server if proxy is None else proxy
        self._options = options
        self._backends: list[RedisBackend] = []
        self._own: RedisBackend | None = None

    @override
    async def _close(self) -> None:
        for backend in self._backends:
            await backend.close()

    @override
    def backend(self, **options: Any) -> RedisBackend:
        backend = RedisBackend(
            Redis(host=self._way.host, port=self._way.port), NAMESPACE, **{**self._options, **options}
        )
        self._backends.append(backend)
        return backend

    @property
    @override
    def _looker(self) -> RedisBackend:
        if self._own is None:
            self._own = self.backend()
        return self._own

    @override
    async def until(self, condition: Callable[[], object]) -> None:
        await until(condition, timeout_s=TIMEOUT_S)

    @override
    async def passes(self, duration_ms: float) -> None:
        await asyncio.sleep(duration_ms / 1_000)

    @override
    async def sleep(self, duration_ms: float) -> None:
        await asyncio.sleep(duration_ms / 1_000)

    @override
    async def nothing_is_kept(self) -> bool:
        with BlockingRedis(host=self._server.host, port=self._server.port) as client:
            keys = [f"{{{NAMESPACE}}}:{name}" for name in ("queue", "records", "states", "letters", "buried")]
            return not client.exists(*keys)
