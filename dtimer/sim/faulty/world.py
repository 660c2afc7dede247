"""What a scenario is given: the hosts, a look at the store, and a way to let things go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from dtimer import _validation
from dtimer.limits import NAMESPACE_DEFAULT, SECOND_US
from dtimer.protocol import operations as op
from dtimer.protocol.values import Inspection
from dtimer.sim.faulty.backend import LinkedBackend
from dtimer.sim.faulty.cluster import CLIENT, Cluster
from dtimer.sim.faulty.fault_schedule import Injected, Injector
from dtimer.sim.faulty.faults import Fault, Seconds, seconds
from dtimer.sim.faulty.host import Host
from dtimer.sim.faulty.observer import Field, Observer
from dtimer.sim.faulty.trace import Counts

UNTIL_WITHIN_S: Final = 3_600.0
UNTIL_EVERY_S: Final = 0.01


class World:
    """A simulated cluster, from the outside.

    Attributes:
        client: the host of the scenario; nothing goes wrong with it unless it is named.
        nodes: the names of the nodes.
    """

    def __init__(
        self,
        cluster: Cluster,
        nodes: tuple[str, ...],
        injector: Injector,
        counts: Counts,
    ) -> None:
        self.client = cluster.hosts[CLIENT]
        self.nodes = nodes
        self._server = cluster.server
        self._hosts = cluster.hosts
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

    def inject(self, fault: Fault) -> Injected:
        """Let a fault happen now; it ends by what is returned, or with the ``with`` block that it opens.

        Raises:
            InvalidArgument: the simulation has no node of that name.
        """
        return self._injector.inject(fault)

    def heal(self) -> None:
        """No more faults: what lasts ends, and every program that has ended is started again."""
        self._injector.heal()
