"""Tasks and futures whose order in a set is the same in every run.

asyncio keeps tasks in sets (`TaskGroup`, `asyncio.wait`), and so do its users. A set is ordered by hash, and an
object's hash is usually its address, which is another one in every run.
"""

# pyright: reportIncompatibleMethodOverride=false
# (What a loop makes knows that the loop is of its kind.)

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from typing_extensions import override

if TYPE_CHECKING:
    from dtimer.sim.loop.loop import SimLoop
    from dtimer.sim.loop.process import Process

T = TypeVar("T")

HASH_SHIFT: Final = 32
"""A set looks at the low bits first. With all of these zero a small one is filled in the order of insertion whatever
the numbers are, so its order does not hang on how many tasks were made before."""

NOT_YET_US: Final = 1 << 63
"""Later than anything that happens."""


class SimFuture(asyncio.Future[T]):
    """A future that is numbered when somebody asks for its hash, and that the dead cannot complete.

    Attributes:
        process: in which it was made; None outside of a run.
        failed_us: the virtual time at which it got an error.
    """

    __slots__ = ("_number", "failed_us", "process")

    _loop: SimLoop
    _number: int
    failed_us: int
    process: Process | None

    @override
    def __hash__(self) -> int:
        try:
            return self._number << HASH_SHIFT
        except AttributeError:
            self._number = self._loop.next_number()
            return self._number << HASH_SHIFT

    @override
    def set_result(self, result: T, /) -> None:
        if not self._loop.burying:
            # Not through super(), which takes as long as all else here: one is set for every step of a task.
            asyncio.Future.set_result(self, result)  # pyright: ignore[reportUnknownMemberType]

    @override
    def set_exception(self, exception: type[BaseException] | BaseException, /) -> None:
        if not self._loop.burying:
            super().set_exception(exception)
            self._loop.error_untaken(self)

    @override
    def cancel(self, msg: object = None) -> bool:
        return not self._loop.burying and super().cancel(msg)


class SimTask(asyncio.Task[T]):
    """A task that is numbered from its beginning, and that the dead cannot cancel.

    Attributes:
        process: to which it belongs.
        awaited: somebody waited for it, or asked to be told of its end.
        failed_us: the virtual time at which it got an error.
    """

    __slots__ = ("_number", "awaited", "failed_us", "process")

    _log_destroy_pending: bool
    _loop: SimLoop
    _number: int
    awaited: bool
    failed_us: int
    process: Process

    @override
    def add_done_callback(self, fn: Callable[[Self], object], /, *, context: Context | None = None) -> None:
        self.awaited = True
        super().add_done_callback(fn, context=context)

    def on_end(self, callback: Callable[[Self], object], context: Context) -> None:
        """As `add_done_callback`, for the loop's own book-keeping."""
        super().add_done_callback(callback, context=context)

    @override
    def __hash__(self) -> int:
        try:
            return self._number << HASH_SHIFT
        except AttributeError:
            # asyncio's constructor asks already, as it adds the task to the set of all tasks.
            self._number = self._loop.next_number()
            return self._number << HASH_SHIFT

    @override
    def cancel(self, msg: object = None) -> bool:
        if self._loop.burying:
            return False
        if not self.process.alive:
            # It cannot take the cancellation. Who waits for it, and is cancelled itself, must learn of that at least.
            return asyncio.Future[Any].cancel(self, msg)
        return super().cancel(msg)

    def never_ends(self) -> None:
        """It will be dropped before its end, of which nobody is to be told."""
        self._log_destroy_pending = False
