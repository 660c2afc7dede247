"""The durations that users of the simulator give: a `timedelta`, or a number of milliseconds as in `DTimer.post`."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from dtimer import _validation
from dtimer._validation import Delay
from dtimer.errors import InvalidArgument
from dtimer.safe_repr import safe_repr

MICROSECOND: Final = timedelta(microseconds=1)


def duration_us(argument: str, duration: Delay) -> int:
    """The duration in microseconds, rounded half up (rule T5).

    Raises:
        InvalidArgument: it is not a number, not finite, negative (time never goes back), or over a hundred years.
    """
    microseconds = _validation.delay_us(duration, argument)
    # Judged unrounded, for -0.0001 ms would round to nothing. Where an event is posted the past is welcome; here not.
    if _validation.is_negative(duration):
        raise InvalidArgument(argument, f"must not be negative: {safe_repr(duration)}; time never goes back")
    return microseconds
