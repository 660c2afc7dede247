"""A simulated cluster whose nodes handle every event, and note it."""

from __future__ import annotations

from attrs import define, field

from dtimer import DTimer, Event, JsonValue
from dtimer.sim import Host, Simulation


@define
class Shop:
    """The program of all nodes, and what they did.

    Attributes:
        handled: node, event and delivery, in the order in which the handlers returned.
        timers: of each node, the newest process's.
        errors: what was reported to a node.
    """

    simulation: Simulation
    max_events: int = 8
    handled: list[tuple[str, str, int]] = field(factory=list)
    timers: dict[str, DTimer[JsonValue]] = field(factory=dict)
    errors: list[tuple[str, Exception]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.simulation.node(self.program)

    async def program(self, host: Host) -> None:
        timer = DTimer(host.backend(), node_id=host.name, max_events=self.max_events)
        self.timers[host.name] = timer
        timer.on("error", lambda error: self.errors.append((host.name, error)))

        @timer.on("event")
        async def handle(event: Event[JsonValue]) -> None:
            async with event:
                self.handled.append((host.name, event.id, event.delivery_number))

        async with timer:
            await host.forever()
