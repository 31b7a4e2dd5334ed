"""How often rollouts are decided wrongly under continuous peeking, and how soon a worse candidate is rolled back.

`python -m benchmarks rollouts`. Answers are drawn, so no service is needed; the verdicts are those of `registry.verdicts`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry import sequential
from registry.sequential import STEPS, Counts
from registry.verdicts import FOR_LIMIT, Rules

RULES = Rules()
WORSE = math.log(1 / (RULES.alpha * (1 - FOR_LIMIT)))
FIT = math.log(1 / RULES.alpha)
MARGIN = RULES.max_error_increase
EXPERIMENTS = 500


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Many experiments of so many `requests`, of which `share` go to the candidate, looked at after every `every` of them."""

    control: float
    candidate: float
    share: float
    requests: int
    every: int = 1
    experiments: int = EXPERIMENTS

    def rolled_back(self) -> NDArray[np.float64]:
        """After how many requests each experiment's candidate was shown worse; infinity where it never was."""
        return self._decided(0.0, WORSE, swapped=False)

    def promoted(self, margin: float) -> NDArray[np.float64]:
        """After how many requests each experiment's candidate was shown not worse by the margin."""
        return self._decided(-margin, FIT, swapped=True)

    def _decided(self, margin: float, needed: float, *, swapped: bool) -> NDArray[np.float64]:
        """The evidence is the least over all p, so only where it suffices at a p between the arms is it searched for."""
        p = max(-margin, self.share * self.candidate + (1 - self.share) * (self.control - margin))
        generator = np.random.default_rng(20_261_125)
        when = np.full(self.experiments, np.inf)
        for experiment in range(self.experiments):
            to_candidate = generator.random(self.requests) < self.share
            bad = generator.random(self.requests) < np.where(to_candidate, self.candidate, self.control)
            looks = slice(self.every - 1, None, self.every)
            of = np.cumsum(to_candidate)[looks]
            total = np.arange(1, self.requests + 1)[looks]
            candidate = np.cumsum(bad & to_candidate)[looks], of
            control = np.cumsum(bad & ~to_candidate)[looks], total - of
            (low_bad, low_of), (high_bad, high_of) = (candidate, control) if swapped else (control, candidate)
            enough = _mixed(low_bad, low_of, p, -1.0) + _mixed(high_bad, high_of, p + margin, 1.0) >= needed
            for look in np.flatnonzero(enough):
                high = Counts(int(high_bad[look]), int(high_of[look]))
                low = Counts(int(low_bad[look]), int(low_of[look]))
                if sequential.higher(high, low, margin) >= needed:
                    when[experiment] = total[look]
                    break
        return when


def _mixed(bad: NDArray[Any], of: NDArray[Any], p: float, sign: float) -> NDArray[Any]:
    """`sequential.above` (sign 1) or `below` (-1), for many counts at once."""
    terms = [sign * step * bad - of * math.log1p(p * math.expm1(sign * step)) for step in STEPS]
    most = np.max(terms, axis=0)
    summed: NDArray[Any] = most + np.log(sum(np.exp(term - most) for term in terms) / len(STEPS))
    return summed


def main() -> str:
    """Three tables, as Markdown."""
    return f"{_false_decisions()}\n\n{_rolled_back()}\n\n{_promoted()}"


def _false_decisions() -> str:
    lines = [
        f"Of {EXPERIMENTS} experiments, looked at after every request, decided falsely at alpha = {RULES.alpha:.0%}",
        "| control's rate | candidate's share | requests | as good, rolled back | worse by the margin, promoted |",
        "|---:|---:|---:|---:|---:|",
    ]
    for control, share, requests in (
        (0.001, 0.5, 10_000),
        (0.01, 0.05, 10_000),
        (0.01, 0.5, 10_000),
        (0.1, 0.5, 10_000),
        (0.5, 0.05, 10_000),
    ):
        equal = Trial(control=control, candidate=control, share=share, requests=requests).rolled_back()
        worse = Trial(control=control, candidate=control + MARGIN, share=share, requests=requests).promoted(MARGIN)
        false = " | ".join(f"{np.isfinite(when).mean():.1%}" for when in (equal, worse))
        lines.append(f"| {control:.1%} | {share:.0%} | {requests:,} | {false} |")
    return "\n".join(lines)


def _rolled_back() -> str:
    lines = [
        "Requests to both until a candidate with twice the errors is rolled back",
        "| control | candidate | candidate's share | in half of the experiments | in 95 % |",
        "|---:|---:|---:|---:|---:|",
    ]
    for control, share, requests in (
        (0.01, 0.5, 40_000),
        (0.01, 0.05, 200_000),
        (0.05, 0.5, 8_000),
        (0.05, 0.05, 40_000),
        (0.5, 0.5, 400),
        (0.5, 0.05, 3_000),
    ):
        twice = Trial(
            control=control, candidate=2 * control, share=share, requests=requests, every=max(1, requests // 1_000)
        )
        lines.append(_soon(twice, twice.rolled_back()))
    return "\n".join(lines)


def _promoted() -> str:
    lines = [
        f"Requests to both until a candidate that is as good is promoted, {MARGIN:.0%} more allowed",
        "| control | candidate | candidate's share | in half of the experiments | in 95 % |",
        "|---:|---:|---:|---:|---:|",
    ]
    for rate, share, requests in (
        (0.001, 0.05, 60_000),
        (0.01, 0.05, 150_000),
        (0.01, 0.5, 40_000),
        (0.05, 0.5, 100_000),
    ):
        same = Trial(control=rate, candidate=rate, share=share, requests=requests, every=requests // 500)
        lines.append(_soon(same, same.promoted(MARGIN)))
    return "\n".join(lines)


def _soon(trial: Trial, when: NDArray[np.float64]) -> str:
    half, most = (f"{found:,.0f}" for found in np.quantile(when, (0.5, 0.95), method="higher"))
    return f"| {trial.control:.1%} | {trial.candidate:.1%} | {trial.share:.0%} | {half} | {most} |"
