"""What the figures of a rollout say: go on, promote, roll back, or stop undecided. Pure: counts and rules in, verdict out.

Each kind of bad answer is a metric of its own: errors, slow answers, wrong labels. To be rolled back it is enough to be
shown worse in one of them, so these tests share alpha; to be promoted all must be shown not worse by more than their
margin, so each of those has alpha to itself.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from registry import sequential
from registry.sequential import Counts

LATENCY_BUCKETS: tuple[float, ...] = tuple(0.0005 * 120_000 ** (step / 24) for step in range(25))
"""Upper bounds in seconds, 0.5 ms to 60 s, each 1.63 times the one before. What took longer is counted in one bucket more."""

FOR_LIMIT = 0.1
"""The share of alpha that the absolute limit is tested with; the rest is for the comparison."""

_LARGEST = 690.0
"""Logarithm of the largest evidence that is told as a number: JSON knows no infinity."""

Decision = Literal["promote", "roll_back", "keep_on", "stop"]


def bucket(seconds: float) -> int:
    """Where in `Tally.latencies` an answer that took so long is counted."""
    return bisect_left(LATENCY_BUCKETS, seconds)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What came of one arm, or what has come of it since the last note.

    `errors`: answers that were the service's fault. `compared`, `disagreed`: shadow copies with an answer of both, and
    those with another one. `right`, `wrong`: by feedback. `seconds`: sum of the latencies. `latencies`: counts by
    `bucket`, len(LATENCY_BUCKETS) + 1 of them, or none.
    """

    requests: int = 0
    errors: int = 0
    slow: int = 0
    compared: int = 0
    disagreed: int = 0
    right: int = 0
    wrong: int = 0
    seconds: float = 0.0
    latencies: Sequence[int] = ()

    def quantile(self, share: float) -> float | None:
        """Seconds that this share of the answers stayed below, at most one bucket off; None without answers."""
        wanted = share * sum(self.latencies)
        passed = 0
        for index, count in enumerate(self.latencies):
            if count and passed + count >= wanted:
                if index == len(LATENCY_BUCKETS):
                    return LATENCY_BUCKETS[-1]
                low = LATENCY_BUCKETS[index - 1] if index else 0.0
                return low + (LATENCY_BUCKETS[index] - low) * (wanted - passed) / count
            passed += count
        return None


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What decides a rollout. Shares are between 0 and 1.

    `alpha`: how often, at most, a rollout is decided wrongly in one direction. `max_…_increase`: how much more of the
    control's share the candidate may have and still be promoted. `latency_ms`: what makes an answer slow; without it none
    is. `error_limit`: a share of errors that is too much whatever the control does. `min_requests` of the candidate before
    it is promoted; `max_requests` of both arms and `max_hours` after which it is stopped undecided.
    """

    alpha: float = 0.05
    max_error_increase: float = 0.01
    latency_ms: float | None = None
    max_slow_increase: float = 0.01
    use_feedback: bool = False
    max_wrong_increase: float = 0.01
    error_limit: float | None = 0.5
    min_requests: int = 500
    max_requests: int | None = None
    max_hours: float | None = 336.0
    auto_promote: bool = True

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Rules:
        """From JSON as `kept` has made it; what is not said there is as usual."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in kept.items() if name in known})

    def kept(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one metric shows. Evidence is a natural logarithm, and so is what is needed of it."""

    metric: str
    what: str
    margin: float
    control: Counts
    candidate: Counts
    worse: float
    needed_for_worse: float
    not_worse: float
    needed_for_not_worse: float

    def shown_worse(self) -> bool:
        return self.worse >= self.needed_for_worse

    def shown_not_worse(self) -> bool:
        return self.not_worse >= self.needed_for_not_worse

    def told(self) -> str:
        return f"{self.what} {_told(self.candidate)} against {_told(self.control)}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`reason` is a sentence with the figures that decided, or that are still too few."""

    decision: Decision
    reason: str
    findings: tuple[Finding, ...]
    alpha: float

    def figures(self) -> list[dict[str, Any]]:
        """Every metric as JSON: counts, rates and their difference with confidence sequences, and the evidence.

        Takes about 0.1 s a metric: the difference is searched for.
        """
        return [_figures(each, self.alpha) for each in self.findings]


def judge(rules: Rules, control: Tally, candidate: Tally, *, hours: float) -> Verdict:
    """What the figures say, `hours` after the rollout began. May be asked at any moment, as often as one likes."""
    findings = _findings(rules, control, candidate)
    decision, reason = _decide(rules, findings, control, candidate, hours)
    return Verdict(decision=decision, reason=reason, findings=findings, alpha=rules.alpha)


def _decide(
    rules: Rules, findings: Sequence[Finding], control: Tally, candidate: Tally, hours: float
) -> tuple[Decision, str]:
    breach = _breach(rules, candidate)
    if breach is not None:
        return "roll_back", breach
    for each in findings:
        if each.shown_worse():
            evidence = _evidence(each.worse, each.needed_for_worse)
            return "roll_back", f"The candidate is worse: {each.told()}; {evidence}."
    undecided = "; ".join(each.told() for each in findings)
    if all(each.shown_not_worse() for each in findings):
        if candidate.requests < rules.min_requests:
            wanted = f"the candidate has had {candidate.requests:,} of at least {rules.min_requests:,} requests"
            return "keep_on", f"Not worse so far, but {wanted}: {undecided}."
        shown = "; ".join(
            f"{each.told()}, {_percent(each.margin)} more allowed, "
            f"{_evidence(each.not_worse, each.needed_for_not_worse)}"
            for each in findings
        )
        if rules.auto_promote:
            return "promote", f"The candidate is not worse than allowed: {shown}."
        return "keep_on", f"The candidate is not worse than allowed and waits for somebody to promote it: {shown}."
    total = control.requests + candidate.requests
    if rules.max_requests is not None and total >= rules.max_requests:
        return (
            "stop",
            f"Undecided after {total:,} requests, of which the rules allow {rules.max_requests:,}: {undecided}.",
        )
    if rules.max_hours is not None and hours >= rules.max_hours:
        return "stop", f"Undecided after {hours:.1f} hours, of which the rules allow {rules.max_hours:g}: {undecided}."
    return "keep_on", f"Undecided: {undecided}."


def _findings(rules: Rules, control: Tally, candidate: Tally) -> tuple[Finding, ...]:
    asked: list[tuple[str, str, float, Callable[[Tally], Counts]]] = [
        ("errors", "errors", rules.max_error_increase, lambda arm: Counts(arm.errors, arm.requests))
    ]
    if rules.latency_ms is not None:
        what = f"answers above {rules.latency_ms:g} ms"
        asked.append(("slow", what, rules.max_slow_increase, lambda arm: Counts(arm.slow, arm.requests)))
    if rules.use_feedback:
        what = "wrong labels"
        asked.append(("wrong", what, rules.max_wrong_increase, lambda arm: Counts(arm.wrong, arm.right + arm.wrong)))
    compared = rules.alpha * (1 if rules.error_limit is None else 1 - FOR_LIMIT)
    return tuple(
        Finding(
            metric=metric,
            what=what,
            margin=margin,
            control=counts(control),
            candidate=counts(candidate),
            worse=sequential.higher(counts(candidate), counts(control)),
            needed_for_worse=math.log(len(asked) / compared),
            not_worse=sequential.higher(counts(control), counts(candidate), -margin),
            needed_for_not_worse=math.log(1 / rules.alpha),
        )
        for metric, what, margin, counts in asked
    )


def _breach(rules: Rules, candidate: Tally) -> str | None:
    """Why the candidate fails too often by itself, where that is shown."""
    if rules.error_limit is None:
        return None
    counts = Counts(candidate.errors, candidate.requests)
    found, needed = sequential.above(counts, rules.error_limit), math.log(1 / (FOR_LIMIT * rules.alpha))
    if found < needed:
        return None
    over = f"{_told(counts)}, more than the limit of {_percent(rules.error_limit)}"
    return f"The candidate fails too often: errors {over}; {_evidence(found, needed)}."


def _figures(finding: Finding, alpha: float) -> dict[str, Any]:
    between = sequential.difference(finding.candidate, finding.control, alpha)
    return {
        "metric": finding.metric,
        "what": finding.what,
        "control": _arm(finding.control, alpha),
        "candidate": _arm(finding.candidate, alpha),
        "difference": {"low": round(between.low, 6), "high": round(between.high, 6)},
        "margin": finding.margin,
        "worse": {"evidence": _value(finding.worse), "needed": _value(finding.needed_for_worse)},
        "not_worse": {"evidence": _value(finding.not_worse), "needed": _value(finding.needed_for_not_worse)},
    }


def _arm(counts: Counts, alpha: float) -> dict[str, Any]:
    within = sequential.interval(counts, alpha)
    return {
        "bad": counts.bad,
        "of": counts.of,
        "rate": None if counts.rate is None else round(counts.rate, 6),
        "low": round(within.low, 6),
        "high": round(within.high, 6),
    }


def _evidence(found: float, needed: float) -> str:
    return f"evidence {_value(found):,.4g}, needed {_value(needed):,.4g}"


def _value(logarithm: float) -> float:
    return float(f"{math.exp(min(logarithm, _LARGEST)):.4g}")


def _told(counts: Counts) -> str:
    if counts.rate is None:
        return "of none yet"
    return f"{_percent(counts.rate)} ({counts.bad:,} of {counts.of:,})"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
