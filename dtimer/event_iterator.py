"""The iterator over events that are due, the primitive that needs no handlers."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Generic, Self

from typing_extensions import override

from dtimer.codecs.codec import PayloadT
from dtimer.event import Event
from dtimer.node.consumers import Consumers
from dtimer.node.membership import Membership
from dtimer.node.registry import Registry


class Events(AsyncIterator[Event[PayloadT]], Generic[PayloadT]):
    """Made by :meth:`dtimer.DTimer.events`. Ends when the timer leaves, or loses its node id to another process.

    It is open from its making until it is closed, dropped or at its end.
    """

    def __init__(self, registry: Registry[PayloadT], membership: Membership[PayloadT]) -> None:
        self._membership = membership
        self._affinity = membership.affinity
        self._consumers: Consumers[PayloadT] | None = None
        """Of the loop where an event was first asked for."""
        self._slot = registry.open_slot()
        # `break` in an `async for` drops the iterator without a word.
        self._dropped = weakref.finalize(self, registry.close_slot, self._slot)
        self._dropped.atexit = False

    @override
    async def __anext__(self) -> Event[PayloadT]:
        self._affinity.check()
        if self._consumers is None:
            with self._membership.node_here() as node:
                self._consumers = node.dispatcher.consumers
        event = await self._consumers.next_for(self._slot)
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """Take no more events; the one that was given out last is finished. Idempotent."""
        self._dropped()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
