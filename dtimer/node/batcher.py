"""Items that callers submit in one turn of the event loop go out in one call (rules P5 and F1).

The reply to an item, or its failure, reaches the caller of that item only. One batch is in flight at a time, so items
reach the store in the order of their submission. The items of a failed call go first in the next one, before what was
submitted since.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

from typing_extensions import override

from dtimer.errors import REPEATABLE, BackendError, Known, OutcomeUnknown
from dtimer.limits import BATCH_MAX_BYTES, BATCH_MAX_ITEMS
from dtimer.node.fetch_schedule import Backoff
from dtimer.node.retry import TRANSIENT, restated
from dtimer.node.tasks import cancel, start_task
from dtimer.protocol.backend import Runtime
from dtimer.user_code import ends_the_task

ItemT = TypeVar("ItemT")
ReplyT = TypeVar("ReplyT")

SIDE_BY_SIDE_MIN: Final = 32
"""From this many submissions on, a call of their own pays: the store executes it while callers of the last batch run.
With fewer, the call costs more than the overlap saves.
"""


class Submission(Awaitable[Sequence[ReplyT]], Generic[ItemT, ReplyT]):
    """The items of one caller, which are sent in one call. Awaiting it gives their replies, in order.

    Attributes:
        repeat_within_us: for how long the items are sent again after failures, counted from the first attempt.
        owner: what the answering code has to know of the sender; dropped then, as it may refer to this submission.
        lost: the items were in a call whose outcome is unknown.
        failed: it was answered with an error, or its sender was cancelled.
        give_up_us: until when the items are sent again; None before the first failure.
        waiters: the futures of the callers that await a :class:`KeptSubmission`; None until there is one.
    """

    __slots__ = (
        "_answer",
        "_future",
        "failed",
        "give_up_us",
        "items",
        "lost",
        "owner",
        "repeat_within_us",
        "size_bytes",
        "waiters",
    )

    def __init__(self, items: Sequence[ItemT], size_bytes: int, repeat_within_us: int, owner: object) -> None:
        self.items = items
        self.size_bytes = size_bytes
        self.repeat_within_us = repeat_within_us
        self.lost = self.failed = False
        self.owner = owner
        self.give_up_us: int | None = None
        self._answer: Sequence[ReplyT] | Exception | None = None
        # Made on demand: a confirm that is not awaited should not cost a future.
        self._future: asyncio.Future[Sequence[ReplyT]] | None = None
        # Here, as a constructor of the subclass would cost each confirm a second call.
        self.waiters: list[asyncio.Future[Sequence[ReplyT]]] | None = None

    @override
    def __await__(self) -> Generator[object, None, Sequence[ReplyT]]:
        return (yield from self.future())

    def future(self, loop: asyncio.AbstractEventLoop | None = None) -> asyncio.Future[Sequence[ReplyT]]:
        """The future that a caller awaits, in the running loop."""
        if self._future is None:
            self._future = (loop or asyncio.get_running_loop()).create_future()
            if isinstance(self._answer, Exception):
                _raise_in(self._future, self._answer)
            elif self._answer is not None:
                self._future.set_result(self._answer)
        return self._future

    @property
    def outcome(self) -> ReplyT | None:
        """The reply to its first item; None if it has not been answered, or failed."""
        future = self._future
        if future is not None:
            answered = future.done() and not future.cancelled() and future.exception() is None
            return future.result()[0] if answered else None
        return None if self._answer is None or isinstance(self._answer, Exception) else self._answer[0]

    @property
    def done(self) -> bool:
        """Answered, failed, or its caller was cancelled."""
        return self._answer is not None if self._future is None else self._future.done()

    def answer(self, replies: Sequence[ReplyT]) -> None:
        self.owner = None
        future = self._future
        if future is None:
            self._answer = replies if self._answer is None else self._answer
        elif not future.done():
            future.set_result(replies)

    def fail(self, error: Exception) -> bool:
        """Returns whether a caller awaits it, who gets the error then."""
        self.owner = None
        self.failed = self.failed or not self.done
        future = self._future
        if future is None:
            self._answer = error if self._answer is None else self._answer
            return False
        if not future.done():
            _raise_in(future, error)
        return True

    def cancel(self) -> None:
        """No answer will come."""
        self.failed = self.failed or not self.done
        if self._future is not None:
            cancel(self._future)
        else:
            with suppress(RuntimeError):  # no loop is running, so no caller will await it
                self.future().cancel()


class KeptSubmission(Submission[ItemT, ReplyT]):
    """A submission that goes on when a caller that awaits it is cancelled. Any number of callers may await it."""

    __slots__ = ()

    @override
    def future(self, loop: asyncio.AbstractEventLoop | None = None) -> asyncio.Future[Sequence[ReplyT]]:
        """A future of this caller's own."""
        waiter: asyncio.Future[Sequence[ReplyT]] = (loop or asyncio.get_running_loop()).create_future()
        if isinstance(self._answer, Exception):
            _raise_in(waiter, self._answer)
        elif self._answer is not None:
            waiter.set_result(self._answer)
        elif self.failed:
            waiter.cancel()
        elif self.waiters is None:
            self.waiters = [waiter]
        else:
            self.waiters.append(waiter)
        return waiter

    @property
    @override
    def done(self) -> bool:
        return self._answer is not None or self.failed

    @override
    def answer(self, replies: Sequence[ReplyT]) -> None:
        self.owner = None
        if self._answer is None and not self.failed:
            self._answer = replies
        if self.waiters is not None:
            for waiter in self._waiting():
                waiter.set_result(replies)

    @override
    def fail(self, error: Exception) -> bool:
        self.owner = None
        if not self.done:
            self._answer, self.failed = error, True
        waiting = self._waiting()
        for waiter in waiting:
            _raise_in(waiter, error)
        return bool(waiting)

    @override
    def cancel(self) -> None:
        self.failed = self._answer is None or self.failed
        for waiter in self._waiting():
            cancel(waiter)

    def _waiting(self) -> list[asyncio.Future[Sequence[ReplyT]]]:
        """The futures that were not cancelled; each is given out once."""
        waiting = [waiter for waiter in self.waiters or () if not waiter.done()]
        self.waiters = None
        return waiting


def _raise_in(future: asyncio.Future[Sequence[ReplyT]], error: Exception) -> None:
    future.set_exception(error)
    # Marks the exception as retrieved: asyncio would log one that is never awaited.
    future.exception()


class Batch(Generic[ItemT, ReplyT]):
    """The submissions of one call. One of `answer`, `fail` and `cancel` ends it, or it goes back into its queue."""

    def __init__(
        self,
        submissions: Sequence[Submission[ItemT, ReplyT]],
        operation: str,
        report_failure: Callable[[Exception], None],
    ):
        self.submissions = submissions
        self.items: list[ItemT] = [item for submission in submissions for item in submission.items]
        self.operation = operation
        self._report_failure = report_failure

    def answer(self, replies: Sequence[ReplyT]) -> None:
        """One reply for each item, in order."""
        if len(replies) != len(self.items):
            problem = f"the backend answered {len(replies)} outcomes for {len(self.items)} items"
            self.fail(OutcomeUnknown(self.operation, problem))
            return
        start = 0
        for submission in self.submissions:
            end = start + len(submission.items)
            submission.answer(replies[start:end])
            start = end

    def halves(self) -> tuple[Batch[ItemT, ReplyT], Batch[ItemT, ReplyT]]:
        """Split the submissions, in their order, into two batches."""
        middle = len(self.submissions) // 2
        return (
            Batch(self.submissions[:middle], self.operation, self._report_failure),
            Batch(self.submissions[middle:], self.operation, self._report_failure),
        )

    def fail(self, error: BaseException) -> None:
        """The call failed: each caller gets an error of its own; the error of what is not awaited is reported."""
        for submission in self.submissions:
            self.fail_one(submission, error)

    def fail_one(self, submission: Submission[ItemT, ReplyT], error: BaseException) -> None:
        own = restated(error, self.operation, lost=submission.lost)
        if not submission.fail(own):
            self._report_failure(own)

    def cancel(self) -> None:
        """The sender itself was cancelled."""
        for submission in self.submissions:
            submission.cancel()


class BatchQueue(Generic[ItemT, ReplyT]):
    """Submissions that wait to be sent, in the order of their arrival."""

    def __init__(self, operation: str, report_failure: Callable[[Exception], None], *, kept: bool = False) -> None:
        """
        Args:
            operation: the method of the backend; errors carry its name.
            report_failure: gets the error of a submission that is not awaited.
            kept: items are sent even if their caller is cancelled first.
        """
        self._operation = operation
        self._submission: type[Submission[ItemT, ReplyT]] = KeptSubmission if kept else Submission
        self._report_failure = report_failure
        self._submissions: deque[Submission[ItemT, ReplyT]] = deque()

    def __len__(self) -> int:
        return len(self._submissions)

    def submit(
        self, items: Sequence[ItemT], size_bytes: int, repeat_within_us: int, owner: object = None
    ) -> Submission[ItemT, ReplyT]:
        """Add items, at most as many as one call takes."""
        # Not Submission[ItemT, ReplyT](…), which takes twice as long.
        submission = self._submission(items, size_bytes, repeat_within_us, owner)
        self._submissions.append(submission)
        return submission

    def take(self) -> Batch[ItemT, ReplyT] | None:
        """The next batch, within the limits of a call (rule D5); a submission above them goes alone."""
        taken: list[Submission[ItemT, ReplyT]] = []
        count = size = 0
        while self._submissions:
            submission = self._submissions[0]
            if not submission.done:
                count += len(submission.items)
                size += submission.size_bytes
                if taken and (count > BATCH_MAX_ITEMS or size > BATCH_MAX_BYTES):
                    break
                taken.append(submission)
            # else: its caller was cancelled first, so it is not sent.
            self._submissions.popleft()
        return Batch(taken, self._operation, self._report_failure) if taken else None

    def failed(self, batch: Batch[ItemT, ReplyT], error: BaseException, *, began_us: int, again_us: int) -> bool:
        """A call failed: submissions that may be sent again go first, in their order; the others fail (rule F1).

        Each submission has a time limit of its own; one that is not awaited any more is not sent again.

        Args:
            began_us: when the call was made.
            again_us: the earliest time of the next call.

        Returns:
            Whether any submission is to be sent again.
        """
        lost = isinstance(error, BackendError) and error.known is Known.PERHAPS_APPLIED
        again = isinstance(error, TRANSIENT) and (not lost or self._operation in REPEATABLE)
        left: list[Submission[ItemT, ReplyT]] = []
        for submission in batch.submissions:
            submission.lost = submission.lost or lost
            if submission.give_up_us is None:
                submission.give_up_us = began_us + submission.repeat_within_us
            if again and again_us <= submission.give_up_us:
                left.append(submission)
            else:
                batch.fail_one(submission, error)
        self._submissions.extendleft(reversed(left))
        return bool(left)

    def cancel(self) -> None:
        """Nothing is sent any more."""
        for submission in self._submissions:
            submission.cancel()
        self._submissions.clear()


class Batcher(Generic[ItemT, ReplyT]):
    """Sends submissions at the end of the turn of the loop in which they were made.

    A node may take the items instead: its claims carry confirms.
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
            report_failure: gets the error of a submission that is not awaited.
            repeat_within_us: for how long a call is repeated, unless its caller says.
            answered: gives each caller its replies; by default as they are.
            kept: as for :class:`BatchQueue`.
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
        """Submit items for a caller that awaits their replies."""
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
        """Submit items, which are sent in one call.

        Args:
            repeat_within_us: for how long the items are sent again after failures; None stands for the batcher's time.
            owner: in whose name.
        """
        within_us = self._repeat_within_us if repeat_within_us is None else repeat_within_us
        submission = self.queue.submit(items, size_bytes, within_us, owner)
        if self._ring is None:
            self._start()
            if self._pause is not None and self._runtime.now_us() + within_us < self._pause_ends_us:
                self._pause.cancel()  # this caller gives up before the pause ends
        else:
            self._ring()
        return submission

    def hand_over(self, ring: Callable[[], None]) -> None:
        """The caller takes items from the queue from now on; `ring` tells it that there are some."""
        self._ring = ring
        if self._pause is not None:
            self._pause.cancel()

    def take_back(self) -> None:
        """The batcher sends its items itself again."""
        self._ring = None
        self._start()

    async def idle(self) -> None:
        """Return when every submission has been answered."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    def _start(self) -> None:
        # A task begins in the loop's next turn, after everything that became ready in this one.
        # So the callers of one batch, answered together, submit again together.
        # (A task that is done but still here was cancelled before it began.)
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
                # Enough for a call of their own, which is sent before the callers answered now submit again.
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
        # A task of its own, so that a caller with less time can end the pause. (If the batcher's own task is cancelled,
        # the loop is being shut down.)
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
        # What the callers of the first half submit next is sent before those of the second half run.
        first, second = batch.halves()
        self._answered(first, replies[: len(first.items)])
        asyncio.get_running_loop().call_soon(self._answered, second, replies[len(first.items) :])


def _hand_out(batch: Batch[ItemT, ReplyT], replies: Sequence[ReplyT]) -> None:
    batch.answer(replies)


def in_calls(items: Sequence[ItemT], size_of: Callable[[ItemT], int]) -> Iterator[tuple[Sequence[ItemT], int]]:
    """Split a list, in its order, into parts that fit into one call; with the bytes of each part."""
    sizes = list(map(size_of, items))
    if 0 < len(items) <= BATCH_MAX_ITEMS and (total := sum(sizes)) <= BATCH_MAX_BYTES:
        yield items, total
        return
    part: list[ItemT] = []
    part_size = 0
    for item, size in zip(items, sizes, strict=True):
        if part and (len(part) == BATCH_MAX_ITEMS or part_size + size > BATCH_MAX_BYTES):
            yield part, part_size
            part, part_size = [], 0
        part.append(item)
        part_size += size
    if part:
        yield part, part_size
