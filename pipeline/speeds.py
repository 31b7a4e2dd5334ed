"""What may be said of two speeds that were measured in turns, and how sure it is. Pure; knows no clock and no model.

Rounds are looked at a few times while they come in, and no more are run once every verdict is clear. Whoever looks
often finds a difference sometimes where there is none, so each of the looks gets its share of the error: an interval
holds with 1 - 5 %/looks, hence all of them together with 95 %, whenever and for whatever reason one stops.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
LOOKS = 4
"""How often one may look: after the first rounds, and whenever there are twice as many."""

MARGIN = 0.05
"""Speeds within this of each other are called the same."""

WILD = 0.15
"""If the source differs from itself by more than this, nothing can be called the same."""

_RESAMPLES = 200
_KEPT = 48
"""Times of a round that its bootstrap looks at, evenly spread over the round: what they cost grows with their number."""

_SEED = 7


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure and the bounds between which the true one lies with `CONFIDENCE`; infinite where it is too early to say."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        return math.isfinite(self.high)

    def facts(self, digits: int = 4) -> dict[str, float | list[float] | None]:
        bounds = [round(self.low, digits), round(self.high, digits)] if self.known else None
        return {"value": round(self.value, digits), "ci": bounds}


def schedule(first: int) -> tuple[int, ...]:
    """After how many rounds to look."""
    return tuple(first << doubled for doubled in range(LOOKS))


def ratio(reference: Sequence[float], other: Sequence[float], *, looks: int = LOOKS) -> Interval:
    """How many times as fast `other` is: the median over rounds of reference time by other time.

    The bounds are those two of the sorted ratios between which the median of whatever distribution lies (sign test):
    exact for any noise, as long as the rounds are alike, and for few rounds too. `looks`: how often it is looked at.
    """
    ratios = sorted(one / two for one, two in zip(reference, other, strict=True))
    outside = _outside(len(ratios), (1 - CONFIDENCE) / looks)
    value = statistics.median(ratios)
    if outside < 0:
        return Interval(value=value, low=0.0, high=math.inf)
    return Interval(value=value, low=ratios[outside], high=ratios[-1 - outside])


def noise(control: Interval) -> float:
    """By how much the source differs from itself: how far off its ratio is, or how unsure."""
    return max(abs(control.value - 1), (control.high - control.low) / 2)


def verdict(ratio: Interval, control: Interval) -> str:
    """`faster` or `slower` where the whole interval says so, by more than the source differs from itself.

    `same` where the whole interval lies within that, unless the machine was too restless to tell; else `inconclusive`.
    """
    if not (ratio.known and control.known):
        return "inconclusive"
    margin = max(MARGIN, noise(control))
    if ratio.low > 1 + margin:
        return "faster"
    if ratio.high < 1 / (1 + margin):
        return "slower"
    if margin <= WILD and ratio.low >= 1 / (1 + margin) and ratio.high <= 1 + margin:
        return "same"
    return "inconclusive"


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the `values` lie, interpolated."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def percentiles(rounds: Sequence[Sequence[float]], shares: Sequence[float], *, seed: int = _SEED) -> list[Interval]:
    """Percentiles of all times, with bootstrap bounds. Whole rounds are drawn, for the times of one have much in common."""
    every = [one for times in rounds for one in times]
    thinned = [times[:: max(1, math.ceil(len(times) / _KEPT))] for times in rounds]
    ordered = sorted((taken, number) for number, times in enumerate(thinned) for taken in times)
    rng = random.Random(seed)  # noqa: S311 - resampling, not secrets
    found: list[list[float]] = [[] for _ in shares]
    for _ in range(_RESAMPLES):
        weights = [0] * len(rounds)
        for drawn in rng.choices(range(len(rounds)), k=len(rounds)):
            weights[drawn] += 1
        total = sum(weight * len(times) for weight, times in zip(weights, thinned, strict=True))
        for place, value in zip(found, _weighted(ordered, weights, [one * total for one in shares]), strict=True):
            place.append(value)
    tail = (1 - CONFIDENCE) / 2
    intervals = []
    for share, redrawn in zip(shares, found, strict=True):
        value, low, high = percentile(every, share), percentile(redrawn, tail), percentile(redrawn, 1 - tail)
        intervals.append(Interval(value=value, low=min(low, value), high=max(high, value)))
    return intervals


def _outside(count: int, error: float) -> int:
    """How many of `count` sorted values one may leave out at each end, -1 if even all of them are too few."""
    left, below = -1, 0.0
    for number in range(count // 2):
        below += math.comb(count, number) / 2**count
        if 2 * below > error:
            break
        left = number
    return left


def _weighted(ordered: Sequence[tuple[float, int]], weights: Sequence[int], targets: Sequence[float]) -> list[float]:
    """The values at which the running weight reaches the targets, which ascend."""
    found: list[float] = []
    running = 0
    for value, number in ordered:
        running += weights[number]
        while len(found) < len(targets) and running >= targets[len(found)]:
            found.append(value)
        if len(found) == len(targets):
            break
    return found
