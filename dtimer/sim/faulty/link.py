"""The way between one host and the store, and what goes wrong on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import define

from dtimer.errors import BackendError
from dtimer.limits import SECOND_US
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Applied, Message
from dtimer.sim.faulty.channels import WAKEUPS, Subscription
from dtimer.sim.faulty.exchange import CLOSED, Connection, Exchange
from dtimer.sim.rng import Rng

if TYPE_CHECKING:
    from dtimer.sim.faulty.backend import LinkedBackend
    from dtimer.sim.faulty.host import Host
    from dtimer.sim.faulty.server import Server

WAY_MIN_US: Final = 100
WAY_MAX_US: Final = 500
"""One way within a data centre."""
CONNECT_WAYS: Final = 2
SUBSCRIBE_WAYS: Final = 3
"""As often as a single request does a connection, or a subscription, go to and fro."""
KEEPALIVE_US: Final = 300 * SECOND_US
"""So late does a server find out that a client is gone which could not say so."""

Direction: TypeAlias = Literal["both", "to_store", "from_store"]
Part: TypeAlias = Literal["request", "reply"]
Loss: TypeAlias = Literal["silence", "disconnect"]
"""How the ends of a connection learn that something on it was lost."""
Spoil: TypeAlias = Literal["lose", "delay", "repeat"]

_LOW: Final = (1 << 32) - 1


@define(eq=False)
class Spoiler:
    """Something that is done to a share of all announcements."""

    how: Spoil
    share: float
    by_us: int


class Link:
    """One host's. It outlives the host's processes.

    Attributes:
        spoilers: what is done to announcements.
        latencies: pairs of the shortest and the longest way in us; the newest counts.
        lost_to, lost_from: how many reasons there are for which what is sent (to the store, from the store) is lost;
        held_to, held_from: the same for being held back.
    """

    def __init__(self, host: Host, server: Server, rng: Rng) -> None:
        self.host = host
        self.spoilers: list[Spoiler] = []
        self.latencies: list[tuple[int, int]] = []
        self.lost_to = self.lost_from = self.held_to = self.held_from = 0
        self._server = server
        self._loop = server.loop
        self._observers = server.observers
        self._to_lose: dict[Part, list[Loss]] = {"request": [], "reply": []}
        self._waiting_to: list[Exchange] = []
        self._waiting_from: list[Callable[[], None]] = []
        self._of_calls = rng.of("call")
        self._of_connects = rng.of("connect")
        self._of_messages = rng.of("message")
        self._of_spoilers = rng.of("spoiler")
        self._of_others = rng.of("other")
        self.calls = 0
        self._connects = 0
        self._messages = 0

    # --- from the host to the store -----------------------------------------------------------------------

    def send(
        self, backend: LinkedBackend, connection: Connection, operation: Operation[Any], deadline_us: int
    ) -> Exchange:
        """Send a request."""
        self.calls = number = self.calls + 1
        exchange = Exchange(
            backend,
            connection,
            operation.method,
            number,
            deadline_us,
            ways=self._of_calls.at(number),
            operation=operation,
        )
        host = self.host
        if host.doomed and host.dies_at("call"):
            return exchange
        for observer in self._observers:
            observer.on_call(host.name, number, operation)
        self._server.expect(self._loop.now_us + self.way_us(exchange.ways & _LOW), exchange)
        if host.doomed:
            host.dies_at("sent")
        return exchange

    def connect(self, backend: LinkedBackend, method: str, deadline_us: int) -> Exchange:
        return self._greet(Exchange(backend, Connection(), method, 0, deadline_us, ways=self._next_connect()))

    def subscribe(self, backend: LinkedBackend, subscription: Subscription, deadline_us: int) -> Exchange:
        return self._greet(
            Exchange(
                backend,
                subscription.connection,
                WAKEUPS,
                0,
                deadline_us,
                ways=self._next_connect(),
                subscription=subscription,
            )
        )

    def unsubscribe(self, subscription: Subscription) -> None:
        """Close a subscription; the store learns of it, or finds out."""
        self._later_at_store(self._server.channels.remove, subscription)

    def way_us(self, bits: int) -> int:
        """How long something is on its way, given 32 random bits."""
        least, most = self.latencies[-1] if self.latencies else (WAY_MIN_US, WAY_MAX_US)
        return least + ((most - least + 1) * bits >> 32)

    # --- at the store ---------------------------------------------------------------------------------------

    def arrived(self, exchange: Exchange) -> bool:
        """Whether a request that should be at the store now has come through."""
        if self.held_to:
            self._waiting_to.append(exchange)
            self._give_up_in_time(exchange)
            return False
        if self.lost_to:
            self._lose(exchange, "request", "silence")
            return False
        if (to_lose := self._to_lose["request"]) and exchange.operation is not None:
            self._lose(exchange, "request", to_lose.pop())
            return False
        return True

    def answer(self, exchange: Exchange, applied: Applied[Any] | None, error: BackendError | None) -> None:
        """Send a reply."""
        if self.lost_from:
            self._lose(exchange, "reply", "silence")
            return
        if (to_lose := self._to_lose["reply"]) and exchange.operation is not None:
            self._lose(exchange, "reply", to_lose.pop())
            return
        if self.held_from:
            self._waiting_from.append(lambda: self._answer(exchange, applied, error))
            self._give_up_in_time(exchange)
            return
        self._answer(exchange, applied, error)

    def _answer(self, exchange: Exchange, applied: Applied[Any] | None, error: BackendError | None) -> None:
        at_us = self._loop.now_us + self.way_us(exchange.ways >> 32)
        if at_us > exchange.deadline_us:
            self._give_up_in_time(exchange)
        self._loop.set_timer(exchange.backend.process, at_us, exchange.answered, (applied, error))

    def carry(self, subscription: Subscription, message: Message) -> str:
        """Bring an announcement on its way, and say what becomes of it."""
        self._messages += 1
        number = self._messages
        if subscription.deaf or self.lost_from:
            return "lost"
        fate = "heard"
        late_us = 0
        for index, spoiler in enumerate(self.spoilers):
            bits = self._of_spoilers.of(index).at(number)
            if (bits & _LOW) >= spoiler.share * (_LOW + 1):
                continue
            if spoiler.how == "lose":
                return "lost"
            by_us = spoiler.by_us * (bits >> 32) >> 32
            if spoiler.how == "delay":
                fate, late_us = "late", late_us + by_us
            else:
                fate = "repeated"
                self._say(subscription, message, number, by_us)
        if self.held_from:
            self._waiting_from.append(lambda: self._say(subscription, message, number, late_us))
            return "held"
        self._say(subscription, message, number, late_us)
        return fate

    def _say(self, subscription: Subscription, message: Message, number: int, late_us: int) -> None:
        at_us = self._loop.now_us + self.way_us(self._of_messages.at(number) & _LOW)
        if late_us:
            at_us += late_us
        else:
            # One connection keeps the order; only what is said to come late does not.
            at_us = subscription.last_us = max(at_us, subscription.last_us + 1)
        self._loop.set_timer(subscription.backend.process, at_us, subscription.hear, (message,))

    # --- faults -------------------------------------------------------------------------------------------------

    def lose(self, direction: Direction, by: int) -> None:
        """One more reason to lose what is sent, or one less."""
        if direction != "from_store":
            self.lost_to += by
        if direction != "to_store":
            self.lost_from += by

    def hold(self, direction: Direction, by: int) -> None:
        """One more reason to hold back what is sent, or one less; with the last one it goes on."""
        if direction != "from_store":
            self.held_to += by
            if not self.held_to:
                waiting, self._waiting_to = self._waiting_to, []
                for exchange in waiting:
                    self._server.expect(self._loop.now_us + self.way_us(exchange.ways & _LOW), exchange)
        if direction != "to_store":
            self.held_from += by
            if not self.held_from:
                held, self._waiting_from = self._waiting_from, []
                for go_on in held:
                    go_on()

    def lose_next(self, part: Part, count: int, how: Loss) -> None:
        """Lose this part of the next calls."""
        self._to_lose[part].extend(how for _ in range(count))

    def lose_no_more(self, part: Part) -> None:
        """Keep this part of the calls that were to be lost."""
        self._to_lose[part].clear()

    @property
    def sound(self) -> bool:
        """Nothing is wrong with it, nor waits to go wrong."""
        lost = self.lost_to or self.lost_from or any(self._to_lose.values())
        return not (lost or self.held_to or self.held_from or self.latencies or self.spoilers)

    def disconnect(self, why: str) -> None:
        """The store's end closes all connections; this end learns of it, unless it cannot."""
        generation = self._server.store.generation
        if self.lost_from or self.held_from:
            return
        at_us = self._loop.now_us + self._other_way_us()
        for backend in self.host.backends:
            self._loop.set_timer(backend.process, at_us, backend.reset, (generation, why))

    def process_ended(self, subscriptions: list[Subscription]) -> None:
        """The host's operating system closes what its dead process had open."""
        for subscription in subscriptions:
            self._later_at_store(self._server.channels.remove, subscription)

    # --- inside ---------------------------------------------------------------------------------------------------

    def note_reply(self, exchange: Exchange, applied: Applied[Any] | None) -> None:
        """The node's process has got a reply."""
        if exchange.operation is None or applied is None:
            return
        self.host.got(exchange.operation, applied)
        for observer in self._observers:
            observer.on_reply(self.host.name, exchange.number, exchange.method)

    def note_failure(self, exchange: Exchange, error: BackendError) -> None:
        """The node's process has got an error."""
        for observer in self._observers:
            observer.on_failure(self.host.name, exchange.number, exchange.method, error)

    def _greet(self, exchange: Exchange) -> Exchange:
        ways = SUBSCRIBE_WAYS if exchange.subscription is not None else CONNECT_WAYS
        # All but the last way back are taken together: what matters is when it is there, and through whom.
        at_us = self._loop.now_us + (2 * ways - 1) * self.way_us(exchange.ways & _LOW)
        self._server.expect(at_us, exchange)
        return exchange

    def _next_connect(self) -> int:
        self._connects += 1
        return self._of_connects.at(self._connects)

    def _other_way_us(self) -> int:
        return self.way_us(self._of_others.bits() & _LOW)

    def _later_at_store(self, callback: Callable[[Subscription], None], subscription: Subscription) -> None:
        if self._loop.burying:
            # The last of a killed process: see process_ended.
            return
        late_us = KEEPALIVE_US if self.lost_to or self.held_to else 0
        at_us = self._loop.now_us + self._other_way_us() + late_us
        self._loop.set_timer(self._server.process, at_us, callback, (subscription,))

    def _lose(self, exchange: Exchange, part: str, how: Loss) -> None:
        for observer in self._observers:
            observer.on_lost(self.host.name, exchange.number, exchange.method, part)
        if how == "disconnect":
            exchange.connection.cut = True
            at_us = self._loop.now_us + self.way_us(exchange.ways >> 32)
            self._loop.set_timer(exchange.backend.process, at_us, exchange.broke, (CLOSED,))
        self._give_up_in_time(exchange)

    def _give_up_in_time(self, exchange: Exchange) -> None:
        at_us = max(exchange.deadline_us, self._loop.now_us)
        self._loop.set_timer(exchange.backend.process, at_us, exchange.timed_out)
