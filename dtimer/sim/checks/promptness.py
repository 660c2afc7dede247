"""Nobody waits longer than was promised, and no node is forgotten (rules D7, N4 and W1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import define
from typing_extensions import override

from dtimer.limits import MILLISECOND_US, POLL_MAX_US, REPEAT_WITHIN_US, SECOND_US
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Applied, Claimed, Delivery, Parked
from dtimer.sim.checks.violation import Complain
from dtimer.sim.faulty.host import Host
from dtimer.sim.faulty.observer import Field, Observer
from dtimer.sim.faulty.world import World

BOUND_US: Final = 1_100 * MILLISECOND_US
"""An event may be so late while a node with room can reach the store: a second, and the ways of two calls."""
PEACE_BOUND_US: Final = 100 * MILLISECOND_US
"""The same while nothing is wrong with anybody: whoever is armed comes, and others take what is overdue by 50 ms."""
RECOVERY_US: Final = 20 * SECOND_US
"""So long after its last trouble a node is a full member again: its longest silent call has ended (5 s), its longest
pause between tries is over (2 s), it has missed its own pulse, and it has claimed."""
SILENCE_US: Final = POLL_MAX_US + 2 * REPEAT_WITHIN_US
"""A node in good health is not silent for longer."""
LOOK_US: Final = SECOND_US
CALLS_MAX: Final = 400
"""In one look, of a node that is given nothing: more is a loop without a pause."""

_UNSETTLING: Final = frozenset({"step_clock", "false_announcement", "restart_store", "refuse"})
"""They concern all nodes: clocks that jump make everything late at once, and false pulses keep nodes from looking."""


@define
class _Health:
    """A node as it was seen from outside.

    Attributes:
        well_since_us: nothing has been wrong with it, or with its way to the store, since then.
        called_us: its last call that reached the store.
        room: what its last claim left.
        calls, taken: since the last look.
    """

    well_since_us: int | None = None
    called_us: int = 0
    room: int = 0
    calls: int = 0
    taken: int = 0


class Promptness(Observer):
    """Sees who calls; :meth:`look` is to be called every `LOOK_US`."""

    def __init__(self, world: World, complain: Complain) -> None:
        self._world = world
        self._complain = complain
        self._nodes = {name: _Health() for name in world.nodes}
        self._unsettled_us = 0

    # --- what is watched ---------------------------------------------------------------------------------

    @override
    def on_applied(
        self, host: str, number: int, namespace: str, operation: Operation[Any], applied: Applied[Any]
    ) -> None:
        node = self._nodes.get(host)
        if node is None:
            return
        node.called_us = self._world.now_us
        node.calls += 1
        if isinstance(operation, op.Claim):
            claimed: Claimed = applied.value
            taken = len(claimed.deliveries)
            node.room = operation.room - taken
            node.taken += taken + len(claimed.ended)

    @override
    def on_fault(self, kind: str, node: str, parameters: Mapping[str, Field]) -> None:
        if kind == "step_clock" and node != "store":
            return
        if kind in _UNSETTLING and parameters.get("told") != "garbage":
            self._unsettled_us = self._world.now_us
            for health in self._nodes.values():
                health.well_since_us = None
        about = self._nodes.get(node)
        if about is not None:
            about.well_since_us = None

    def delivered(self, host: str, delivery: Delivery) -> None:
        """A delivery: it must not be late if somebody could have taken it."""
        late_us = delivery.at_us - delivery.due_us
        if late_us <= PEACE_BOUND_US:
            return
        before_us = self._world.now_us - late_us - RECOVERY_US
        if self._unsettled_us > before_us:
            return
        well = [node.well_since_us is not None and node.well_since_us <= before_us for node in self._nodes.values()]
        if late_us <= BOUND_US and not all(well):
            return
        for (name, node), is_well in zip(self._nodes.items(), well, strict=True):
            if is_well and node.room > 0:
                words = f"{late_us / SECOND_US:.3f} s late, though {name} had room and could reach the store"
                self._complain("D7", host, delivery.event.id, words)
                return

    # --- now and then -------------------------------------------------------------------------------------

    def look(self) -> None:
        """See who is well, and that nobody who is well is silent or restless."""
        now_us = self._world.now_us
        for name, node in self._nodes.items():
            calls, taken = node.calls, node.taken
            node.calls = node.taken = 0
            if not self._is_well(self._world.host(name)):
                node.well_since_us = None
                continue
            if node.well_since_us is None:
                node.well_since_us = now_us
            if now_us - node.well_since_us <= RECOVERY_US:
                continue
            if now_us - node.called_us > SILENCE_US:
                self._complain("N4", name, "", f"it has not called for {(now_us - node.called_us) / SECOND_US:.1f} s")
                node.well_since_us = None
            if calls > CALLS_MAX and not taken:
                self._complain(
                    "W1", name, "", f"it made {calls} calls in {LOOK_US / SECOND_US:g} s and was given nothing"
                )

    def members(self) -> None:
        """After peace was made: every node is in the ring, and none is passed over."""
        seen = self._world.inspect()
        ring = {} if seen is None else {member.node: member for member in seen.ring}
        for name in self._nodes:
            member = ring.get(name)
            if member is None:
                self._complain("N4", name, "", "it is not in the ring, long after the last fault")
            elif member.parked not in {None, Parked.FULL}:
                self._complain("N4", name, "", f"it is parked as {member.parked}, long after the last fault")
            elif self._nodes[name].room > 0 and not self._world.hears(name):
                # One without room does not look by itself, and so cannot miss its own pulse.
                self._complain("N4", name, "", "it hears no wake-ups, long after the last fault")

    def _is_well(self, host: Host) -> bool:
        link = host.link
        return (
            host.up
            and not host.paused
            and not host.stopping
            and not host.doomed
            and link.sound
            and self._world.store_sound
        )
