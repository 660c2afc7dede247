"""Makes things go wrong: at the moments of a script, by the rates of a draw, or when it is called for.

Each draw depends on the seed, the kind of the fault, its target and a counter, so a kind that is left out changes no
other. All that was injected from the script or a draw is noted with its moment, as a script that does the same again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from typing import Final, TypeAlias

from attrs import frozen

from dtimer.errors import InvalidArgument
from dtimer.limits import SECOND_US
from dtimer.safe_repr import safe_repr
from dtimer.sim.faulty.effects import Effect, Effects
from dtimer.sim.faulty.faults import KINDS, Fault, NodeFault, to_us
from dtimer.sim.faulty.host import Host
from dtimer.sim.faulty.observer import Field
from dtimer.sim.faulty.plan import Faults, Rate
from dtimer.sim.faulty.server import Server
from dtimer.sim.rng import Rng

RESTARTED_AFTER_S: Final = 1.0
"""Whoever looks after a program that ended with an error starts it again so late."""
SWARM: Final = (0.0, 0.3, 1.0, 3.0)
"""By one of these is the rate of a kind multiplied where the seed draws which kinds occur."""
STORE: Final = "store"

_HOUR_US: Final = 3_600 * SECOND_US
_ENDS: Final = 0
_BEGINS: Final = 1
_Order: TypeAlias = tuple[int, int, int, str]
"""When, in us; what ends before what begins; then by number, and by name: no two are equal."""


@frozen
class _Active:
    """A fault that lasts; `undo` ends it."""

    fault: Fault
    undo: Callable[[], None]


class Injector:
    """Of one run.

    Attributes:
        script: what was injected from the script or a draw, with its moment in seconds.
        healed: no more faults.
        stopped: the programs that were asked to end, and for how many seconds.
    """

    def __init__(
        self, faults: Faults, server: Server, hosts: Mapping[str, Host], targets: Sequence[str], rng: Rng
    ) -> None:
        """
        Args:
            hosts: all that faults may name.
            targets: those about which faults are drawn.
        """
        self.script: list[tuple[float, Fault]] = []
        self._faults = faults
        self._server = server
        self._loop = server.loop
        self._hosts = hosts
        self._rng = rng
        self._effects = Effects(server, hosts, self)
        self._context = self._loop.process("faults").context
        self._plans: list[tuple[_Order, Callable[[], None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._active: dict[int, _Active] = {}
        self._number = 0
        self.stopped: dict[str, float | None] = {}
        self.healed = False
        for index, (at_s, fault) in enumerate(faults.script):
            self._check(fault, "faults")
            self._plan((to_us(at_s), _BEGINS, 1 + index, ""), partial(self._inject_scripted, fault))
        for kind, usual in faults.rates.items():
            swarm = rng.of("swarm", kind).pick(SWARM) if faults.swarm else 1.0
            rate = Rate(usual.per_hour * swarm, usual.choices)
            if rate.per_hour > 0:
                for target in targets if issubclass(KINDS[kind], NodeFault) else (STORE,):
                    self._plan_drawn(kind, target, rate)

    # --- from outside -----------------------------------------------------------------------------------

    def inject(self, fault: Fault) -> bool:
        """Let it happen now; False if it changes nothing, such as the crash of what is down.

        Raises:
            InvalidArgument: there is no such node.
        """
        self._check(fault, "fault")
        effect = self._effects.of(fault)
        if effect is None:
            return False
        number = self._next_number()
        for observer in self._server.observers:
            observer.on_fault(fault.kind, _target(fault), _parameters(fault))
        begin, undo, for_s = effect
        if undo is not None:
            self._lasts(number, fault, undo, for_s)
        begin()
        return True

    def heal(self) -> None:
        """No more faults; whatever lasts ends now, and every program that ended is started again."""
        self.healed = True
        self._plans.clear()
        for number in tuple(self._active):
            self._end(number)
        for host in self._hosts.values():
            host.doomed.clear()
            host.link.heal()
            self._start(host)

    def ended(self, host: Host, *, failed: bool) -> None:
        """A program has ended by itself. It is started again if it failed, or if it was asked to end for a while."""
        self.start_later(host, RESTARTED_AFTER_S if failed else self.stopped.pop(host.name, None))

    # --- when ---------------------------------------------------------------------------------------------

    def _plan(self, order: _Order, action: Callable[[], None]) -> None:
        heappush(self._plans, (order, action))
        self._arm()

    def _arm(self) -> None:
        # One timer for all, so that it makes no difference whether a fault was drawn or scripted.
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._plans:
            self._timer = self._loop.call_at_us(self._plans[0][0][0], self._fire, context=self._context)

    def _fire(self) -> None:
        self._timer = None
        while self._plans and self._plans[0][0][0] <= self._loop.now_us:
            heappop(self._plans)[1]()
        self._arm()

    def _inject_scripted(self, fault: Fault) -> None:
        if self.inject(fault):
            self.script.append((self._loop.now_us / SECOND_US, fault))

    def _plan_drawn(self, kind: str, target: str, rate: Rate, *, number: int = 0, after_us: int = 0) -> None:
        rng = self._rng.of(kind, target, number)
        when_us = after_us + 1 + rng.exponential(round(_HOUR_US / rate.per_hour))
        if self._faults.until_s is not None and when_us > to_us(self._faults.until_s):
            return

        def happen() -> None:
            fault = KINDS[kind]
            given = {"node": target} if issubclass(fault, NodeFault) else {}
            self._inject_scripted(fault.drawn(lambda name: rng.of(name).fraction(), rate.choices, **given))
            if not self.healed:
                self._plan_drawn(kind, target, rate, number=number + 1, after_us=when_us)

        self._plan((when_us, _BEGINS, 0, f"{kind} {target}"), happen)

    # --- what -----------------------------------------------------------------------------------------------

    def _check(self, fault: Fault, argument: str) -> None:
        if isinstance(fault, NodeFault) and fault.node not in self._hosts:
            hosts = ", ".join(self._hosts)
            raise InvalidArgument(argument, f"must be about one of {hosts}, not {safe_repr(fault.node)}")

    def _end(self, number: int) -> None:
        active = self._active.pop(number, None)
        if active is not None:
            active.undo()
            for observer in self._server.observers:
                observer.on_fault_end(active.fault.kind, _target(active.fault))

    # --- what effects ask for --------------------------------------------------------------------------------

    def lasts(self, fault: Fault, undo: Callable[[], None], for_s: float | None) -> None:
        self._lasts(self._next_number(), fault, undo, for_s)

    def end_all(self, kind: type[Fault], node: str | None) -> Effect:
        ending = [
            number
            for number, active in self._active.items()
            if isinstance(active.fault, kind) and getattr(active.fault, "node", None) == node
        ]
        if not ending:
            return None

        def end() -> None:
            for number in ending:
                self._end(number)

        return end, None, None

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _lasts(self, number: int, fault: Fault, undo: Callable[[], None], for_s: float | None) -> None:
        self._active[number] = _Active(fault, undo)
        if for_s is not None:
            self._plan((self._loop.now_us + to_us(for_s), _ENDS, number, ""), partial(self._end, number))

    def _start(self, host: Host) -> None:
        if not host.up and host.application is not None:
            host.start()

    def start_later(self, host: Host, down_s: float | None) -> None:
        if down_s is None:
            return
        ended = host.incarnation

        def start() -> None:
            if not host.up and host.incarnation == ended:
                self._start(host)

        self._plan((self._loop.now_us + to_us(down_s), _ENDS, self._next_number(), ""), start)


def _target(fault: Fault) -> str:
    return fault.node if isinstance(fault, NodeFault) else STORE


def _parameters(fault: Fault) -> dict[str, Field]:
    """As observers are told of them."""
    return {
        f"{name[:-2]}_us" if name.endswith("_s") else name: _trace_value(name, value)
        for name, value in fault.to_json().items()
        if name not in {"fault", "node"}
    }


def _trace_value(name: str, value: object) -> Field:
    """A trace holds no floats: seconds as microseconds, a share in thousandths."""
    if isinstance(value, float):
        return to_us(value) if name.endswith("_s") else round(value * 1_000)
    assert isinstance(value, int | str) or value is None, "a parameter is a number or a word"
    return value
