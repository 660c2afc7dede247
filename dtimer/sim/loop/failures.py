"""What went wrong where nobody waits for a result. None of it is lost, and its order is the same in every run."""

# pyright: reportUnknownVariableType=false
# (What a task returns is of no interest here.)

from __future__ import annotations

from typing import Any, Final
from weakref import ref

import attrs

from dtimer.sim.loop.tasks import SimFuture, SimTask

Context = dict[str, Any]
"""What asyncio hands to an exception handler."""
Fallible = SimTask[Any] | SimFuture[Any]

KEPT_MIN: Final = 64
"""Those that were taken are forgotten when at least so many are watched, and as many as were not."""


@attrs.frozen
class Failure:
    """An error that a callback raised, or a task whose result nobody took.

    Attributes:
        at_us: the virtual time at which it happened.
        process: the name of the process.
        message: what happened, in asyncio's words.
        error: None if there was no exception.
        handled: the process has an exception handler of its own, which was told.
    """

    at_us: int
    process: str
    message: str
    error: BaseException | None
    handled: bool = False

    def __str__(self) -> str:
        error = "" if self.error is None else f": {type(self.error).__name__}: {self.error}"
        return f"at {self.at_us / 1e6:.6f} s, in process {self.process!r}: {self.message}{error}"

    def raised(self) -> BaseException:
        """The error, with a note of when and where; made up if there was none."""
        error = RuntimeError(self.message) if self.error is None else self.error
        error.add_note(str(self))
        return error


class FailureLog:
    """The failures of one run.

    An error that nobody takes from a task is told at the end of the run. asyncio would tell it when the task is
    dropped, but when this is hangs on the Python version, and on the garbage collector.

    Attributes:
        noted: in order.
    """

    def __init__(self) -> None:
        self.noted: list[Failure] = []
        self._deferred: list[Context] = []
        self._untaken: list[ref[Fallible]] = []
        self._clean_at = KEPT_MIN

    def watch(self, future: Fallible, at_us: int) -> None:
        """It has failed, and nobody knows yet."""
        future.failed_us = at_us
        self._untaken.append(ref(future))
        if len(self._untaken) >= self._clean_at:
            self._untaken = [untaken for untaken in self._untaken if _has_error(untaken())]
            self._clean_at = max(KEPT_MIN, 2 * len(self._untaken))

    def defer(self, context: Context) -> None:
        """To be told in the end."""
        self._deferred.append(context)

    def forget_uncertain(self) -> None:
        """A process was killed. What it did not come to see would hold all its objects until the end."""
        self._deferred = list(filter(_is_certain, self._deferred))

    def last_ones(self) -> list[Context]:
        """What was deferred, and the errors that nobody took until now."""
        watched = dict.fromkeys(future for untaken in self._untaken if (future := untaken()) is not None)
        for future in filter(_has_error, watched):
            message = f"{type(future).__name__} exception was never retrieved"
            self._deferred.append({"message": message, "exception": future.exception(), "future": future})
        last, self._deferred, self._untaken = self._deferred, [], []
        return sorted(filter(_is_certain, last), key=_order)


def owner_of(context: Context) -> Fallible | None:
    """The task or future that an exception handler is told of."""
    owner: Any = context.get("task", context.get("future"))
    return owner if isinstance(owner, (SimTask, SimFuture)) else None


def is_untaken(context: Context) -> bool:
    return str(context["message"]).endswith("was never retrieved")


def _has_error(future: Fallible | None) -> bool:
    return future is not None and future._log_traceback


def _is_certain(context: Context) -> bool:
    """Nobody would have taken the error, even if the process had not been killed."""
    owner = owner_of(context)
    if owner is None or owner.process is None or owner.process.killed_us is None:
        return True
    return isinstance(owner, SimTask) and not owner.awaited and owner.failed_us < owner.process.killed_us


def _order(context: Context) -> tuple[int, str, int, str]:
    owner = owner_of(context)
    what = f"{context['message']} {context.get('exception')!r}"
    if owner is None or owner.process is None:
        return 0, "", 0, what
    name = owner.get_name() if isinstance(owner, SimTask) else ""
    return owner.failed_us, owner.process.name, owner.process.incarnation, f"{name} {what}"
