"""The way between one host and the store, and what goes wrong on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, TypeAlias

from attrs import define

from dtimer.errors import BackendError, OutcomeUnknown, StoreUnreachable
from dtimer.limits import SECOND_US
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Applied, Message, Pace
from dtimer.sim.faulty.connection import ADDRESS, CLOSED, WAKEUPS, Connection, Request, Subscription
from dtimer.sim.faulty.server import Server
from dtimer.sim.loop import Process
from dtimer.sim.overdue import JITTER_US, SELDOM_US
from dtimer.sim.rng import Rng

WAY_MIN_US: Final = 100
WAY_MAX_US: Final = 500
"""One way within a data centre."""
CONNECT_WAYS: Final = 2
SUBSCRIBE_WAYS: Final = 3
"""As often as a single request does a connection, or a subscription, go to and fro."""
KEEPALIVE_US: Final = 300 * SECOND_US
"""So late does a server find out that a client is gone which could not say so."""

Moment: TypeAlias = Literal["now", "step", "call", "sent", "reply", "handled"]
"""At which a process may crash."""
Direction: TypeAlias = Literal["both", "to_store", "from_store"]
Part: TypeAlias = Literal["request", "reply"]
Loss: TypeAlias = Literal["silence", "disconnect"]
"""How the ends of a connection learn that something on it was lost."""
Spoil: TypeAlias = Literal["lose", "delay", "repeat"]

FAULTLESS: Final = Pace(pulse_silence_us=SELDOM_US, pulse_jitter_us=JITTER_US)
FAULTY: Final = Pace()

_LOW: Final = (1 << 32) - 1


@define(eq=False)
class Spoiler:
    """Something that is done to a share of all announcements."""

    how: Spoil
    share: float
    by_us: int


class End(Protocol):
    """What uses a link: a client of one process with its connections.

    Attributes:
        process: its own.
    """

    process: Process

    @property
    def namespace(self) -> str:
        """Of all its calls."""
        ...

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Those that are open."""
        ...

    def cut(self) -> None:
        """The store's end closes all connections; this one does not know yet."""
        ...

    def reset(self, generation: int, why: str) -> None:
        """The store's end says that all connections up to this generation are gone."""
        ...


class Link:
    """One host's. It outlives the host's processes.

    Attributes:
        name: of the host.
        ends: the clients of its process that use it.
        spoilers: what is done to announcements.
        latencies: pairs of the shortest and the longest way in us; the newest counts.
        lost_to, lost_from: how many reasons there are for which what is sent (to the store, from the store) is lost;
        held_to, held_from: the same for being held back.
    """

    def __init__(self, name: str, server: Server, rng: Rng, at_moment: Callable[[Moment], bool]) -> None:
        """
        Args:
            name: of the host.
            at_moment: called at each moment of a call; says whether the process dies there.
        """
        self.name = name
        self.ends: list[End] = []
        self.spoilers: list[Spoiler] = []
        self.latencies: list[tuple[int, int]] = []
        self.lost_to = self.lost_from = self.held_to = self.held_from = 0
        self._server = server
        self._at_moment = at_moment
        self._loop = server.loop
        self._observers = server.observers
        self._to_lose: dict[Part, list[Loss]] = {"request": [], "reply": []}
        self._waiting_to: list[Request] = []
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

    def send(self, end: End, connection: Connection, operation: Operation[Any], deadline_us: int) -> Request:
        """Send a request."""
        self.calls = number = self.calls + 1
        request = self._request(
            end, connection, operation.method, number, deadline_us=deadline_us, bits=self._of_calls.at(number)
        )
        request.operation = operation
        if self._at_moment("call"):
            return request
        for observer in self._observers:
            observer.on_call(self.name, number, operation)
        self._server.expect(self._loop.now_us + self.way_us(request.bits & _LOW), request)
        self._at_moment("sent")
        return request

    def connect(self, end: End, method: str, deadline_us: int) -> Request:
        return self._greet(end, Connection(), method, deadline_us, ways=CONNECT_WAYS)

    def subscribe(self, end: End, subscription: Subscription, deadline_us: int) -> Request:
        request = self._greet(end, subscription.connection, WAKEUPS, deadline_us, ways=SUBSCRIBE_WAYS)
        request.subscription = subscription
        return request

    def _request(
        self, end: End, connection: Connection, method: str, number: int, *, deadline_us: int, bits: int
    ) -> Request:
        future = self._loop.create_future()
        return Request(self, end.process, end.namespace, connection, method, number, deadline_us, bits, future)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Close a subscription; the store learns of it, or finds out."""
        self._later_at_store(self._server.channels.remove, subscription)

    def way_us(self, bits: int) -> int:
        """How long something is on its way, given 32 random bits."""
        least, most = self.latencies[-1] if self.latencies else (WAY_MIN_US, WAY_MAX_US)
        return least + ((most - least + 1) * bits >> 32)

    # --- at the store ---------------------------------------------------------------------------------------

    def arrived(self, request: Request) -> bool:
        """Whether a request that should be at the store now has come through."""
        if self.held_to:
            self._waiting_to.append(request)
            self._give_up_in_time(request)
            return False
        if self.lost_to:
            self._lose(request, "request", "silence")
            return False
        if (to_lose := self._to_lose["request"]) and request.operation is not None:
            self._lose(request, "request", to_lose.pop())
            return False
        return True

    def answer(self, request: Request, applied: Applied[Any] | None, error: BackendError | None) -> None:
        """Send a reply."""
        if self.lost_from:
            self._lose(request, "reply", "silence")
            return
        if (to_lose := self._to_lose["reply"]) and request.operation is not None:
            self._lose(request, "reply", to_lose.pop())
            return
        if self.held_from:
            self._waiting_from.append(lambda: self._answer(request, applied, error))
            self._give_up_in_time(request)
            return
        self._answer(request, applied, error)

    def _answer(self, request: Request, applied: Applied[Any] | None, error: BackendError | None) -> None:
        at_us = self._loop.now_us + self.way_us(request.bits >> 32)
        if at_us > request.deadline_us:
            self._give_up_in_time(request)
        self._loop.set_timer(request.process, at_us, self._answered, (request, applied, error))

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
        self._loop.set_timer(subscription.process, at_us, subscription.receive, (message,))

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
                for request in waiting:
                    self._server.expect(self._loop.now_us + self.way_us(request.bits & _LOW), request)
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
    def pace(self) -> Pace:
        """How often nodes look by themselves; while no announcement can be lost, only to show that they live (W1)."""
        return FAULTLESS if self._server.faultless else FAULTY

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
        for end in self.ends:
            self._loop.set_timer(end.process, at_us, end.reset, (generation, why))

    def process_ended(self, subscriptions: list[Subscription]) -> None:
        """The host's operating system closes what its dead process had open."""
        for subscription in subscriptions:
            self._later_at_store(self._server.channels.remove, subscription)

    # --- at the host's end, in its process ---------------------------------------------------------------------

    def _answered(self, request: Request, applied: Applied[Any] | None, error: BackendError | None) -> None:
        """The reply is here. One that is found after the time limit, by a process that stood still, is too late."""
        if request.future.done():
            return
        if self._loop.now_us >= request.deadline_us:
            self._timed_out(request)
            return
        if request.operation is not None and self._at_moment("reply"):
            return
        if error is not None:
            self._fail(request, error, broken=isinstance(error, OutcomeUnknown | StoreUnreachable))
            return
        if request.operation is not None:
            for observer in self._observers:
                observer.on_reply(self.name, request.number, request.method)
        request.future.set_result(applied)

    def _timed_out(self, request: Request) -> None:
        """The time limit of the request has passed."""
        if request.operation is not None:
            self._fail(request, OutcomeUnknown(request.method, "no reply within 5 s"))
        else:
            self._fail(request, StoreUnreachable(request.method, f"{ADDRESS} was not reached within 5 s"))

    def broke(self, request: Request, why: str) -> None:
        """The connection is gone."""
        self._fail(request, request.lost(why))

    def _fail(self, request: Request, error: BackendError, *, broken: bool = True) -> None:
        if request.future.done():
            return
        request.connection.broken |= broken
        for observer in self._observers:
            observer.on_failure(self.name, request.number, request.method, error)
        request.future.set_exception(error)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _greet(self, end: End, connection: Connection, method: str, deadline_us: int, *, ways: int) -> Request:
        self._connects += 1
        bits = self._of_connects.at(self._connects)
        request = self._request(end, connection, method, 0, deadline_us=deadline_us, bits=bits)
        # All but the last way back are taken together: what matters is when it is there, and through whom.
        self._server.expect(self._loop.now_us + (2 * ways - 1) * self.way_us(bits & _LOW), request)
        return request

    def _other_way_us(self) -> int:
        return self.way_us(self._of_others.bits() & _LOW)

    def _later_at_store(self, callback: Callable[[Subscription], None], subscription: Subscription) -> None:
        if self._loop.burying:
            # The last of a killed process: see process_ended.
            return
        late_us = KEEPALIVE_US if self.lost_to or self.held_to else 0
        at_us = self._loop.now_us + self._other_way_us() + late_us
        self._loop.set_timer(self._server.process, at_us, callback, (subscription,))

    def _lose(self, request: Request, part: str, how: Loss) -> None:
        for observer in self._observers:
            observer.on_lost(self.name, request.number, request.method, part)
        if how == "disconnect":
            request.connection.cut = True
            at_us = self._loop.now_us + self.way_us(request.bits >> 32)
            self._loop.set_timer(request.process, at_us, self.broke, (request, CLOSED))
        self._give_up_in_time(request)

    def _give_up_in_time(self, request: Request) -> None:
        at_us = max(request.deadline_us, self._loop.now_us)
        self._loop.set_timer(request.process, at_us, self._timed_out, (request,))
