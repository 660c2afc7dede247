"""What went wrong where nobody waits for a result. None of it is lost, and its order is the same in every run."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from weakref import ref

import attrs

Context = dict[str, Any]
"""What asyncio hands to an exception handler."""

KEPT_MIN: Final = 64


@attrs.frozen
class Failure:
    """An error that a callback raised, or a task whose result nobody took.

    Attributes:
        at_us: the virtual time at which it was noticed.
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

    Attributes:
        noted: in order.
    """

    def __init__(self) -> None:
        self.noted: list[Failure] = []
        self._deferred: list[Context] = []
        self._untaken: list[ref[asyncio.Future[Any]]] = []
        self._clean_at = KEPT_MIN

    def defer(self, context: Context) -> None:
        """Something that the garbage collector found. When it does so differs, so it is told in the end."""
        self._deferred.append(context)

    def watch(self, future: asyncio.Future[Any]) -> None:
        """It has an error that nobody took yet. As long as something refers to it, asyncio does not complain."""
        self._untaken.append(ref(future))
        if len(self._untaken) >= self._clean_at:
            self._untaken = [untaken for untaken in self._untaken if _has_error(untaken())]
            self._clean_at = max(KEPT_MIN, 2 * len(self._untaken))

    def last_ones(self) -> list[Context]:
        """What was deferred, and the errors that nobody took to the end: in an order that is the same in every run."""
        for future in [future for untaken in self._untaken if (future := untaken()) is not None and _has_error(future)]:
            kind = "Task" if isinstance(future, asyncio.Task) else "Future"
            # As asyncio says it when it is dropped, which could have been before.
            message = f"{kind} exception was never retrieved"
            self._deferred.append({"message": message, "exception": future.exception(), "future": future})
        last, self._deferred, self._untaken = self._deferred, [], []
        return sorted(last, key=_what_happened)


def _has_error(future: asyncio.Future[Any] | None) -> bool:
    return future is not None and future._log_traceback


def _what_happened(context: Context) -> str:
    process = getattr(context.get("task", context.get("future")), "process", None)
    return f"{getattr(process, 'name', '')}: {context['message']}: {context.get('exception')!r}"
