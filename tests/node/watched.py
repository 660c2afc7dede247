"""A real backend, watched and disturbed: it notes every call, and fails those it is told to fail."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from dtimer.errors import BackendError
from dtimer.protocol.backend import Runtime
from dtimer.protocol.outcomes import (
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    ConfirmOutcome,
    ExtendOutcome,
    JoinOutcome,
    PostOutcome,
    ReleaseOutcome,
)
from dtimer.protocol.values import (
    Applied,
    Claimed,
    Cursor,
    Extension,
    Failure,
    Member,
    Message,
    NewEvent,
    Pace,
    Page,
    Pending,
    Receipt,
    Release,
    Window,
)
from dtimer.sim import SimBackend

T = TypeVar("T")


class Watched:
    """A :class:`dtimer.TimerBackend` around a simulator, without its further abilities.

    Attributes:
        calls: name and number of items of each call, in order.
        rooms: that of each claim.
        extended: the extensions that were asked for, alone or with a claim.
    """

    def __init__(self, sim: SimBackend) -> None:
        self.sim = sim
        self.calls: list[tuple[str, int]] = []
        self.rooms: list[int] = []
        self.extended: list[Extension] = []
        self._faults: defaultdict[str, deque[tuple[type[BackendError], bool]]] = defaultdict(deque)
        self._holds: dict[str, asyncio.Event] = {}
        self.listeners: list[AsyncIterator[Message]] = []

    def fail(self, operation: str, error: type[BackendError], *, times: int = 1, applied: bool = False) -> None:
        """The next calls raise this, with or without having been applied."""
        self._faults[operation].extend([(error, applied)] * times)

    def hold(self, operation: str) -> asyncio.Event:
        """Its replies, though applied, stay away until the event is set."""
        self._holds[operation] = asyncio.Event()
        return self._holds[operation]

    def heal(self) -> None:
        """Nothing fails any more."""
        self._faults.clear()

    def count(self, operation: str) -> list[int]:
        """The numbers of items of its calls."""
        return [size for name, size in self.calls if name == operation]

    async def _pass(self, operation: str, size: int, request: Callable[[], Awaitable[T]]) -> T:
        self.calls.append((operation, size))
        if not self._faults[operation]:
            reply = await request()
            if operation in self._holds:
                await self._holds[operation].wait()
            return reply
        error, applied = self._faults[operation].popleft()
        if applied:
            await request()
        raise error(operation, "so the test wants it")

    @property
    def namespace(self) -> str:
        return self.sim.namespace

    @property
    def runtime(self) -> Runtime:
        return self.sim.runtime

    @property
    def pace(self) -> Pace:
        """That of a store whose announcements can get lost."""
        return Pace()

    async def open(self) -> Applied[None]:
        return await self._pass("open", 1, self.sim.open)

    async def close(self) -> None:
        await self.sim.close()

    async def post(self, events: Sequence[NewEvent]) -> Applied[tuple[PostOutcome, ...]]:
        return await self._pass("post", len(events), lambda: self.sim.post(events))

    async def cancel(self, ids: Sequence[str]) -> Applied[tuple[CancelOutcome, ...]]:
        return await self._pass("cancel", len(ids), lambda: self.sim.cancel(ids))

    async def change_delay(self, id: str, *, delay_us: int) -> Applied[ChangeOutcome]:
        return await self._pass("change_delay", 1, lambda: self.sim.change_delay(id, delay_us=delay_us))

    async def claim(
        self,
        member: Member,
        *,
        room: int,
        confirm_timeout_us: int,
        nonce: str,
        confirming: Sequence[Receipt] = (),
        extending: Sequence[Extension] = (),
        pulse: bool = False,
    ) -> Applied[Claimed]:
        self.rooms.append(room)
        self.extended += extending
        return await self._pass(
            "claim",
            len(confirming),
            lambda: self.sim.claim(
                member,
                room=room,
                confirm_timeout_us=confirm_timeout_us,
                nonce=nonce,
                confirming=confirming,
                extending=extending,
                pulse=pulse,
            ),
        )

    async def confirm(self, receipts: Sequence[Receipt]) -> Applied[tuple[ConfirmOutcome, ...]]:
        return await self._pass("confirm", len(receipts), lambda: self.sim.confirm(receipts))

    async def confirm_newest(self, id: str) -> Applied[ConfirmOutcome]:
        return await self._pass("confirm_newest", 1, lambda: self.sim.confirm_newest(id))

    async def release(
        self, receipt: Receipt, *, how: Release, delay_us: int, failure: Failure | None = None, refused_for_us: int = 0
    ) -> Applied[ReleaseOutcome]:
        return await self._pass(
            "release",
            1,
            lambda: self.sim.release(
                receipt, how=how, delay_us=delay_us, failure=failure, refused_for_us=refused_for_us
            ),
        )

    async def extend(self, extensions: Sequence[Extension]) -> Applied[tuple[ExtendOutcome, ...]]:
        self.extended += extensions
        return await self._pass("extend", len(extensions), lambda: self.sim.extend(extensions))

    async def bury(self, receipt: Receipt, *, detail: str) -> Applied[BuryOutcome]:
        return await self._pass("bury", 1, lambda: self.sim.bury(receipt, detail=detail))

    async def peek(self, id: str) -> Applied[Pending | None]:
        return await self._pass("peek", 1, lambda: self.sim.peek(id))

    async def upcoming(self, start: Window | Cursor, *, limit: int) -> Applied[Page]:
        return await self._pass("upcoming", 1, lambda: self.sim.upcoming(start, limit=limit))

    async def join(self, member: Member) -> Applied[JoinOutcome]:
        return await self._pass("join", 1, lambda: self.sim.join(member))

    async def leave(self, member: Member) -> Applied[bool]:
        return await self._pass("leave", 1, lambda: self.sim.leave(member))

    @asynccontextmanager
    async def wakeups(self, node: str, epoch: str) -> AsyncGenerator[AsyncIterator[Message]]:
        self.calls.append(("wakeups", 1))
        if self._faults["wakeups"]:
            error, _ = self._faults["wakeups"].popleft()
            raise error("wakeups", "so the test wants it")
        async with self.sim.wakeups(node, epoch) as messages:
            self.listeners.append(messages)
            yield messages
