"""What users pass is checked before any I/O, and named when it is refused."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtimer import arguments
from dtimer.arguments import Retry
from dtimer.errors import InvalidArgument
from dtimer.limits import DELAY_MAX_US, INSTANT_MAX_US
from dtimer.values import After, At, IfExists, RetryPolicy


@pytest.mark.parametrize(
    ("delay", "us"),
    [
        (0, 0),
        (-1, 0),
        (-1e15, 0),
        (1, 1_000),
        (0.4, 400),
        (10.7, 10_700),
        (0.0005, 1),
        (0.00049999, 0),
        (timedelta(seconds=2), 2_000_000),
        (timedelta(microseconds=-5), 0),
        (DELAY_MAX_US // 1000, DELAY_MAX_US),
    ],
)
def test_a_delay_is_milliseconds_or_a_timedelta(delay: float | timedelta, us: int) -> None:
    assert arguments.delay_us(delay) == us


@given(st.floats(0, 1e12, allow_nan=False))
def test_a_delay_is_rounded_half_up_exactly(delay: float) -> None:
    """Rule T5; the products of floats are not exact, so fractions judge."""
    exact = Fraction(delay) * 1000

    assert arguments.delay_us(delay) == math.floor(exact + Fraction(1, 2))


@pytest.mark.parametrize(
    "delay", [math.nan, math.inf, -math.inf, True, False, "5", None, Decimal(5), 1e300, timedelta.max, 10**30]
)
def test_what_is_no_delay_is_refused(delay: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        arguments.delay_us(delay)
    assert caught.value.argument == "delay"


@pytest.mark.parametrize(("timeout", "us"), [(10, 10_000_000), (0.5, 500_000), (timedelta(milliseconds=3), 3_000)])
def test_a_timeout_is_seconds_or_a_timedelta(timeout: float | timedelta, us: int) -> None:
    assert arguments.timeout_us(timeout, "confirm_timeout") == us


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, True, "5", None, timedelta(0), 1e-9, 1e12])
def test_what_is_no_timeout_is_refused(timeout: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^confirm_timeout "):
        arguments.timeout_us(timeout, "confirm_timeout")


def test_a_time_of_day_keeps_its_microseconds_and_may_be_in_any_zone() -> None:
    at = datetime(2100, 1, 1, 2, 0, 0, 123_457, tzinfo=timezone(timedelta(hours=2)))

    assert arguments.due(None, at) == At(4_102_444_800_123_457)


def test_a_time_long_past_is_at_once() -> None:
    assert arguments.due(None, datetime.min.replace(tzinfo=UTC)) == At(0)


@pytest.mark.parametrize("at", [datetime(2030, 1, 1), datetime(2200, 1, 1, tzinfo=UTC), "2030-01-01", 5])
def test_what_is_no_time_of_day_is_refused(at: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        arguments.due(None, at)
    assert caught.value.argument == "at"


def test_the_last_instant_before_the_limit_is_accepted() -> None:
    assert arguments.instant_us(datetime(2199, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == INSTANT_MAX_US - 1


def test_exactly_one_of_delay_and_time_is_given() -> None:
    assert arguments.due(5, None) == After(5_000)
    with pytest.raises(InvalidArgument):
        arguments.due(None, None)
    with pytest.raises(InvalidArgument):
        arguments.due(5, datetime(2030, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("id", ["x", "é" * 256, "\x00", "__proto__", " "])
def test_an_id_is_any_text_of_1_to_512_bytes(id: str) -> None:
    assert arguments.event_id(id) == id


@pytest.mark.parametrize("id", ["", "é" * 257, "a" * 513, 5, b"x", None, "\ud800"])
def test_what_is_no_id_is_refused(id: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^id "):
        arguments.event_id(id)


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "ä", "x\n", None, 5, "{x}"])
def test_a_node_id_that_would_break_a_key_is_refused(name: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^node_id "):
        arguments.name(name, "node_id")


@pytest.mark.parametrize("value", [-1, 1.5, True, "1", math.nan, None, 1_000_001])
def test_what_is_no_number_of_retries_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^max_retries "):
        arguments.max_retries(value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "5", None])
def test_what_is_no_number_of_events_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^max_events "):
        arguments.max_events(value)


@pytest.mark.parametrize("value", ["", "REPLACE", None, 1, []])
def test_what_is_no_choice_for_an_existing_event_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^if_exists "):
        arguments.if_exists(value)


def test_the_choices_for_an_existing_event_are_words() -> None:
    assert [arguments.if_exists(word) for word in ("replace", "keep", "error")] == list(IfExists)


def test_negative_bounds_and_no_limit_count_as_not_given() -> None:
    """As in the original (rule R2)."""
    assert arguments.window_us(-1, "offset") is None
    assert arguments.window_us(0, "offset") == 0
    assert arguments.limit(0) is None
    assert arguments.limit(-5) is None
    assert arguments.limit(7) == 7


@pytest.mark.parametrize("value", [1.5, True, "1"])
def test_what_is_no_limit_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^limit "):
        arguments.limit(value)


def test_a_retry_is_given_in_the_units_of_a_delay() -> None:
    assert Retry(100, factor=2, max_delay=timedelta(seconds=1)).policy == RetryPolicy(100_000, 2.0, 1_000_000)
    assert Retry(timedelta(seconds=1)) == Retry(1000)


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("delay", lambda: Retry(math.nan)),
        ("factor", lambda: Retry(1, factor=0.5)),
        ("factor", lambda: Retry(1, factor=math.inf)),
        ("factor", lambda: Retry(1, factor=True)),
        ("max_delay", lambda: Retry(1, max_delay=math.inf)),
        ("retry", lambda: arguments.retry(5)),
    ],
)
def test_what_is_no_retry_is_refused(argument: str, make: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert caught.value.argument == argument


@pytest.mark.parametrize("value", [0, -5, True, math.inf, "x"])
def test_an_event_cannot_expire_before_it_is_due(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^expires_after "):
        arguments.expires_after_us(value)
