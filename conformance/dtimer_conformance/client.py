"""One client of the store: a backend under test, watched and disturbed, with shorter ways to ask for common things."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from typing_extensions import override

from dtimer.limits import PAGE_MAX_ITEMS, POLL_MAX_US, SECOND_US
from dtimer.protocol.backend import OperationMethods, Runtime, TimerBackend
from dtimer.protocol.operations import Operation, ReplyT_co
from dtimer.protocol.outcomes import PostOutcome, ReleaseOutcome
from dtimer.protocol.values import (
    After,
    Applied,
    At,
    Claimed,
    Delivery,
    EventData,
    Extension,
    Failure,
    IfExists,
    Member,
    Message,
    NewEvent,
    Pace,
    Pending,
    Receipt,
    Release,
    RetryPolicy,
    Window,
)
from dtimer_conformance.assertions import RuleBroken
from dtimer_conformance.faults import Faults, LinkState
from dtimer_conformance.recorder import Recorder
from dtimer_conformance.subscription import Subscription

LONG_US: Final = 60 * SECOND_US
"""A confirm timeout that does not pass by itself while a scenario runs."""


class Client(OperationMethods):
    """A :class:`dtimer.TimerBackend` with every ability, for scenarios and for their nodes.

    Attributes:
        backend: the one under test.
        faults: what is wrong with the way to it.
        last: the newest reply.
    """

    def __init__(self, backend: TimerBackend, recorder: Recorder, *, pace: Pace | None = None) -> None:
        self.backend = backend
        self.recorder = recorder
        self.faults = Faults()
        self._pace = backend.pace if pace is None else pace
        self.last: Applied[Any] = Applied("", 0, 0, None)
        self._claims = 0
        self._subscriptions: list[Subscription] = []

    @property
    def namespace(self) -> str:
        return self.backend.namespace

    @property
    def runtime(self) -> Runtime:
        return self.backend.runtime

    @property
    def pace(self) -> Pace:
        """The backend's own unless it was given another."""
        return self._pace

    @override
    async def perform(self, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
        await self.faults.before(operation.method, self.runtime)
        reply = await self.recorder.ask(operation, lambda: self.backend.perform(operation))
        await self.faults.after(operation.method, reply, self.runtime)
        self.last = reply
        return reply

    async def close(self) -> None:
        await self.backend.close()

    @asynccontextmanager
    async def wakeups(self, node: str, epoch: str) -> AsyncGenerator[AsyncIterator[Message]]:
        await self.faults.before("wakeups", self.runtime)
        subscription = Subscription(self.backend.wakeups(node, epoch), self.faults, self.runtime)
        self._subscriptions.append(subscription)
        try:
            await subscription.start()
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
            await subscription.stop()

    @property
    def open_link(self) -> bool:
        """Calls get through."""
        return self.faults.link is LinkState.OPEN

    def cut(self) -> None:
        """From now on nothing gets through, in either direction."""
        self.faults.link = LinkState.CUT
        for subscription in self._subscriptions:
            subscription.cut()

    def freeze(self) -> None:
        """From now on it hangs, with its connections."""
        self.faults.link = LinkState.FROZEN

    def heal(self) -> None:
        """All is as it was."""
        self.faults.link = LinkState.OPEN

    # --- common things, shorter -------------------------------------------------------------------------

    async def put(
        self,
        id: str = "e",
        delay_us: int = 0,
        *,
        at_us: int | None = None,
        payload: bytes = b"",
        headers: bytes = b"",
        max_retries: int = 0,
        dead_letter: bool = False,
        if_exists: IfExists = IfExists.REPLACE,
        confirm_timeout_us: int | None = None,
        expires_after_us: int | None = None,
        retry: RetryPolicy | None = None,
    ) -> PostOutcome:
        """Post one event."""
        event = EventData(
            id=id,
            payload=payload,
            headers=headers,
            max_retries=max_retries,
            dead_letter=dead_letter,
            confirm_timeout_us=confirm_timeout_us,
            expires_after_us=expires_after_us,
            retry=retry,
        )
        due = After(delay_us) if at_us is None else At(at_us)
        return (await self.post([NewEvent(event, due, if_exists)])).value[0]

    async def enter(self, *nodes: str) -> None:
        """Join."""
        for node in nodes:
            await self.join(member(node))

    async def come(
        self,
        node: str = "a",
        room: int = 8,
        *,
        incarnation: str = "1",
        timeout_us: int = LONG_US,
        confirming: tuple[Receipt, ...] = (),
        extending: tuple[Extension, ...] = (),
        pulse: bool = False,
        poll_us: int = POLL_MAX_US,
    ) -> Claimed:
        """Claim, under a nonce of its own."""
        claimed = await self.claim(
            member(node, incarnation, poll_us),
            room=room,
            confirm_timeout_us=timeout_us,
            nonce=self.runtime.token(8),
            confirming=confirming,
            extending=extending,
            pulse=pulse,
        )
        return claimed.value

    async def take(self, node: str = "a", *, timeout_us: int = LONG_US) -> Delivery:
        """A claim that must bring exactly one delivery."""
        deliveries = (await self.come(node, timeout_us=timeout_us)).deliveries
        if len(deliveries) != 1:
            raise RuleBroken(f"a claim by node {node!r} was to bring one delivery\n  got {deliveries!r}")
        return deliveries[0]

    async def give_back(
        self,
        delivery: Delivery,
        how: Release,
        delay_us: int = 0,
        failure: Failure | None = None,
        *,
        refused_for_us: int = LONG_US,
    ) -> ReleaseOutcome:
        reply = await self.release(
            delivery.receipt, how=how, delay_us=delay_us, failure=failure, refused_for_us=refused_for_us
        )
        return reply.value

    async def see(self, id: str = "e") -> Pending:
        """What `peek` shows of an event, which must live."""
        pending = (await self.peek(id)).value
        if pending is None:
            raise RuleBroken(f"event {id!r} was to be live\n  peek shows none")
        return pending

    async def queue(self, window: Window | None = None, *, limit: int = PAGE_MAX_ITEMS) -> list[Pending]:
        """All pages of `upcoming`."""
        page = (await self.upcoming(window or Window(), limit=limit)).value
        items = list(page.items)
        while page.next is not None:
            page = (await self.upcoming(page.next, limit=limit)).value
            items += page.items
        return items


def member(node: str, incarnation: str = "1", poll_us: int = POLL_MAX_US) -> Member:
    return Member(node, incarnation, poll_us)


def event(id: str, *, payload: bytes = b"", **fields: Any) -> EventData:
    return EventData(id=id, payload=payload, **fields)


def ids(claimed: Claimed) -> list[str]:
    """What a claim brought, in its order."""
    return [delivery.event.id for delivery in claimed.deliveries]
