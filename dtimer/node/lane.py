"""A sender for an outbox: one batch in flight at a time, so items reach the store in the order they were handed in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from dtimer.foreign import ends_the_task
from dtimer.node.outbox import Batch, Outbox, Ticket
from dtimer.node.tasks import start_task

ItemT = TypeVar("ItemT")
ReplyT = TypeVar("ReplyT")

SIDE_BY_SIDE_MIN: Final = 32
"""So many callers are worth a call of their own: the store works on it while the others' callers do.
With fewer, a call costs more than what goes on side by side.
"""


class Lane(Generic[ItemT, ReplyT]):
    """Sends what is handed in, at the end of the turn of the loop in which it was.

    Somebody else may carry the items instead, as a node's claims carry confirms.
    """

    def __init__(
        self,
        operation: str,
        request: Callable[[Sequence[ItemT]], Awaitable[Sequence[ReplyT]]],
        unheard: Callable[[Exception], None],
    ) -> None:
        self.outbox: Outbox[ItemT, ReplyT] = Outbox(operation, unheard)
        self._request = request
        self._name = f"dtimer: {operation}"
        self._task: asyncio.Task[None] | None = None
        self._ring: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def ask(self, items: Sequence[ItemT], size_bytes: int) -> asyncio.Future[Sequence[ReplyT]]:
        """Hand in what its caller waits for."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # a call of the system in Python 3.11
        return self.submit(items, size_bytes).future(self._loop)

    def submit(self, items: Sequence[ItemT], size_bytes: int = 0) -> Ticket[ItemT, ReplyT]:
        ticket = self.outbox.submit(items, size_bytes)
        if self._ring is None:
            self._start()
        else:
            self._ring()
        return ticket

    def hand_over(self, ring: Callable[[], None]) -> None:
        """Somebody else takes items from the outbox from now on; `ring` says that there are some."""
        self._ring = ring

    def take_back(self) -> None:
        """Nobody else does any more."""
        self._ring = None
        self._start()

    async def idle(self) -> None:
        """Return when everything handed in has been answered."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    def _start(self) -> None:
        # A task begins in the loop's next turn, after all that became ready in this one.
        # So what callers hand in at once, say because the batch before answered them all, goes together.
        # (One that is done but still here was cancelled before it began.)
        if (self._task is None or self._task.done()) and self._ring is None and self.outbox:
            self._task = start_task(self._send, self._name)

    async def _send(self) -> None:
        batch = self.outbox.take()
        if batch is None:
            self._task = None
            return
        try:
            replies = await self._request(batch.items)
        except BaseException as error:
            self._task = None
            if ends_the_task(error):
                # The loop is being shut down.
                batch.cancel()
                self.outbox.cancel()
                raise
            batch.fail(error)
        else:
            self._task = None
            if len(self.outbox) >= SIDE_BY_SIDE_MIN:
                # Enough for a call of their own, so they go before the callers that are answered now ask again.
                self._start()
            try:
                self._answer(batch, replies)
            except Exception as error:  # not even a list: a backend's bug
                batch.fail(error)
        self._start()

    def _answer(self, batch: Batch[ItemT, ReplyT], replies: Sequence[ReplyT]) -> None:
        if len(batch.tickets) < 2 * SIDE_BY_SIDE_MIN or len(replies) != len(batch.items):
            batch.answer(replies)
            return
        # What the first half's callers ask for next is on its way before the second half's callers run.
        first, second = batch.halves()
        first.answer(replies[: len(first.items)])
        asyncio.get_running_loop().call_soon(second.answer, replies[len(first.items) :])
