"""What may be said of two speeds, and when nothing may be said."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from pipeline.benchmarking import (
    MOST_ITERATIONS,
    Ratio,
    Sample,
    interleave,
    iterations,
    paired_ratio,
    percentile,
    rounds_that_fit,
    verdict,
)

QUIET = Ratio(value=1.0, low=0.995, high=1.005)


def noisy(seconds: float, rounds: int, seed: int, spread: float = 0.01) -> list[float]:
    rng = random.Random(seed)
    return [seconds * rng.gauss(1, spread) for _ in range(rounds)]


def test_a_form_twice_as_fast_is_faster() -> None:
    ratio = paired_ratio(noisy(2.0, 15, 1), noisy(1.0, 15, 2))
    assert ratio.value == pytest.approx(2, rel=0.02)
    assert ratio.low < ratio.value < ratio.high
    assert verdict(ratio, QUIET) == "faster"


def test_a_form_fifteen_per_cent_slower_is_slower() -> None:
    caught = [verdict(paired_ratio(noisy(1.0, 15, n), noisy(1.15, 15, -n - 1)), QUIET) for n in range(100)]
    assert caught.count("slower") >= 95


def test_the_source_beside_itself_is_the_same() -> None:
    found = [verdict(paired_ratio(noisy(1.0, 15, n), noisy(1.0, 15, -n - 1)), QUIET) for n in range(100)]
    assert found.count("same") >= 95


def test_rounds_are_compared_in_pairs_so_that_a_slow_minute_hurts_both() -> None:
    weather = [1.0, 1.1, 3.0, 1.2, 5.0, 1.0, 2.0, 4.0, 1.0, 1.5, 1.0, 2.5, 1.0, 1.0, 1.0]
    ratio = paired_ratio([2 * one for one in weather], weather)
    assert (ratio.low, ratio.value, ratio.high) == (2.0, 2.0, 2.0)


def test_one_broken_round_does_not_move_the_ratio() -> None:
    fast = noisy(1.0, 15, 4)
    fast[3] = 100.0
    assert paired_ratio(noisy(2.0, 15, 5), fast).value == pytest.approx(2, rel=0.03)


def test_a_restless_control_widens_what_counts_as_a_difference() -> None:
    ratio = Ratio(value=1.12, low=1.1, high=1.14)
    assert verdict(ratio, QUIET) == "faster"
    assert verdict(ratio, Ratio(value=1.0, low=0.88, high=1.12)) == "inconclusive"


def test_on_a_wild_machine_nothing_is_called_the_same() -> None:
    assert verdict(Ratio(value=1.0, low=0.99, high=1.01), Ratio(value=1.0, low=0.6, high=1.4)) == "inconclusive"


def test_an_interval_across_the_margin_is_inconclusive() -> None:
    assert verdict(Ratio(value=1.05, low=0.98, high=1.2), QUIET) == "inconclusive"


def test_the_same_times_give_the_same_interval() -> None:
    one, two = noisy(1.0, 15, 6), noisy(1.3, 15, 7)
    assert paired_ratio(one, two) == paired_ratio(one, two)
    assert paired_ratio(one, two, seed=1) != paired_ratio(one, two, seed=2)


def test_percentiles_are_interpolated() -> None:
    values = [4.0, 1.0, 3.0, 2.0, 5.0]
    assert percentile(values, 0.5) == 3
    assert percentile(values, 0.9) == pytest.approx(4.6)
    assert percentile(values, 1.0) == 5
    assert percentile([7.0], 0.99) == 7


def test_fast_models_are_repeated_until_a_sample_lasts_and_slow_ones_are_not() -> None:
    assert iterations(10e-6) == 200
    assert iterations(0.5) == 1
    assert iterations(0.0) == MOST_ITERATIONS


def test_rounds_give_way_to_the_time_limit_and_too_few_are_none() -> None:
    assert rounds_that_fit(15, 5, 1.0, 100.0) == 15
    assert rounds_that_fit(15, 5, 10.0, 100.0) == 10
    assert rounds_that_fit(15, 5, 30.0, 100.0) == 0


def test_every_form_has_its_turn_in_every_round_and_the_order_changes() -> None:
    turns: list[str] = []

    def turn(name: str) -> Sample:
        turns.append(name)
        return Sample(samples=[[1000, 3000], [1000, 1000]])

    found = interleave({name: lambda name=name: turn(name) for name in "abcd"}, 15)
    orders = ["".join(turns[start : start + 4]) for start in range(0, 60, 4)]
    assert {"".join(sorted(order)) for order in orders} == {"abcd"}
    assert len(set(orders)) > 5
    assert any(one != two for one, two in pairwise(orders))
    assert all(len(samples) == 15 for samples in found.values())
    assert found["a"][0].fastest == pytest.approx(1e-6)
