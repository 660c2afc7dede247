"""A sender for an queue: one batch in flight at a time, so items reach the store in the order they were handed in.

What a batch brought back because its call failed goes first in the next one, before what was handed in since (rule F1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from dtimer.node.batch import Batch, BatchQueue, Submission
from dtimer.node.fetch_schedule import Backoff
from dtimer.node.tasks import cancel, start_task
from dtimer.protocol.backend import Runtime
from dtimer.user_code import ends_the_task

ItemT = TypeVar("ItemT")
ReplyT = TypeVar("ReplyT")

SIDE_BY_SIDE_MIN: Final = 32
"""So many callers are worth a call of their own: the store works on it while the others' callers do.
With fewer, a call costs more than what goes on side by side.
"""


class Batcher(Generic[ItemT, ReplyT]):
    """Sends what is handed in, at the end of the turn of the loop in which it was.

    Somebody else may carry the items instead, as a node's claims carry confirms.
    """

    def __init__(
        self,
        operation: str,
        request: Callable[[Sequence[ItemT]], Awaitable[Sequence[ReplyT]]],
        report_failure: Callable[[Exception], None],
        *,
        runtime: Runtime,
        repeat_within_us: int,
        answered: Callable[[Batch[ItemT, ReplyT], Sequence[ReplyT]], None] | None = None,
        kept: bool = False,
    ) -> None:
        """
        Args:
            request: makes one call.
            report_failure: is given the failure of what is not awaited.
            repeat_within_us: for how long a call is repeated, unless its caller says.
            answered: hands out the replies of a call; by default they are handed out as they are.
            kept: as for an queue.
        """
        self.queue: BatchQueue[ItemT, ReplyT] = BatchQueue(operation, report_failure, kept=kept)
        self._request = request
        self._runtime = runtime
        self._repeat_within_us = repeat_within_us
        self._answered = answered or _hand_out
        self._backoff = Backoff(runtime.draw)
        self._pause: asyncio.Task[None] | None = None
        self._pause_ends_us = 0
        self._name = f"dtimer: {operation}"
        self._task: asyncio.Task[None] | None = None
        self._ring: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def ask(
        self, items: Sequence[ItemT], size_bytes: int, repeat_within_us: int | None
    ) -> asyncio.Future[Sequence[ReplyT]]:
        """Hand in what its caller waits for."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # a call of the system in Python 3.11
        return self.submit(items, size_bytes, repeat_within_us).future(self._loop)

    def submit(
        self,
        items: Sequence[ItemT],
        size_bytes: int = 0,
        repeat_within_us: int | None = None,
        owner: object = None,
    ) -> Submission[ItemT, ReplyT]:
        """Hand in items that travel together.

        Args:
            repeat_within_us: for how long they are sent again after failures; None leaves it to the batcher.
            owner: in whose name.
        """
        within_us = self._repeat_within_us if repeat_within_us is None else repeat_within_us
        submission = self.queue.submit(items, size_bytes, within_us, owner)
        if self._ring is None:
            self._start()
            if self._pause is not None and self._runtime.now_us() + within_us < self._pause_ends_us:
                self._pause.cancel()  # this caller does not wait so long
        else:
            self._ring()
        return submission

    def hand_over(self, ring: Callable[[], None]) -> None:
        """Somebody else takes items from the queue from now on; `ring` says that there are some."""
        self._ring = ring
        if self._pause is not None:
            self._pause.cancel()

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
        if (self._task is None or self._task.done()) and self._ring is None and self.queue:
            self._task = start_task(self._send, self._name)

    async def _send(self) -> None:
        batch = self.queue.take()
        if batch is None:
            self._task = None
            return
        began_us = self._runtime.now_us()
        try:
            replies = await self._request(batch.items)
        except BaseException as error:
            if ends_the_task(error):
                self._shut_down(batch)
                raise
            await self._failed(batch, error, began_us)
            self._task = None
        else:
            self._task = None
            self._backoff.reset()
            if len(self.queue) >= SIDE_BY_SIDE_MIN:
                # Enough for a call of their own, so they go before the callers that are answered now ask again.
                self._start()
            try:
                self._answer(batch, replies)
            except Exception as error:  # not even a list: a backend's bug
                batch.fail(error)
        self._start()

    async def _failed(self, batch: Batch[ItemT, ReplyT], error: BaseException, began_us: int) -> None:
        """Returns when the next call may be made."""
        now_us = self._runtime.now_us()
        pause_us = self._backoff.next_us()
        if not self.queue.failed(batch, error, began_us=began_us, again_us=now_us + pause_us):
            self._backoff.reset()
            return
        # A task of its own, so that a caller with less time can end it. (That the batcher's own is cancelled is no such
        # end, and the loop being shut down.)
        self._pause_ends_us = now_us + pause_us
        self._pause = start_task(lambda: self._runtime.sleep(pause_us), self._name)
        try:
            await asyncio.wait([self._pause])
        except BaseException:
            cancel(self._pause)
            self._shut_down(batch)
            raise
        finally:
            self._pause = None

    def _shut_down(self, batch: Batch[ItemT, ReplyT]) -> None:
        """The loop is being shut down."""
        self._task = None
        batch.cancel()
        self.queue.cancel()

    def _answer(self, batch: Batch[ItemT, ReplyT], replies: Sequence[ReplyT]) -> None:
        if len(batch.submissions) < 2 * SIDE_BY_SIDE_MIN or len(replies) != len(batch.items):
            self._answered(batch, replies)
            return
        # What the first half's callers ask for next is on its way before the second half's callers run.
        first, second = batch.halves()
        self._answered(first, replies[: len(first.items)])
        asyncio.get_running_loop().call_soon(self._answered, second, replies[len(first.items) :])


def _hand_out(batch: Batch[ItemT, ReplyT], replies: Sequence[ReplyT]) -> None:
    batch.answer(replies)
