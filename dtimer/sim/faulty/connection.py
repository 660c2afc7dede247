"""Connections to the store, the requests and subscriptions on them, and who is subscribed as the store sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

from attrs import define, field
from typing_extensions import override

from dtimer.errors import BackendError, OutcomeUnknown, StoreUnreachable
from dtimer.protocol.operations import Operation
from dtimer.protocol.values import Applied, Message
from dtimer.sim.loop import Process

ADDRESS: Final = "the simulated store"
CLOSED: Final = "Connection closed by server."
WAKEUPS: Final = "wakeups"


class Way(Protocol):
    """What the store's end needs of the way to a host.

    Attributes:
        name: of the host.
    """

    name: str

    def arrived(self, request: Request) -> bool:
        """Whether a request that should be at the store now has come through."""
        ...

    def answer(self, request: Request, applied: Applied[Any] | None, error: BackendError | None) -> None:
        """Send a reply."""
        ...

    def carry(self, subscription: Subscription, message: Message) -> str:
        """Bring an announcement on its way, and say what becomes of it."""
        ...


@define(eq=False)
class Connection:
    """A connection to the store's process of one generation.

    Attributes:
        generation: that of the store when it was made; -1 before that.
        cut: the store's end has closed it.
        broken: this end knows that the connection is broken.
    """

    generation: int = -1
    cut: bool = False
    broken: bool = False


@define(eq=False)
class Request:
    """A request that was sent.

    Attributes:
        way: by which it was sent,
        process: from which,
        connection: and on which.
        number: it is the so-many-th call of its host; 0 to connect or to subscribe.
        bits: 64 random bits, for how long it is on its way.
        future: gets the reply.
        operation: None to connect or to subscribe.
        subscription: what is asked for, if that is it.
    """

    way: Way
    process: Process
    namespace: str
    connection: Connection
    method: str
    number: int
    deadline_us: int
    bits: int
    future: asyncio.Future[Any]
    operation: Operation[Any] | None = None
    subscription: Subscription | None = None

    def lost(self, why: str) -> BackendError:
        """What it means that the connection ended without a reply."""
        if self.operation is not None:
            return OutcomeUnknown(self.method, f"the reply was lost: {why}")
        return StoreUnreachable(self.method, why)


class Subscription(AsyncIterator[Message]):
    """A node's connection for announcements. It breaks with an error, like a real one, if its end is noticed at all.

    Attributes:
        deaf: it is dead, and neither side knows.
        last_us: when its newest message arrives; a connection keeps their order.
        connection: what it is made of.
    """

    def __init__(self, way: Way, process: Process, namespace: str, epoch: str, node: str) -> None:
        self.way = way
        self.process = process
        self.namespace = namespace
        self.epoch = epoch
        self.node = node
        self.deaf = False
        self.last_us = 0
        self.connection = Connection()
        self._messages: deque[Message] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._broken: str | None = None

    @override
    async def __anext__(self) -> Message:
        while not self._messages:
            if self._broken is not None:
                raise StoreUnreachable(WAKEUPS, f"the subscription broke: {self._broken}")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._messages.popleft()

    def receive(self, message: Message) -> None:
        self._messages.append(message)
        self._wake()

    def break_(self, why: str) -> None:
        """The next message that is asked for is an error, after those that were received before."""
        self._broken = why
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@define
class Channels:
    """All subscriptions that the store knows of, in an order that is the same in every run.

    They are known by epoch, so namespaces share nothing.
    """

    _of_epoch: dict[str, dict[Subscription, None]] = field(factory=dict)

    def add(self, subscription: Subscription) -> None:
        self._of_epoch.setdefault(subscription.epoch, {})[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        """Idempotent."""
        self._of_epoch.get(subscription.epoch, {}).pop(subscription, None)

    def clear(self) -> None:
        """The store's process is gone."""
        self._of_epoch.clear()

    def reaches(self, epoch: str, node: str) -> bool:
        """Whether the store finds a subscription of the node."""
        return any(subscription.node == node for subscription in self._of_epoch.get(epoch, ()))

    def of_node(self, epoch: str, node: str) -> list[Subscription]:
        return [subscription for subscription in self._of_epoch.get(epoch, ()) if subscription.node == node]

    def of_all(self) -> tuple[Subscription, ...]:
        return tuple(subscription for of_epoch in self._of_epoch.values() for subscription in of_epoch)

    def of_epoch(self, epoch: str) -> tuple[Subscription, ...]:
        return tuple(self._of_epoch.get(epoch, ()))
