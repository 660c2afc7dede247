"""The methods of a backend for whoever handles operations as values: each makes its operation and hands it on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from dtimer.protocol import operations as op
from dtimer.protocol.operations import Operation, ReplyT_co
from dtimer.protocol.outcomes import (
    BuryOutcome,
    CancelOutcome,
    ChangeOutcome,
    ConfirmOutcome,
    DiscardOutcome,
    ExtendOutcome,
    JoinOutcome,
    PostOutcome,
    ReleaseOutcome,
    ResendOutcome,
)
from dtimer.protocol.values import (
    Applied,
    Branch,
    Claimed,
    Cursor,
    DeadLetterCursor,
    DeadLetterPage,
    Due,
    Durability,
    Extension,
    Failure,
    IfExists,
    Inspection,
    LetterName,
    Member,
    NewEvent,
    Page,
    Pending,
    Receipt,
    Release,
    Window,
)


class OperationMethods(ABC):
    """Every method of :class:`dtimer.TimerBackend` that is an operation, in terms of :meth:`perform`."""

    @abstractmethod
    async def perform(self, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
        """Carry out one operation."""

    async def open(self) -> Applied[None]:
        return await self.perform(op.Open())

    async def post(self, events: Sequence[NewEvent]) -> Applied[tuple[PostOutcome, ...]]:
        return await self.perform(op.Post(tuple(events)))

    async def post_durably(
        self, events: Sequence[NewEvent], durability: Durability
    ) -> Applied[tuple[PostOutcome, ...]]:
        """As :meth:`post`: there is no other copy to wait for."""
        return await self.post(events)

    async def cancel(self, ids: Sequence[str]) -> Applied[tuple[CancelOutcome, ...]]:
        return await self.perform(op.Cancel(tuple(ids)))

    async def change_delay(self, id: str, *, delay_us: int) -> Applied[ChangeOutcome]:
        return await self.perform(op.ChangeDelay(id, delay_us))

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
        operation = op.Claim(
            member=member,
            room=room,
            confirm_timeout_us=confirm_timeout_us,
            nonce=nonce,
            confirming=tuple(confirming),
            extending=tuple(extending),
            pulse=pulse,
        )
        return await self.perform(operation)

    async def confirm(self, receipts: Sequence[Receipt]) -> Applied[tuple[ConfirmOutcome, ...]]:
        return await self.perform(op.Confirm(tuple(receipts)))

    async def confirm_newest(self, id: str) -> Applied[ConfirmOutcome]:
        return await self.perform(op.ConfirmNewest(id))

    async def release(
        self, receipt: Receipt, *, how: Release, delay_us: int, failure: Failure | None = None, refused_for_us: int = 0
    ) -> Applied[ReleaseOutcome]:
        return await self.perform(
            op.GiveBack(receipt=receipt, how=how, delay_us=delay_us, failure=failure, refused_for_us=refused_for_us)
        )

    async def extend(self, extensions: Sequence[Extension]) -> Applied[tuple[ExtendOutcome, ...]]:
        return await self.perform(op.Extend(tuple(extensions)))

    async def bury(self, receipt: Receipt, *, detail: str) -> Applied[BuryOutcome]:
        return await self.perform(op.Bury(receipt, detail))

    async def peek(self, id: str) -> Applied[Pending | None]:
        return await self.perform(op.Peek(id))

    async def upcoming(self, start: Window | Cursor, *, limit: int) -> Applied[Page]:
        return await self.perform(op.Upcoming(start, limit))

    async def join(self, member: Member) -> Applied[JoinOutcome]:
        return await self.perform(op.Join(member))

    async def leave(self, member: Member) -> Applied[bool]:
        return await self.perform(op.Leave(member))

    async def dead_letters(self, cursor: DeadLetterCursor | None, *, limit: int) -> Applied[DeadLetterPage]:
        return await self.perform(op.ListDeadLetters(cursor, limit))

    async def resend(self, letter: LetterName, *, due: Due, if_exists: IfExists) -> Applied[ResendOutcome]:
        return await self.perform(op.Resend(letter, due, if_exists))

    async def discard(self, letters: Sequence[LetterName]) -> Applied[tuple[DiscardOutcome, ...]]:
        return await self.perform(op.Discard(tuple(letters)))

    async def inspect(self) -> Applied[Inspection]:
        return await self.perform(op.Inspect())

    async def branches(self) -> Applied[tuple[Branch, ...]]:
        return await self.perform(op.ListBranches())
