"""The store's end of all links: takes requests in, applies them, answers, and says what is to be said."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol, cast

from dtimer.errors import BackendError, StoreRefused, StoreUnreachable
from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation
from dtimer.protocol.outcomes import ClaimStatus
from dtimer.protocol.values import Applied, Claimed, Message, Pulse, Wakeup
from dtimer.sim.descent import Descent
from dtimer.sim.faulty.channels import Channels, Subscription
from dtimer.sim.faulty.describing import outcome_of, taken_by
from dtimer.sim.faulty.exchange import CLOSED, Exchange
from dtimer.sim.faulty.store import FaultyStore
from dtimer.sim.faulty.trace import Record, Trace
from dtimer.sim.loop import SimLoop
from dtimer.sim.rng import Rng


class Watcher(Protocol):
    """Sees what happens in a run, while it happens. All may be called between any two steps of the nodes."""

    def on_applied(
        self, host: str, number: int, namespace: str, operation: Operation[Any], applied: Applied[Any]
    ) -> None:
        """The store has applied a host's so-many-th call."""
        ...

    def on_fault(self, kind: str, fields: Record) -> None:
        """A fault was injected; `fields` is its record."""
        ...

    def on_rolled_back(self, until_us: int | None) -> None:
        """The store has lost what it applied after `until_us` of the run, or everything (None)."""
        ...


class Server:
    """One store that all hosts share.

    Attributes:
        process: its own.
        store: what it keeps.
        channels: who listens.
        descent: which posts follow from which, whichever host they are made on.
    """

    def __init__(
        self,
        loop: SimLoop,
        rng: Rng,
        *,
        start_us: int,
        trace: Trace,
        counts: Counter[str],
        watchers: list[Watcher],
    ) -> None:
        self.loop = loop
        self.process = loop.process("store")
        self.trace = trace
        self.counts = counts
        self.watchers = watchers
        self.channels = Channels()
        epochs = rng.of("epoch")
        self.store = FaultyStore(
            start_us=start_us, epochs=iter(lambda: epochs.token(8), ""), reach=self.channels.reaches
        )
        self.descent = Descent(lambda: loop.now_us, lambda: start_us + loop.now_us)
        self._ties = rng.of("ties")
        self._arrivals: dict[int, list[Exchange]] = {}
        self._holders: dict[str, str] = {}

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
            self.counts["refused"] += 1
            link.answer(exchange, None, error)
            return
        self.counts["applied"] += 1
        if self.trace.on:
            self._record(exchange, operation, applied)
        for watcher in self.watchers:
            watcher.on_applied(link.host.name, exchange.number, namespace, operation, applied)
        value = applied.value
        if isinstance(value, Claimed):
            self._count(link.host.name, value)
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
        self.counts[f"announcements_{fate}"] += 1
        if self.trace.on:
            record: Record = {"t": self.loop.now_us, "who": "store", "what": "announce", "to": node}
            if isinstance(message, Wakeup):
                record["due"] = message.due_us
                record["seq"] = message.seq
            record["fate"] = fate
            self.trace.add(record)

    def _pulse(self, epoch: str, pulse: Pulse) -> None:
        self.counts["pulses"] += 1
        lost: list[str] = []
        for subscription in self.channels.of_epoch(epoch):
            if subscription.backend.host.link.carry(subscription, pulse) == "lost":
                lost.append(subscription.node)
        if self.trace.on:
            record: Record = {"t": self.loop.now_us, "who": "store", "what": "pulse", "from": pulse.node}
            record["seq"] = pulse.seq
            record["lost"] = list(lost)
            self.trace.add(record)

    # --- for the record -------------------------------------------------------------------------------------

    def _record(self, exchange: Exchange, operation: Operation[object], applied: Applied[object]) -> None:
        record: Record = {
            "t": self.loop.now_us,
            "who": "store",
            "what": "applied",
            "n": exchange.number,
            "method": operation.method,
            "from": exchange.backend.host.name,
            "seq": applied.seq,
            "at": applied.at_us,
            "ids": list(operation.about()),
            "outcome": outcome_of(applied.value),
        }
        if isinstance(operation, op.Claim) and isinstance(applied.value, Claimed):
            record.update(taken_by(operation, applied.value))
        self.trace.add(record)

    def _count(self, host: str, claimed: Claimed) -> None:
        """Retries, and of them those by which one node took over from another."""
        counts, holders = self.counts, self._holders
        counts["claims"] += 1
        for delivery in claimed.deliveries:
            counts["delivered"] += 1
            if delivery.deadline_us is None:
                continue
            id = delivery.receipt.id
            if delivery.num_retries:
                counts["retries"] += 1
                if holders.get(id, host) != host:
                    counts["takeovers"] += 1
            holders[id] = host
        for ended in claimed.ended:
            counts["ended"] += 1
            holders.pop(ended.event.id, None)
