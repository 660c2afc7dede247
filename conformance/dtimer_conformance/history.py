"""Histories: what was asked of a backend, and what it replied."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol, cast

from attrs import frozen

from dtimer.protocol import operations as op
from dtimer.protocol.backend import Runtime, SupportsBranches, SupportsDeadLetters, SupportsInspection, TimerBackend
from dtimer.protocol.methods import OperationMethods
from dtimer.protocol.operations import Operation, ReplyT_co
from dtimer.protocol.values import Applied, Message, Pace


class FullBackend(TimerBackend, SupportsDeadLetters, SupportsInspection, Protocol):
    """A backend with every ability that programs need."""


@frozen
class Record:
    """One operation and its reply.

    Attributes:
        sent: when it was asked for, as the recorder counted; 0 if nobody did.
        arrived: when its reply came, counted likewise.
    """

    operation: Operation[object]
    reply: Applied[object]
    sent: int = 0
    arrived: int = 0


async def perform(backend: FullBackend, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
    """Carry out an operation value on a backend."""
    return cast("Applied[ReplyT_co]", await _call(backend, cast("Operation[object]", operation)))


async def _call(backend: FullBackend, operation: Operation[object]) -> Applied[object]:
    match operation:
        case op.Open():
            return await backend.open()
        case op.Post(events):
            return await backend.post(events)
        case op.Cancel(ids):
            return await backend.cancel(ids)
        case op.ChangeDelay(id, delay_us):
            return await backend.change_delay(id, delay_us=delay_us)
        case op.Claim():
            return await backend.claim(
                operation.member,
                room=operation.room,
                confirm_timeout_us=operation.confirm_timeout_us,
                nonce=operation.nonce,
                confirming=operation.confirming,
                extending=operation.extending,
                pulse=operation.pulse,
            )
        case op.Confirm(receipts):
            return await backend.confirm(receipts)
        case op.ConfirmNewest(id):
            return await backend.confirm_newest(id)
        case op.GiveBack():
            return await backend.release(
                operation.receipt,
                how=operation.how,
                delay_us=operation.delay_us,
                failure=operation.failure,
                refused_for_us=operation.refused_for_us,
            )
        case op.Extend(extensions):
            return await backend.extend(extensions)
        case op.Bury(receipt, detail):
            return await backend.bury(receipt, detail=detail)
        case op.Peek(id):
            return await backend.peek(id)
        case op.Upcoming(start, limit):
            return await backend.upcoming(start, limit=limit)
        case op.Join(member):
            return await backend.join(member)
        case op.Leave(member):
            return await backend.leave(member)
        case op.ListDeadLetters(cursor, limit):
            return await backend.dead_letters(cursor, limit=limit)
        case op.Resend(letter, due, if_exists):
            return await backend.resend(letter, due=due, if_exists=if_exists)
        case op.Discard(letters):
            return await backend.discard(letters)
        case op.Inspect():
            return await backend.inspect()
        case op.ListBranches():
            assert isinstance(backend, SupportsBranches), "only such a backend is asked"
            return await backend.branches()
        case _:
            pass
    raise AssertionError(f"an operation that no backend has a method for: {operation}")


class RecordingBackend(OperationMethods):
    """A backend that keeps the history of another: give it to a timer in its place.

    Attributes:
        history: operations with their replies, in the order in which the replies came.
    """

    def __init__(self, backend: FullBackend) -> None:
        self._backend = backend
        self.history: list[Record] = []

    @property
    def namespace(self) -> str:
        return self._backend.namespace

    @property
    def runtime(self) -> Runtime:
        return self._backend.runtime

    @property
    def pace(self) -> Pace:
        return self._backend.pace

    async def perform(self, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
        reply = await perform(self._backend, operation)
        self.history.append(Record(cast("Operation[object]", operation), reply))
        return reply

    async def close(self) -> None:
        await self._backend.close()

    def wakeups(self, node: str, epoch: str) -> AbstractAsyncContextManager[AsyncIterator[Message]]:
        return self._backend.wakeups(node, epoch)
