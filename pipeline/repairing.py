"""Which layers of a quantised graph to keep in float: as few as meet the budget, found in few trials. Pure.

A trial costs seconds to minutes, so the search leans on a ranking of the layers by sensitivity: it doubles the number
kept from the top until the budget is met, halves its way back to the least that does, and then tries to do without each
one kept, the least sensitive first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

MOST_TRIALS = 24
"""Counted, not timed, so that the same model is repaired the same way however busy the machine is."""


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What the search came to: the layers to keep in float, None where nothing short of all meets the budget."""

    kept: tuple[str, ...] | None
    trials: int


def search(
    ranking: Sequence[str], meets: Callable[[Collection[str]], bool], *, most_trials: int = MOST_TRIALS
) -> Repair:
    """Keep as few of `ranking` (the most sensitive first) as `meets` asks for; that none at all are too few is known.

    The result met the budget in a trial of its own, or there is none.
    """
    trials = _Trials(meets=meets, left=most_trials)
    enough = _least(ranking, trials)
    if enough is None:
        return Repair(kept=None, trials=most_trials - trials.left)
    kept = list(ranking[:enough])
    for one in reversed(ranking[:enough]):
        without = [other for other in kept if other != one]
        if without and trials.met(without):
            kept = without
    return Repair(kept=tuple(kept), trials=most_trials - trials.left)


@dataclass(kw_only=True)
class _Trials:
    """Trials made and left to make; one that would be one too many counts as missed."""

    meets: Callable[[Collection[str]], bool]
    left: int
    known: dict[frozenset[str], bool] = field(default_factory=dict)

    def met(self, kept: Collection[str]) -> bool:
        key = frozenset(kept)
        if key not in self.known:
            if self.left <= 0:
                return False
            self.left -= 1
            self.known[key] = self.meets(kept)
        return self.known[key]


def _least(ranking: Sequence[str], trials: _Trials) -> int | None:
    """How many from the top of the ranking meet the budget, as few as doubling and halving find."""
    too_few, step = 0, 1
    most = len(ranking) - 1  # with every layer in float nothing is quantised
    if most < 1:
        return None
    while not trials.met(ranking[: min(step, most)]):
        too_few, step = min(step, most), step * 2
        if too_few >= most or trials.left <= 0:
            return None
    enough = min(step, most)
    while enough - too_few > 1:
        middle = (enough + too_few) // 2
        if trials.met(ranking[:middle]):
            enough = middle
        else:
            too_few = middle
    return enough
