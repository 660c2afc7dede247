"""Histories: what was asked of a backend, and what it replied."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import cast

from attrs import frozen
from typing_extensions import override

from dtimer.protocol.backend import OperationMethods, Runtime, TimerBackend
from dtimer.protocol.operations import Operation, ReplyT_co
from dtimer.protocol.values import Applied, Message, Pace


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


class RecordingBackend(OperationMethods):
    """A backend that keeps the history of another: give it to a timer in its place.

    Attributes:
        history: operations with their replies, in the order in which the replies came.
    """

    def __init__(self, backend: TimerBackend) -> None:
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

    @override
    async def perform(self, operation: Operation[ReplyT_co]) -> Applied[ReplyT_co]:
        reply = await self._backend.perform(operation)
        self.history.append(Record(cast("Operation[object]", operation), reply))
        return reply

    async def close(self) -> None:
        await self._backend.close()

    def wakeups(self, node: str, epoch: str) -> AbstractAsyncContextManager[AsyncIterator[Message]]:
        return self._backend.wakeups(node, epoch)
