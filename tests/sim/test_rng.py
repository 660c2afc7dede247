"""Draws are the same for ever, depend on nothing but their keys, and are spread as they should be."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtimer.sim.rng import Rng, _ln, derive, draw

KEYS = st.lists(st.text(max_size=5) | st.integers(), max_size=4)


def test_a_seed_recorded_years_ago_still_draws_the_same() -> None:
    rng = Rng(7, "n1", "latency")

    assert [rng.bits() for _ in range(3)] == [1802634473840237684, 10303256272725436994, 10028826508703574776]
    assert [rng.below(1_000) for _ in range(5)] == [337, 548, 741, 375, 869]
    assert [rng.exponential(1_000_000) for _ in range(3)] == [806123, 2146727, 178843]
    assert rng.token(10) == "72d3d5f9ada40bae0b42"


@given(KEYS, KEYS)
def test_only_equal_keys_draw_equal_numbers(one: list[str | int], other: list[str | int]) -> None:
    assert (derive(1, *one) == derive(1, *other)) == ([*map(typed, one)] == [*map(typed, other)])


def typed(key: str | int) -> tuple[type, str | int]:
    return type(key), key


def test_keys_do_not_run_into_each_other() -> None:
    assert len({derive(1), derive(2), derive(12), derive(1, 2), derive(1, "2"), derive(1, "2", ""), derive(-1)}) == 7
    assert derive(1, "ab", "c") != derive(1, "a", "bc")


def test_a_draw_more_in_one_place_changes_nothing_in_another() -> None:
    one, other = Rng(3), Rng(3)
    one.bits()

    assert one.of("n1", "crash").bits() == other.of("n1").of("crash").bits() == Rng(3, "n1", "crash").bits()
    assert one.bits() != other.bits()


def test_a_number_of_ones_own_is_not_counted() -> None:
    rng = Rng(3)

    assert rng.at(5) == rng.at(5) == draw(derive(3), 5)
    assert rng.drawn == 0


@given(st.integers(), st.integers(1, 1 << 80))
def test_a_draw_below_a_limit_is_below_it(seed: int, limit: int) -> None:
    assert 0 <= Rng(seed).below(limit) < limit


@given(st.integers(), st.integers(), st.integers(0, 1 << 70))
def test_a_draw_between_two_numbers_may_be_either(seed: int, least: int, span: int) -> None:
    assert least <= Rng(seed).between(least, least + span) <= least + span
    assert {Rng(seed, number).between(4, 5) for number in range(64)} == {4, 5}


@pytest.mark.parametrize("limit", [0, -1])
def test_there_is_nothing_below_zero(limit: int) -> None:
    with pytest.raises(ValueError, match=str(limit)):
        Rng(0).below(limit)


def test_what_never_happens_never_does_and_what_is_certain_always() -> None:
    rng = Rng(0)

    assert not any(rng.happens(0.0) for _ in range(1_000))
    assert all(rng.happens(1.0) for _ in range(1_000))
    assert 200 < sum(rng.happens(0.25) for _ in range(1_000)) < 300


def test_every_order_of_a_few_items_is_as_likely_as_any_other() -> None:
    rng, counts = Rng(0), dict[str, int]()
    for _ in range(6_000):
        items = ["a", "b", "c"]
        rng.shuffle(items)
        order = "".join(items)
        counts[order] = counts.get(order, 0) + 1

    assert len(counts) == 6
    assert all(900 < count < 1_100 for count in counts.values())
    assert {rng.pick("xyz") for _ in range(100)} == set("xyz")


def test_durations_between_rare_things_are_exponential() -> None:
    rng = Rng(0)
    durations = [rng.exponential(1_000_000) for _ in range(10_000)]

    assert sum(durations) / 10_000 == pytest.approx(1_000_000, rel=0.03)
    assert sum(duration > 1_000_000 for duration in durations) / 10_000 == pytest.approx(math.exp(-1), rel=0.03)
    assert min(durations) >= 0


@pytest.mark.parametrize("number", [2.0**-53, 1e-9, 0.1, 0.25, 0.5, 0.7071, 0.999999, 1.0])
def test_the_logarithm_is_right_without_the_c_library(number: float) -> None:
    assert _ln(number) == pytest.approx(math.log(number), rel=1e-9, abs=1e-12)


def test_tokens_have_the_length_that_was_asked_for() -> None:
    assert [len(Rng(0).token(num_bytes)) for num_bytes in (0, 1, 8, 9, 16)] == [0, 2, 16, 18, 32]
