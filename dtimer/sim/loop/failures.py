"""What went wrong where nobody waits for a result."""

from __future__ import annotations

import attrs


@attrs.frozen
class Failure:
    """An error that a callback raised, or a task whose result nobody took.

    Attributes:
        at_us: the virtual time.
        process: the name of the process.
        message: what happened, in asyncio's words.
        error: None if there was no exception.
        handled: the process has an exception handler of its own, which was told.
    """

    at_us: int
    process: str
    message: str
    error: BaseException | None
    handled: bool

    def __str__(self) -> str:
        error = "" if self.error is None else f": {type(self.error).__name__}: {self.error}"
        return f"at {self.at_us / 1e6:.6f} s, in process {self.process!r}: {self.message}{error}"

    def raised(self) -> BaseException:
        """The error, with a note of when and where; made up if there was none."""
        error = RuntimeError(self.message) if self.error is None else self.error
        error.add_note(str(self))
        return error
