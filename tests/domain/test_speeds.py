"""What may be said of two speeds, and when nothing may be said: on made-up machines of which the truth is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

import pytest

from pipeline.speeds import LOOKS, Interval, percentile, percentiles, ratio, schedule, verdict

QUIET = Interval(value=1.0, low=0.995, high=1.005)
RUNS = 100


def known(value: float, low: float, high: float) -> Interval:
    return Interval(value=value, low=low, high=high)


def noisy(seconds: float, rounds: int, seed: int, spread: float = 0.01) -> list[float]:
    rng = random.Random(seed)
    return [seconds * rng.gauss(1, spread) for _ in range(rounds)]


def test_a_form_twice_as_fast_is_faster() -> None:
    found = ratio(noisy(2.0, 15, 1), noisy(1.0, 15, 2))
    assert found.value == pytest.approx(2, rel=0.02)
    assert found.low < found.value < found.high
    assert verdict(found, QUIET) == "faster"


def test_rounds_are_compared_in_pairs_so_that_a_slow_minute_hurts_both() -> None:
    weather = [1.0, 1.1, 3.0, 1.2, 5.0, 1.0, 2.0, 4.0, 1.0, 1.5, 1.0, 2.5, 1.0, 1.0, 1.0]
    found = ratio([2 * one for one in weather], weather)
    assert (found.low, found.value, found.high) == (2.0, 2.0, 2.0)


def test_one_broken_round_does_not_move_the_ratio() -> None:
    fast = noisy(1.0, 15, 4)
    fast[3] = 100.0
    assert ratio(noisy(2.0, 15, 5), fast).value == pytest.approx(2, rel=0.03)


def test_too_few_rounds_say_nothing_however_large_the_difference() -> None:
    found = ratio([9.0] * 7, [1.0] * 7)
    assert (found.value, found.known, found.facts()["ci"]) == (9.0, False, None)
    assert verdict(found, QUIET) == verdict(QUIET, found) == "inconclusive"
    assert ratio([9.0] * 8, [1.0] * 8).known
    assert ratio([9.0] * 6, [1.0] * 6, looks=1).known


def test_who_looks_more_often_needs_more_to_be_sure() -> None:
    one, two = noisy(1.0, 15, 1, 0.1), noisy(1.0, 15, 2, 0.1)
    once, often = ratio(one, two, looks=1), ratio(one, two, looks=LOOKS)
    assert often.low < once.low < once.high < often.high


@pytest.mark.parametrize("rounds", [8, 15, 30])
@pytest.mark.parametrize("draw", [random.gauss, random.lognormvariate], ids=["symmetric", "skewed"])
def test_the_interval_holds_as_often_as_it_says(rounds: int, draw: Callable[[float, float], float]) -> None:
    random.seed(7)
    truth = 0.0 if draw is random.gauss else 1.0  # the medians
    held = 0
    for _ in range(1000):
        found = ratio([draw(0, 1) for _ in range(rounds)], [1.0] * rounds, looks=1)
        held += found.low <= truth <= found.high
    assert held >= 945


def test_a_restless_control_widens_what_counts_as_a_difference() -> None:
    found = known(1.12, 1.1, 1.14)
    assert verdict(found, QUIET) == "faster"
    assert verdict(found, known(1.0, 0.88, 1.12)) == "inconclusive"


def test_on_a_wild_machine_nothing_is_called_the_same() -> None:
    assert verdict(known(1.0, 0.99, 1.01), known(1.0, 0.6, 1.4)) == "inconclusive"


def test_an_interval_across_the_margin_is_inconclusive() -> None:
    assert verdict(known(1.05, 0.98, 1.2), QUIET) == "inconclusive"


def test_percentiles_are_interpolated() -> None:
    values = [4.0, 1.0, 3.0, 2.0, 5.0]
    assert percentile(values, 0.5) == 3
    assert percentile(values, 0.9) == pytest.approx(4.6)
    assert percentile(values, 1.0) == 5
    assert percentile([7.0], 0.99) == 7


def test_percentiles_have_bounds_that_know_that_a_rounds_times_belong_together() -> None:
    rng = random.Random(3)
    rounds = [[level * rng.gauss(1, 0.01) for _ in range(20)] for level in [1.0] * 12 + [1.5] * 3]
    alone = [[one] for times in rounds for one in times]
    (together, _), (apart, _) = percentiles(rounds, (0.5, 0.9)), percentiles(alone, (0.5, 0.9))
    assert together.low <= together.value <= together.high
    assert together.value == apart.value
    (wide,), (narrow,) = percentiles(rounds, (0.85,)), percentiles(alone, (0.85,))
    assert wide.high - wide.low > narrow.high - narrow.low
    assert percentiles(rounds, (0.5,)) == percentiles(rounds, (0.5,))


Machine = Callable[[random.Random], Iterator[Callable[[float], float]]]
"""Gives for round after round what one turn of a form makes of the time that the form would take."""


def calm(rng: random.Random) -> Iterator[Callable[[float], float]]:
    while True:
        yield lambda seconds: seconds * rng.gauss(1, 0.01)


def drifting(rng: random.Random) -> Iterator[Callable[[float], float]]:
    """The clock rate wanders, by more than the difference that is to be found."""
    level = 1.0
    while True:
        level *= math.exp(rng.gauss(0, 0.05))
        yield lambda seconds, now=level: seconds * now * rng.gauss(1, 0.02)  # type: ignore[misc]


def spiking(rng: random.Random) -> Iterator[Callable[[float], float]]:
    """One turn in five is interrupted and takes up to four times as long."""
    while True:
        yield lambda seconds: seconds * rng.gauss(1, 0.02) * (rng.uniform(1, 4) if rng.random() < 0.2 else 1)


def heavy_tailed(rng: random.Random) -> Iterator[Callable[[float], float]]:
    """Delays without a variance."""
    while True:
        yield lambda seconds: seconds * (1 + 0.02 * (rng.paretovariate(1.5) - 1))


def busy_neighbour(rng: random.Random) -> Iterator[Callable[[float], float]]:
    """Somebody else comes and goes in the middle of rounds: half of the samples take half as long again."""
    while True:
        yield lambda seconds: seconds * rng.gauss(1, 0.02) * (1.5 if rng.random() < 0.5 else 1)


def lucky_places(rng: random.Random) -> Iterator[Callable[[float], float]]:
    """Where memory lies makes each process a little faster or slower for as long as it lives."""
    bias: dict[float, float] = {}
    while True:
        yield lambda seconds: seconds * bias.setdefault(seconds, rng.gauss(1, 0.01)) * rng.gauss(1, 0.02)


MACHINES = (calm, drifting, spiking, heavy_tailed, busy_neighbour, lucky_places)


def judged(machine: Machine, slowdown: float, seed: int, *, first: int = 15) -> str:
    """One benchmark: rounds until the verdict is clear. Each turn is the best of three, as the protocol has it."""
    rng = random.Random(seed)
    weather = machine(rng)
    source: list[float] = []
    control: list[float] = []
    other: list[float] = []
    for look in schedule(first):
        while len(source) < look:
            turn = next(weather)
            times = [(source, 1.0), (control, 1.0 + 1e-12), (other, 1.0 + slowdown + 2e-12)]
            rng.shuffle(times)
            for kept, seconds in times:
                kept.append(min(turn(seconds) for _ in range(3)))
        found = verdict(ratio(source, other), ratio(source, control))
        if found != "inconclusive":
            break
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_the_source_beside_itself_is_the_same(machine: Machine) -> None:
    found = [judged(machine, 0.0, seed) for seed in range(RUNS)]
    assert found.count("same") >= 0.95 * RUNS


@pytest.mark.parametrize("machine", MACHINES)
def test_a_form_fifteen_per_cent_slower_is_slower(machine: Machine) -> None:
    found = [judged(machine, 0.15, seed) for seed in range(RUNS)]
    assert found.count("slower") >= 0.95 * RUNS


def hopeless(rng: random.Random) -> Iterator[Callable[[float], float]]:
    while True:
        yield lambda seconds: seconds * rng.lognormvariate(0, 1)


def test_noise_is_not_called_a_difference_however_loud_and_however_often_one_looks() -> None:
    found = [judged(hopeless, 0.0, seed) for seed in range(RUNS)]
    assert found.count("inconclusive") >= 0.95 * RUNS
    assert found.count("faster") + found.count("slower") <= 0.05 * RUNS
