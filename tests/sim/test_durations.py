"""What `advance` and `sleep` take."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dtimer.errors import InvalidArgument
from dtimer.sim.durations import duration_us


@pytest.mark.parametrize(
    ("duration", "microseconds"),
    [
        (0, 0),
        (1, 1_000),
        (1.5, 1_500),
        (0.0004, 0),
        (0.0005, 1),
        (timedelta(days=1), 86_400_000_000),
        (timedelta(microseconds=7), 7),
        (timedelta(0), 0),
        (timedelta(days=36_525), 36_525 * 86_400_000_000),
    ],
)
def test_numbers_are_milliseconds_and_timedeltas_are_exact(duration: timedelta | float, microseconds: int) -> None:
    """The same as a delay of `post`, so that a test can use one number for both."""
    assert duration_us("duration", duration) == microseconds


@pytest.mark.parametrize(
    "duration",
    [
        -1,
        -0.0001,
        timedelta(microseconds=-1),
        float("nan"),
        float("inf"),
        -float("inf"),
        10**400,
        1e300,
        timedelta(days=36_526),
        True,
        "1000",
        None,
        1j,
    ],
)
def test_what_is_no_duration_is_refused_by_name(duration: Any) -> None:
    """A silent 0 or 1 would make a test that tests nothing."""
    with pytest.raises(InvalidArgument, match=r"^span ") as refused:
        duration_us("span", duration)

    assert refused.value.argument == "span"
