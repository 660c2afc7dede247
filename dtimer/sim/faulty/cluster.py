"""What faults act on: the hosts and the store of a simulated cluster, and what is to happen to them later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from heapq import heappop, heappush
from typing import Final, Literal, TypeAlias

from dtimer.limits import SECOND_US
from dtimer.sim.faulty.connection import CLOSED
from dtimer.sim.faulty.host import Host
from dtimer.sim.faulty.server import Server

CLIENT: Final = "client"
STORE: Final = "store"
RESTARTED_AFTER_S: Final = 1.0
"""A program that ended with an error is started again so late, as by a supervisor."""
ENDS: Final = 0
BEGINS: Final = 1

_Order: TypeAlias = tuple[int, int, int, str]
"""When, in us; what ends before what begins; then by number, and by name: no two are equal."""


class Cluster:
    """The parts of a simulated cluster.

    Attributes:
        hosts: the nodes and the client, by name.
        stopping: the programs that were asked to end, and after how many seconds they are started again.
    """

    def __init__(self, server: Server, hosts: Mapping[str, Host]) -> None:
        self.server = server
        self.store = server.store
        self.loop = server.loop
        self.hosts = hosts
        self.stopping: dict[str, float | None] = {}
        self._context = self.loop.process("faults").context
        self._plans: list[tuple[_Order, Callable[[], None]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._number = 0

    # --- later ----------------------------------------------------------------------------------------------

    def plan(self, order: _Order, action: Callable[[], None]) -> None:
        """Let something happen at its moment."""
        heappush(self._plans, (order, action))
        self._arm()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call back after a number of seconds, before faults that begin at the same moment."""
        self._number += 1
        self.plan((self.loop.now_us + round(seconds * SECOND_US), ENDS, self._number, ""), action)

    def forget_plans(self) -> None:
        """Nothing that was planned happens."""
        self._plans.clear()

    def _arm(self) -> None:
        # One timer for all, so that it makes no difference whether a fault was drawn or scripted.
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._plans:
            self._timer = self.loop.call_at_us(self._plans[0][0][0], self._fire, context=self._context)

    def _fire(self) -> None:
        self._timer = None
        while self._plans and self._plans[0][0][0] <= self.loop.now_us:
            heappop(self._plans)[1]()
        self._arm()

    # --- programs -------------------------------------------------------------------------------------------

    def start(self, host: Host) -> None:
        """Start a program, if there is one that does not run."""
        if not host.up and host.application is not None:
            host.start()

    def start_later(self, host: Host, down_s: float | None) -> None:
        """Start a program again, unless it is started before; None leaves it to others."""
        if down_s is None:
            return
        ended = host.incarnation

        def start() -> None:
            if host.incarnation == ended:
                self.start(host)

        self.later(down_s, start)

    def ended(self, host: Host, *, failed: bool) -> None:
        """A program has ended by itself. It is started again if it failed, or if it was asked to end for a while."""
        self.start_later(host, RESTARTED_AFTER_S if failed else self.stopping.pop(host.name, None))

    # --- the store --------------------------------------------------------------------------------------------

    def take_store_down(self, lose_s: float | Literal["all"]) -> None:
        """The store's process dies, and loses what it was told in its last seconds."""
        store, now_us = self.store, self.loop.now_us
        store.up = False
        for host in self.hosts.values():
            host.link.disconnect(CLOSED)
        store.generation += 1
        self.server.channels.clear()
        until_us = None if lose_s == "all" else now_us - round(lose_s * SECOND_US)
        if until_us is None:
            store.lose_all()
        elif until_us < now_us:
            store.lose(until_us)
        for observer in self.server.observers:
            observer.on_rolled_back(until_us)
