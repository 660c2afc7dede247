"""What a scenario has: a namespace of its own on the store under test, clients, nodes, and its time."""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any, Final

from attrs import define, field

from dtimer import BackendClosed, DTimer, DTimerError, Ended, Event
from dtimer.limits import MILLISECOND_US, SECOND_US
from dtimer.protocol.backend import SupportsPurge, TimerBackend
from dtimer.protocol.values import Pace
from dtimer_conformance.assertions import RuleBroken
from dtimer_conformance.client import Client
from dtimer_conformance.faults import Filter
from dtimer_conformance.features import PROTOCOLS, Feature, SupportsAdvance, SupportsStep
from dtimer_conformance.linearize import check_history
from dtimer_conformance.probe import Probe
from dtimer_conformance.recorder import Recorder
from dtimer_conformance.target import Target

START_US: Final = 1_800_000_000 * SECOND_US
"""Where a clock that is handed in begins: in 2027, so that nobody takes it for the host's."""
STEP: Final = timedelta(milliseconds=5)
POLL_S: Final = 0.002
SLACK_US: Final = 5 * SECOND_US
"""What a busy host may add to a wait in real time before it counts as one that never ends."""
SOON_US: Final = (30 * MILLISECOND_US, 300 * MILLISECOND_US, 3 * SECOND_US)
"""For what must be done before an event is due: where a busy host was too slow for one, the next is tried."""
LEAVE_WITHIN_S: Final = 5.0
QUICK: Final = Pace(pulse_silence_us=150 * MILLISECOND_US, pulse_jitter_us=50 * MILLISECOND_US, poll_us=SECOND_US)
"""For nodes whose announcements get lost: they look by themselves soon (W1)."""


@define
class Clock:
    """A clock that is handed to a backend."""

    now_us: int = START_US

    def read(self) -> int:
        return self.now_us


@define(eq=False)
class Node:
    """A joined timer, with all that it was told.

    Attributes:
        client: its way to the store.
        events: what its handler was given, in order.
        errors: what its error handlers were given.
        ended: what ended here without having been confirmed.
    """

    timer: DTimer[Any]
    client: Client
    events: list[Event[Any]] = field(factory=list)
    errors: list[DTimerError] = field(factory=list)
    ended: list[Ended[Any]] = field(factory=list)

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]

    def die(self) -> None:
        """As a process that is killed: it does not leave, and nothing of it is heard any more."""
        self.client.cut()


class Environment:
    """One namespace on the store under test.

    Attributes:
        store: the first client.
        clock: the one that was handed in; None leaves the time to the store.
        recorder: what all clients were asked and answered.
    """

    store: Client

    def __init__(self, target: Target, features: frozenset[Feature], *, own_clock: bool) -> None:
        self.recorder = Recorder()
        self.features = features
        self.clock = Clock() if Feature.CLOCK in features and not own_clock else None
        self._target = target
        self._namespace = self.fresh_namespace()
        self._stack = AsyncExitStack()
        self._nodes: list[Node] = []
        self._timers: list[tuple[DTimer[Any], Client]] = []
        self._purges: list[TimerBackend] = []

    @staticmethod
    def fresh_namespace() -> str:
        return f"conformance-{secrets.token_hex(8)}"

    # --- from entry to exit, by the runner ----------------------------------------------------------------------

    async def open(self) -> None:
        """Reach the store, and check that the backend is what it was declared to be."""
        self.store = await self.client()
        for feature, protocol in PROTOCOLS.items():
            if feature in self.features and not isinstance(self.store.backend, protocol):
                kind = type(self.store.backend).__name__
                raise RuleBroken(f"Feature.{feature.name} is declared, but {kind} is no {protocol.__name__}")
        await self.store.open()

    async def check(self) -> None:
        """All nodes leave, and what was recorded is judged."""
        self.raise_complaint()
        alive = [timer.leave(drain=False) for timer, client in self._timers if client.open_link]
        async with asyncio.timeout(LEAVE_WITHIN_S):
            await asyncio.gather(*alive)
        self.raise_complaint()
        if not self.recorder.replayable:
            return
        finding = check_history(self.recorder.history, [lost.operation for lost in self.recorder.lost])
        if finding is not None:
            raise RuleBroken(finding.problem, finding.rule, finding.before)

    async def close(self) -> None:
        """Leave nothing behind."""
        try:
            for backend in self._purges:
                if isinstance(backend, SupportsPurge) and Feature.PURGE in self.features:
                    with suppress(BackendClosed):
                        await backend.purge()
        finally:
            await self._stack.aclose()

    def raise_complaint(self) -> None:
        if self.recorder.complaint is not None:
            raise self.recorder.complaint

    # --- clients and nodes -----------------------------------------------------------------------------------------

    async def client(self, *, namespace: str | None = None, pace: Pace | None = None) -> Client:
        """One more client of the store, as of another process; of another namespace if one is given."""
        name = self._namespace if namespace is None else namespace
        reader = None if self.clock is None else self.clock.read
        backend = await self._stack.enter_async_context(self._target.backend(name, reader))
        if backend.namespace != name:
            raise RuleBroken(f"a backend for namespace {name!r} says that its own is {backend.namespace!r}", "F6")
        if name not in {purged.namespace for purged in self._purges}:
            self._purges.append(backend)
        # Each namespace has a history of its own.
        return Client(backend, self.recorder if name == self._namespace else Recorder(), pace=pace)

    async def listen(self, *nodes: str) -> list[Probe]:
        """Hear from now on what these nodes are told, so that announcements to them reach somebody."""
        epoch = (await self.store.open()).epoch
        return [await self._listen(node, epoch) for node in nodes]

    async def _listen(self, node: str, epoch: str) -> Probe:
        listening = await Probe(self.store.wakeups(node, epoch)).start()
        self._stack.push_async_callback(listening.stop)
        return listening

    async def timer(
        self, name: str | None = None, *, pace: Pace | None = None, client: Client | None = None, **options: Any
    ) -> DTimer[Any]:
        """A timer that has not joined, with a client of its own."""
        client = await self.client(pace=pace) if client is None else client
        timer: DTimer[Any] = DTimer(client, node_id=name, **options)
        self._timers.append((timer, client))
        return timer

    async def node(
        self,
        name: str | None = None,
        handler: Callable[[Event[Any]], object] | None = None,
        *,
        pace: Pace | None = None,
        hears: Filter | None = None,
        late_us: int = 0,
        **options: Any,
    ) -> Node:
        """A timer that has joined and notes what it is given.

        Args:
            handler: has its turn after the noting.
            hears, late_us: what it hears of what is said to it, and how much later.
        """
        client = await self.client(pace=pace)
        client.faults.hears, client.faults.late_us = hears, late_us
        node = Node(await self.timer(name, client=client, **options), client)

        def take(event: Event[Any]) -> object:
            node.events.append(event)
            return None if handler is None else handler(event)

        node.timer.on("event", take)
        node.timer.on("error", node.errors.append)
        node.timer.on("ended", node.ended.append)
        await node.timer.join()
        return node

    # --- time ---------------------------------------------------------------------------------------------------------

    @property
    def virtual(self) -> bool:
        """Time stands still unless it is moved, for nodes too."""
        return Feature.ADVANCE in self.features

    async def wait(self, duration_us: int) -> None:
        """Let so much of the store's time pass, or a little more, with all that happens in it."""
        backend = self.store.backend
        if self.clock is not None:
            # A millisecond more, since the store may have run so far ahead by giving each item its own microsecond.
            self.clock.now_us += duration_us + MILLISECOND_US
        elif self.virtual and isinstance(backend, SupportsAdvance):
            await backend.advance(timedelta(microseconds=duration_us))
        else:
            # A millisecond more, for two clocks may run at slightly different speeds.
            await asyncio.sleep((duration_us + MILLISECOND_US) / SECOND_US)
        self.raise_complaint()

    async def set_clock(self, by_us: int) -> None:
        """Set the clock of the store's host forward or back; needs Feature.CLOCK_LEAPS."""
        backend = self.store.backend
        if self.clock is not None:
            self.clock.now_us += by_us
        else:
            assert isinstance(backend, SupportsStep), "the feature is there"
            await backend.step_clock(timedelta(microseconds=by_us))

    async def sleep(self, duration_us: int) -> None:
        """Wait for so long inside a handler, where the clock cannot be moved: this is the handler's work."""
        await self.store.runtime.sleep(duration_us)

    async def until(
        self, what: str, condition: Callable[[], object | Awaitable[object]], *, within_us: int = SECOND_US
    ) -> None:
        """Let time pass until it holds, for so long and, in real time, some slack for a busy host."""
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + (within_us + SLACK_US) / SECOND_US
        num_steps = within_us * 2 // (STEP // timedelta(microseconds=1)) + 2
        backend = self.store.backend
        while True:
            self.raise_complaint()
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            if self.virtual and isinstance(backend, SupportsAdvance):
                num_steps -= 1
                await backend.advance(STEP)
            else:
                await asyncio.sleep(POLL_S)
            if loop.time() > give_up_s or num_steps < 0:
                raise RuleBroken(f"{what}: this did not happen within {within_us / SECOND_US:g} s")
