"""The store's end of all links: takes requests in, applies them, answers, and says what is to be said."""

from __future__ import annotations

from typing import cast

from dtimer.errors import BackendError, StoreRefused, StoreUnreachable
from dtimer.protocol import operations as op
from dtimer.protocol.outcomes import ClaimStatus
from dtimer.protocol.values import Applied, Claimed, Message, Pulse, Wakeup
from dtimer.sim.descent import Descent
from dtimer.sim.faulty.connection import CLOSED, Channels, Request, Subscription
from dtimer.sim.faulty.observer import Observer
from dtimer.sim.faulty.store import FaultyStore
from dtimer.sim.loop import SimLoop
from dtimer.sim.overdue import Looks, Overdue
from dtimer.sim.rng import Rng


class Server:
    """One store that all hosts share.

    Attributes:
        process: its own.
        observers: of the whole cluster.
        store: what it keeps.
        channels: who listens.
        descent: which posts follow from which, whichever host they are made on.
        faultless: no fault was injected so far, so no announcement can be lost, and nodes need not look by themselves.
        looks: notified when nodes are to look all the same.
    """

    def __init__(self, loop: SimLoop, rng: Rng, *, start_us: int, observers: list[Observer]) -> None:
        self.loop = loop
        self.process = loop.process("store")
        self.observers = observers
        self.channels = Channels()
        epochs = rng.of("epoch")
        self.store = FaultyStore(
            start_us=start_us, epochs=iter(lambda: epochs.token(8), ""), reach=self.channels.reaches
        )
        self.descent = Descent(lambda: loop.now_us, lambda: start_us + loop.now_us)
        self.faultless = True
        self.looks = Looks()
        self._overdue: dict[str, Overdue] = {}
        self._ties = rng.of("ties")
        self._arrivals: dict[int, list[Request]] = {}

    # --- requests ---------------------------------------------------------------------------------------

    def expect(self, at_us: int, request: Request) -> None:
        """A request is under way and will be here at `at_us`."""
        together = self._arrivals.get(at_us)
        if together is None:
            self._arrivals[at_us] = [request]
            self.loop.set_timer(self.process, at_us, self._arrived, (at_us,))
        else:
            together.append(request)

    def _arrived(self, at_us: int) -> None:
        together = self._arrivals.pop(at_us)
        if len(together) > 1:
            # Not in the order in which they were sent: that one's wire is shorter means nothing.
            together.sort(key=lambda request: (request.bits ^ self._ties.at(at_us), request.way.name))
        for request in together:
            if request.way.arrived(request):
                self._serve(request)

    def _serve(self, request: Request) -> None:
        way = request.way
        operation = request.operation
        if operation is None:
            way.answer(request, None, self._welcome(request))
            return
        connection = request.connection
        if connection.cut or connection.generation != self.store.generation:
            way.answer(request, None, request.lost(CLOSED))
            return
        namespace = request.namespace
        try:
            applied = self.store.apply(namespace, operation, self.loop.now_us)
        except StoreRefused as error:
            for observer in self.observers:
                observer.on_refused(way.name, request.number, operation.method)
            way.answer(request, None, error)
            return
        for observer in self.observers:
            observer.on_applied(way.name, request.number, namespace, operation, applied)
        if self.faultless:
            self._see_overdue(namespace, applied)
        value = applied.value
        for told in applied.announced:
            self.tell(applied.epoch, told.node, Wakeup(told.due_us, applied.at_us, applied.seq))
        if isinstance(operation, op.Claim) and operation.pulse and cast("Claimed", value).status is ClaimStatus.JOINED:
            self._pulse(applied.epoch, Pulse(operation.member.node, applied.at_us, applied.seq))
        way.answer(request, applied, None)

    def _welcome(self, request: Request) -> BackendError | None:
        """Take a connection or a subscription in; the error if that is refused."""
        if not self.store.up:
            return StoreUnreachable(request.method, "Connection refused")
        error = self.store.refusal(request.method, None)
        if error is None:
            request.connection.generation = self.store.generation
            if request.subscription is not None:
                self.channels.add(request.subscription)
                request.subscription.last_us = self.loop.now_us
        return error

    # --- nodes that need not look ---------------------------------------------------------------------------

    def _see_overdue(self, namespace: str, applied: Applied[object]) -> None:
        overdue = self._overdue.get(namespace)
        if overdue is None:
            loop, process = self.loop, self.process
            overdue = self._overdue[namespace] = Overdue(
                self.looks, lambda: loop.now_us, lambda at_us, callback: loop.set_timer(process, at_us, callback)
            )
        machine = self.store.machine(namespace)
        assert machine is not None, "it has applied something just now"
        head_us = machine.head_us
        overdue.applied(applied, None if head_us is None else head_us - self.store.clock_offset_us)

    def fault(self) -> None:
        """A fault is about to be injected: from now on nodes look as often as in production, as after a pulse (W1)."""
        if self.faultless:
            self.faultless = False
            self.looks.clear()
            for subscription in self.channels.of_all():
                machine = self.store.machine(subscription.namespace)
                assert machine is not None, "it has told its epoch, and nothing was lost so far"
                subscription.way.carry(subscription, Pulse(self.process.name, machine.last_us, machine.seq))

    # --- announcements ------------------------------------------------------------------------------------

    def tell(self, epoch: str, node: str, message: Wakeup) -> None:
        """Say something to one node. Who is not there does not hear it."""
        subscriptions = self.channels.of_node(epoch, node)
        for subscription in subscriptions:
            self.say(subscription, message)
        if not subscriptions:
            self._note_said(node, message, "unheard")

    def say(self, subscription: Subscription, message: Message, as_if: str = "heard") -> None:
        """Say something on one subscription; if it is heard, the record calls it as it is named."""
        fate = subscription.way.carry(subscription, message)
        self._note_said(subscription.node, message, as_if if fate == "heard" else fate)

    def _note_said(self, node: str, message: Message, fate: str) -> None:
        for observer in self.observers:
            observer.on_announced(node, message, fate)

    def _pulse(self, epoch: str, pulse: Pulse) -> None:
        lost: list[str] = []
        for subscription in self.channels.of_epoch(epoch):
            if subscription.way.carry(subscription, pulse) == "lost":
                lost.append(subscription.node)
        for observer in self.observers:
            observer.on_pulse(pulse, lost)
