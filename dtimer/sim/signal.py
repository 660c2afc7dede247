"""An alarm bell that keeps virtual time from moving between its ringing and the answer to it."""

from __future__ import annotations

import asyncio

from dtimer.sim.work import Hold, Work, current_task


class SimSignal:
    """A :class:`dtimer.protocol.Signal` that counts as work from :meth:`set` until its waiter is back in :meth:`wait`.

    It counts from its creation on too, unless it is made `idle`: its waiter has yet to come.
    While the waiter waits for virtual time, as it does between two attempts, it does not count.
    """

    def __init__(self, work: Work, name: str, *, idle: bool = False) -> None:
        self._hold = Hold(work, name)
        self._hold.task = current_task()
        self._rung = False
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        if not idle:
            self._hold.take()

    def set(self) -> None:
        if self._closed:
            return
        self._rung = True
        self._hold.take()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        assert self._waiter is None, f"{self._hold.name}: a signal has one waiter"
        self._hold.task = current_task()
        # From now on it is known who answers; before, it was who made the signal, often for another.
        self._hold.bound = True
        if not self._rung:
            self._hold.release()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                # Rung at the same moment perhaps: that is kept for the next wait, but nobody is at work on it.
                self._hold.release()
                raise
            finally:
                self._waiter = None
        self._rung = False
        if not self._closed:
            self._hold.take()

    def close(self) -> None:
        self._closed = True
        self._hold.release()
