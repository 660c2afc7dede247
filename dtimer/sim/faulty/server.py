"""The store's end of all links: takes requests in, applies them, answers, and says what is to be said."""

from __future__ import annotations

from typing import cast

from dtimer.errors import BackendError, StoreRefused, StoreUnreachable
from dtimer.protocol import operations as op
from dtimer.protocol.outcomes import ClaimStatus
from dtimer.protocol.values import Claimed, Message, Pulse, Wakeup
from dtimer.sim.descent import Descent
from dtimer.sim.faulty.channels import Channels, Subscription
from dtimer.sim.faulty.exchange import CLOSED, Exchange
from dtimer.sim.faulty.observer import Observer
from dtimer.sim.faulty.store import FaultyStore
from dtimer.sim.loop import SimLoop
from dtimer.sim.rng import Rng


class Server:
    """One store that all hosts share.

    Attributes:
        process: its own.
        observers: of the whole cluster.
        store: what it keeps.
        channels: who listens.
        descent: which posts follow from which, whichever host they are made on.
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
        self._ties = rng.of("ties")
        self._arrivals: dict[int, list[Exchange]] = {}

    # --- requests ---------------------------------------------------------------------------------------

    def expect(self, at_us: int, exchange: Exchange) -> None:
        """A request is under way and will be here at `at_us`."""
        together = self._arrivals.get(at_us)
        if together is None:
            self._arrivals[at_us] = [exchange]
            self.loop.set_timer(self.process, at_us, self._arrived, (at_us,))
        else:
            together.append(exchange)

    def _arrived(self, at_us: int) -> None:
        together = self._arrivals.pop(at_us)
        if len(together) > 1:
            # Not in the order in which they were sent: that one's wire is shorter means nothing.
            together.sort(key=lambda exchange: (exchange.ways ^ self._ties.at(at_us), exchange.backend.host.name))
        for exchange in together:
            if exchange.backend.host.link.arrived(exchange):
                self._serve(exchange)

    def _serve(self, exchange: Exchange) -> None:
        link = exchange.backend.host.link
        operation = exchange.operation
        if operation is None:
            link.answer(exchange, None, self._welcome(exchange))
            return
        connection = exchange.connection
        if connection.cut or connection.generation != self.store.generation:
            link.answer(exchange, None, exchange.lost(CLOSED))
            return
        namespace = exchange.backend.namespace
        try:
            applied = self.store.apply(namespace, operation, self.loop.now_us)
        except StoreRefused as error:
            for observer in self.observers:
                observer.on_refused(link.host.name, exchange.number, operation.method)
            link.answer(exchange, None, error)
            return
        for observer in self.observers:
            observer.on_applied(link.host.name, exchange.number, namespace, operation, applied)
        value = applied.value
        for told in applied.announced:
            self.tell(applied.epoch, told.node, Wakeup(told.due_us, applied.at_us, applied.seq))
        if isinstance(operation, op.Claim) and operation.pulse and cast("Claimed", value).status is ClaimStatus.JOINED:
            self._pulse(applied.epoch, Pulse(operation.member.node, applied.at_us, applied.seq))
        link.answer(exchange, applied, None)

    def _welcome(self, exchange: Exchange) -> BackendError | None:
        """Take a connection or a subscription in; the error if that is refused."""
        if not self.store.up:
            return StoreUnreachable(exchange.method, "Connection refused")
        error = self.store.refusal(exchange.method, None)
        if error is None:
            exchange.connection.generation = self.store.generation
            if exchange.subscription is not None:
                self.channels.add(exchange.subscription)
                exchange.subscription.last_us = self.loop.now_us
        return error

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
        fate = subscription.backend.host.link.carry(subscription, message)
        self._note_said(subscription.node, message, as_if if fate == "heard" else fate)

    def _note_said(self, node: str, message: Message, fate: str) -> None:
        for observer in self.observers:
            observer.on_announced(node, message, fate)

    def _pulse(self, epoch: str, pulse: Pulse) -> None:
        lost: list[str] = []
        for subscription in self.channels.of_epoch(epoch):
            if subscription.backend.host.link.carry(subscription, pulse) == "lost":
                lost.append(subscription.node)
        for observer in self.observers:
            observer.on_pulse(pulse, lost)
