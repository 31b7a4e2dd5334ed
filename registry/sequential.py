"""Evidence that one rate is higher than another, good at any moment: look as often as you like, stop when you like. Pure.

The building block is a test martingale for one arm. For answers x in {0, 1} whose rate is at most p, each factor of
exp(λx) / (1 + p(exp(λ) - 1)) is 1 on average or less, for every λ > 0; so is that of an average over several λ (the method
of mixtures: Robbins 1970). By Ville's inequality (1939) such a product ever reaches 1/α with probability α at most.

Two arms: where the higher rate does not exceed the lower by more than a margin, some p lies between them, and the product
of the evidence "the low arm is below p" and "the high arm is above p + margin" is a test martingale too. The smallest such
product over all p is the evidence against every such p at once: an e-process in the sense of Wasserman, Ramdas &
Balakrishnan (2020) and Howard et al. (2021). Turner, Ly & Grünwald (2021) test the same with blocks of a fixed make-up;
here the make-up is free: any share of the requests may go to either arm, and the share may change. What is assumed is that
there is one level which the one arm stays below and the other above, whatever happens within: rates need not stand still.

Counts are (bad, of) pairs of whole numbers; evidence is given as its natural logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

STEPS = (0.0, 0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""The λ that are mixed, in equal parts: how far from p, in log-odds, a rate is looked for."""

_GOLDEN = (math.sqrt(5) - 1) / 2
_SECTIONS = 40
"""The place of a minimum is known to 4e-9 of the range."""
_PRECISE = 1e-6
"""How far a bound may be from the true one, always outwards."""


class Counts(NamedTuple):
    """`bad` answers `of` so many."""

    bad: int
    of: int

    @property
    def rate(self) -> float | None:
        return self.bad / self.of if self.of else None


class Interval(NamedTuple):
    low: float
    high: float


def above(counts: Counts, p: float) -> float:
    """Log-evidence that the rate is above p. Convex in p and falling."""
    return _mixed(counts, p, 1.0)


def below(counts: Counts, p: float) -> float:
    """Log-evidence that the rate is below p. Convex in p and rising."""
    return _mixed(counts, p, -1.0)


def higher(high: Counts, low: Counts, margin: float = 0.0) -> float:
    """Log-evidence that the rate of `high` exceeds that of `low` by more than `margin`, which may be negative.

    Both parts are convex in p, so their sum has one minimum and a golden-section search finds it.
    """
    return _least(lambda p: below(low, p) + above(high, p + margin), max(0.0, -margin), min(1.0, 1.0 - margin))


def interval(counts: Counts, alpha: float) -> Interval:
    """A confidence sequence: with probability 1 - alpha the rate never leaves it, however often it is looked at."""
    needed = math.log(2 / alpha)
    low, _ = _edge(lambda p: above(counts, p) < needed, 0.0, 1.0)
    _, high = _edge(lambda p: below(counts, p) >= needed, 0.0, 1.0)
    return Interval(low, high)


def difference(candidate: Counts, control: Counts, alpha: float) -> Interval:
    """The same for the candidate's rate less the control's.

    It is looked for within the difference of the arms' own intervals: evidence against an arm cannot fall below
    1/len(STEPS), so what these exclude at alpha/len(STEPS) the two arms together exclude at alpha.
    """
    needed = math.log(2 / alpha)
    ours, theirs = interval(candidate, alpha / len(STEPS)), interval(control, alpha / len(STEPS))
    least, most = ours.low - theirs.high, ours.high - theirs.low
    low, _ = _edge(lambda margin: higher(candidate, control, margin) < needed, least, most)
    _, high = _edge(lambda margin: higher(control, candidate, -margin) >= needed, least, most)
    return Interval(low, high)


def _mixed(counts: Counts, p: float, sign: float) -> float:
    """Log of the mean over λ of exp(λ bad) / (1 + p(exp(λ) - 1))^of, summed so that nothing overflows."""
    terms = [sign * step * counts.bad - counts.of * math.log1p(p * math.expm1(sign * step)) for step in STEPS]
    most = max(terms)
    return most + math.log(math.fsum(math.exp(term - most) for term in terms) / len(STEPS))


def _least(f: Callable[[float], float], low: float, high: float) -> float:
    """The minimum of a convex function."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = f(left), f(right)
    for _ in range(_SECTIONS):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = f(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = f(right)
    return min(at_left, at_right)


def _edge(beyond: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Two points close together, or an end of the range, between which a monotone condition becomes true."""
    while high - low > _PRECISE:
        middle = (low + high) / 2
        if beyond(middle):
            high = middle
        else:
            low = middle
    return low, high
