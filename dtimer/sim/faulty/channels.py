"""Announcements in a faulty world: who listens as the store sees it, and who hears what in truth."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from dtimer.errors import StoreUnreachable
from dtimer.protocol.values import Message
from dtimer.sim.faulty.exchange import Connection

if TYPE_CHECKING:
    from dtimer.sim.faulty.backend import LinkedBackend

WAKEUPS: Final = "wakeups"


class Subscription(AsyncIterator[Message]):
    """A node's connection for announcements. Like the real one it breaks loudly, if anybody notices at all.

    Attributes:
        deaf: it is dead, and neither side knows.
        last_us: when its newest message arrives; a connection keeps their order.
        connection: what it is made of.
    """

    def __init__(self, backend: LinkedBackend, epoch: str, node: str) -> None:
        self.backend = backend
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

    def hear(self, message: Message) -> None:
        self._messages.append(message)
        self._wake()

    def break_(self, why: str) -> None:
        """Whoever asks for a message gets an error, after the ones that were heard before."""
        self._broken = why
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Channels:
    """All subscriptions that the store knows of. A channel's name has the epoch in it, so namespaces share nothing."""

    def __init__(self) -> None:
        self._of_node: dict[tuple[str, str], list[Subscription]] = {}
        # A dict, because its order is the same in every run.
        self._of_epoch: dict[str, dict[Subscription, None]] = {}

    def add(self, subscription: Subscription) -> None:
        self._of_node.setdefault((subscription.epoch, subscription.node), []).append(subscription)
        self._of_epoch.setdefault(subscription.epoch, {})[subscription] = None

    def remove(self, subscription: Subscription) -> None:
        """Idempotent."""
        everybody = self._of_epoch.get(subscription.epoch, {})
        if subscription not in everybody:
            return
        del everybody[subscription]
        key = (subscription.epoch, subscription.node)
        self._of_node[key].remove(subscription)
        if not self._of_node[key]:
            del self._of_node[key]
        if not everybody:
            del self._of_epoch[subscription.epoch]

    def clear(self) -> None:
        """The store's process is gone."""
        self._of_node.clear()
        self._of_epoch.clear()

    def reaches(self, epoch: str, node: str) -> bool:
        """Whether the store finds anybody to tell."""
        return (epoch, node) in self._of_node

    def of_node(self, epoch: str, node: str) -> tuple[Subscription, ...]:
        return tuple(self._of_node.get((epoch, node), ()))

    def of_epoch(self, epoch: str) -> tuple[Subscription, ...]:
        return tuple(self._of_epoch.get(epoch, ()))
