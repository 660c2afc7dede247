"""What a scenario is given: the hosts, the faults as verbs, and a look at the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, Literal

from dtimer import _validation
from dtimer.limits import NAMESPACE_DEFAULT, SECOND_US
from dtimer.protocol import operations as op
from dtimer.protocol.values import Inspection
from dtimer.sim.faulty import faults as f
from dtimer.sim.faulty.backend import LinkedBackend
from dtimer.sim.faulty.faults import Direction, Fault, Loss, Moment, Seconds, seconds
from dtimer.sim.faulty.host import Host
from dtimer.sim.faulty.injector import Injector
from dtimer.sim.faulty.observer import Field, Observer
from dtimer.sim.faulty.server import Server
from dtimer.sim.faulty.store import Refusal
from dtimer.sim.faulty.trace import Counts

CLIENT: Final = "client"
UNTIL_WITHIN_S: Final = 3_600.0
UNTIL_EVERY_S: Final = 0.01


class World:
    """A faulty world, from the outside. Every verb takes effect at once; `False` means that it changed nothing.

    Attributes:
        client: the host of the scenario; nothing goes wrong with it unless it is named.
        nodes: the names of the nodes.
    """

    def __init__(
        self,
        server: Server,
        hosts: Mapping[str, Host],
        nodes: tuple[str, ...],
        injector: Injector,
        counts: Counts,
    ) -> None:
        self.client = hosts[CLIENT]
        self.nodes = nodes
        self._server = server
        self._hosts = hosts
        self._injector = injector
        self._counts = counts

    # --- looking ------------------------------------------------------------------------------------------

    @property
    def now_us(self) -> int:
        """Microseconds since the start."""
        return self._server.loop.now_us

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return self._server.loop.now_us / SECOND_US

    def host(self, name: str) -> Host:
        return self._hosts[name]

    def backend(self, namespace: str = NAMESPACE_DEFAULT) -> LinkedBackend:
        """A backend for the scenario's own timers."""
        return self.client.backend(namespace)

    def inspect(self, namespace: str = NAMESPACE_DEFAULT) -> Inspection | None:
        """The state of a namespace as it is at this instant, without a call; None if there is none."""
        machine = self._server.store.machine(namespace)
        if machine is None:
            return None
        at_us = max(machine.last_us, self._server.store.clock_offset_us + self.now_us)
        return machine.apply(op.Inspect(), at_us=at_us, reach=lambda _: False).value

    def hears(self, node: str, namespace: str = NAMESPACE_DEFAULT) -> bool:
        """Whether the node has a subscription to the wake-ups of a namespace as it is now, and a living one."""
        machine = self._server.store.machine(namespace)
        if machine is None:
            return False
        return any(not subscription.deaf for subscription in self._server.channels.of_node(machine.epoch, node))

    @property
    def counts(self) -> Mapping[str, int]:
        """What has happened so far, by what it is."""
        return self._counts.counts

    @property
    def store_sound(self) -> bool:
        """The store is up and does what it is asked."""
        return self._server.store.sound

    async def until(
        self,
        condition: Callable[[], object],
        *,
        within_s: Seconds = UNTIL_WITHIN_S,
        every_s: Seconds = UNTIL_EVERY_S,
    ) -> None:
        """Wait until a condition holds, looking every so often; raises TimeoutError if it does not come to."""
        every = _validation.finite(seconds(every_s), "every_s")
        async with asyncio.timeout(_validation.finite(seconds(within_s), "within_s")):
            while not condition():  # noqa: ASYNC110 - in virtual time looking costs next to nothing
                await asyncio.sleep(every)

    def note(self, what: str, **fields: Field) -> None:
        """A record of the scenario's own in the trace."""
        for observer in self._server.observers:
            observer.on_note("world", what, fields)

    def observe(self, observer: Observer) -> None:
        """Show everything from now on to an observer."""
        self._server.observers.append(observer)

    # --- faults ---------------------------------------------------------------------------------------------

    def inject(self, fault: Fault) -> bool:
        """Let a fault happen that is at hand as a value."""
        return self._injector.inject(fault)

    def heal(self) -> None:
        """No more faults: what lasts ends, and every program that has ended is started again."""
        self._injector.heal()

    def crash(self, node: str, *, at: Moment = "now", count: int = 1, down_s: Seconds | None = None) -> bool:
        return self.inject(f.Crash(node, down_s, at, count))

    def stop(self, node: str, *, down_s: Seconds | None = None) -> bool:
        return self.inject(f.Stop(node, down_s))

    def restart(self, node: str) -> bool:
        return self.inject(f.Restart(node))

    def pause(self, node: str, *, for_s: Seconds | None = None) -> bool:
        return self.inject(f.Pause(node, for_s))

    def resume(self, node: str) -> bool:
        return self.inject(f.Resume(node))

    def set_wall_clock(self, node: str, *, offset_s: Seconds) -> bool:
        return self.inject(f.SetWallClock(node, offset_s))

    def partition(self, node: str, direction: Direction = "both", *, for_s: Seconds | None = None) -> bool:
        return self.inject(f.Partition(node, direction, for_s))

    def repair(self, node: str) -> bool:
        return self.inject(f.Repair(node))

    def hold(self, node: str, direction: Direction = "both", *, for_s: Seconds | None = None) -> bool:
        return self.inject(f.Hold(node, direction, for_s))

    def release(self, node: str) -> bool:
        return self.inject(f.Release(node))

    def set_latency(self, node: str, min_s: Seconds, max_s: Seconds, *, for_s: Seconds | None = None) -> bool:
        return self.inject(f.Slow(node, min_s, max_s, for_s))

    def lose_requests(self, node: str, count: int = 1, *, how: Loss = "silence") -> bool:
        return self.inject(f.LoseRequests(node, count, how))

    def lose_replies(self, node: str, count: int = 1, *, how: Loss = "silence") -> bool:
        return self.inject(f.LoseReplies(node, count, how))

    def disconnect(self, node: str) -> bool:
        return self.inject(f.Disconnect(node))

    def lose_announcements(self, node: str, *, share: float = 1.0, for_s: Seconds | None = None) -> bool:
        return self.inject(f.LoseAnnouncements(node, share, for_s))

    def delay_announcements(
        self, node: str, by_s: Seconds, *, share: float = 1.0, for_s: Seconds | None = None
    ) -> bool:
        return self.inject(f.DelayAnnouncements(node, by_s, share, for_s))

    def repeat_announcements(
        self, node: str, by_s: Seconds = 1.0, *, share: float = 1.0, for_s: Seconds | None = None
    ) -> bool:
        return self.inject(f.RepeatAnnouncements(node, by_s, share, for_s))

    def forge_announcement(self, node: str, *, due_s: Seconds = 0.0, ahead: int = 1) -> bool:
        return self.inject(f.ForgeAnnouncement(node, due_s, ahead))

    def forge_pulse(self, node: str) -> bool:
        return self.inject(f.ForgePulse(node))

    def garble(self, node: str, text: str = "nonsense") -> bool:
        return self.inject(f.Garble(node, text))

    def deafen(self, node: str) -> bool:
        return self.inject(f.Deafen(node))

    def break_subscription(self, node: str) -> bool:
        return self.inject(f.BreakSubscription(node))

    def restart_store(
        self, *, lose_s: Seconds | Literal["all"] = 0.0, down_s: Seconds = 0.1, loading_s: Seconds = 0.0
    ) -> bool:
        return self.inject(f.RestartStore(lose_s, down_s, loading_s))

    def failover(
        self, *, lose_s: Seconds | Literal["all"] = 0.0, down_s: Seconds = 1.0, clock_by_s: Seconds = 0.0
    ) -> bool:
        return self.inject(f.Failover(lose_s, down_s, clock_by_s))

    def refuse(self, how: Refusal, *, for_s: Seconds | None = None) -> bool:
        return self.inject(f.Refuse(how, for_s))

    def accept(self) -> bool:
        return self.inject(f.Accept())

    def step_clock(self, by_s: Seconds) -> bool:
        return self.inject(f.StepClock(by_s))
