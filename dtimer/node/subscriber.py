"""The subscription to wake-ups: one task, which subscribes again after each failure until it is stopped (rule N4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dtimer.errors import BackendClosed, BackendError, StoreUnreachable
from dtimer.node.fetch_schedule import Backoff
from dtimer.node.tasks import cancel, start_task
from dtimer.protocol.backend import TimerBackend
from dtimer.protocol.values import Message
from dtimer.safe_repr import safe_repr
from dtimer.user_code import ends_the_task


class Subscriber:
    """Receives the wake-ups of one node."""

    def __init__(
        self,
        backend: TimerBackend,
        node: str,
        *,
        on_message: Callable[[Message], None],
        on_subscribed: Callable[[], None],
        on_lost: Callable[[Exception], None],
    ) -> None:
        """
        Args:
            on_subscribed: wake-ups are received from now on.
            on_lost: the subscription failed, and why; the next attempt follows after a pause.
        """
        self._backend = backend
        self._node = node
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._on_lost = on_lost
        self._task: asyncio.Task[None] | None = None

    async def subscribe(self, epoch: str) -> Awaitable[Exception | None]:
        """Subscribe to the channels of this epoch, and to no others any more.

        The result tells how the first attempt went: None, or the error. Further attempts follow by themselves.
        """
        await self.stop()
        first: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._task = start_task(lambda: self._run_subscription(epoch, first), f"dtimer: wake-ups of node {self._node}")
        return first

    async def stop(self) -> None:
        """End the subscription. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run_subscription(self, epoch: str, first: asyncio.Future[Exception | None]) -> None:
        backoff = Backoff(self._backend.runtime.draw)
        try:
            while True:
                error = await self._receive(epoch, first, backoff)
                self._on_lost(error)
                if not first.done():
                    first.set_result(error)
                if isinstance(error, BackendClosed):
                    return  # closed for good
                # A store that is away is not asked all the time. By the runtime's clock, which a simulator moves.
                await self._backend.runtime.sleep(backoff.next_us())
        finally:
            # A waiter for the first attempt must not wait for a task that has ended.
            cancel(first)

    async def _receive(self, epoch: str, first: asyncio.Future[Exception | None], backoff: Backoff) -> Exception:
        try:
            async with self._backend.wakeups(self._node, epoch) as messages:
                self._on_subscribed()
                if not first.done():
                    first.set_result(None)
                async for message in messages:
                    # Only now: a subscription that breaks at once must not be renewed again and again without a pause.
                    backoff.reset()
                    self._on_message(message)
        except BackendError as error:
            return error
        except BaseException as error:
            if ends_the_task(error):
                raise
            # A bug of a backend must not leave the node without wake-ups for good.
            failure = StoreUnreachable("wakeups", f"the backend raised {safe_repr(error)}")
            failure.__cause__ = error
            return failure
        return StoreUnreachable("wakeups", "the messages came to an end")
