"""Rollouts are decided rightly however often one looks, and soon where it matters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.rollouts import Trial
from registry import sequential
from registry.sequential import Counts
from registry.verdicts import LATENCY_BUCKETS, Rules, Tally, bucket, judge

ALPHA = Rules().alpha
CONTROL = Tally(requests=10_000, errors=100, right=9000, wrong=900)


@pytest.mark.parametrize(("rate", "share"), [(0.01, 0.05), (0.1, 0.5), (0.5, 0.5)])
def test_a_candidate_that_is_as_good_is_seldom_rolled_back_under_continuous_peeking(rate: float, share: float) -> None:
    when = Trial(control=rate, candidate=rate, share=share, requests=3000).rolled_back()
    assert np.isfinite(when).mean() <= ALPHA


def test_a_candidate_that_is_worse_by_the_margin_is_seldom_promoted_under_continuous_peeking() -> None:
    when = Trial(control=0.02, candidate=0.03, share=0.5, requests=3000).promoted(0.01)
    assert np.isfinite(when).mean() <= ALPHA


@pytest.mark.parametrize(("rate", "share", "within"), [(0.05, 0.5, 2900), (0.5, 0.5, 50), (0.5, 0.05, 300)])
def test_twice_the_errors_are_rolled_back_within_the_stated_number_of_requests(
    rate: float, share: float, within: int
) -> None:
    trial = Trial(control=rate, candidate=2 * rate, share=share, requests=within, every=max(1, within // 100))
    assert np.isfinite(trial.rolled_back()).mean() >= 0.95


@given(
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.integers(0, 2000),
    st.sampled_from([0, 0.01, -0.05]),
)
def test_the_evidence_is_the_least_over_every_level_between_the_arms(
    a: int, b: int, c: int, d: int, margin: float
) -> None:
    high, low = Counts(a, a + b), Counts(c, c + d)
    found = sequential.higher(high, low, margin)
    levels = np.linspace(max(0, -margin), min(1, 1 - margin), 400)
    assert found <= min(sequential.below(low, p) + sequential.above(high, p + margin) for p in levels) + 1e-6
    assert found >= 2 * math.log(1 / len(sequential.STEPS))


def test_intervals_hold_the_rate_and_the_difference_agrees_with_the_verdict() -> None:
    control, candidate = Counts(100, 10_000), Counts(200, 10_000)
    low, high = sequential.interval(candidate, ALPHA)
    assert 0.015 < low < 0.02 < high < 0.026
    assert sequential.difference(candidate, control, ALPHA).low > 0
    assert sequential.interval(Counts(0, 0), ALPHA) == (0, 1)
    assert sequential.difference(Counts(0, 0), control, ALPHA).high > 0.98


def test_every_verdict_says_why_with_its_figures() -> None:
    rules = Rules(latency_ms=50, use_feedback=True, max_requests=30_000, max_hours=2)

    def said(candidate: Tally, control: Tally = CONTROL) -> list[str]:
        found = judge(rules, control, candidate, hours=1)
        return [found.decision, found.reason]

    assert said(Tally(requests=20, errors=20))[1].startswith("The candidate fails too often: errors 100 % (20 of 20)")
    slow = said(Tally(requests=2000, errors=20, slow=40))
    assert slow[0] == "roll_back"
    assert "answers above 50 ms 2 % (40 of 2,000) against 0 % (0 of 10,000)" in slow[1]
    good = Tally(requests=10_000, errors=99, right=9100, wrong=800)
    assert said(good)[0] == "promote"
    unheard = said(Tally(requests=10_000, errors=99))
    assert (unheard[0], "wrong labels of none yet against 9.09 % (900 of 9,900)" in unheard[1]) == ("keep_on", True)
    assert said(Tally(requests=25_000, errors=250))[1].startswith("Undecided after 35,000 requests, of which the rules")
    late = judge(rules, Tally(), Tally(), hours=2.5)
    assert (late.decision, late.reason[:27]) == ("stop", "Undecided after 2.5 hours, ")
    waits = judge(Rules(auto_promote=False), good, good, hours=1)
    assert (waits.decision, "waits for somebody" in waits.reason) == ("keep_on", True)
    early = judge(Rules(min_requests=20_000), good, good, hours=1)
    assert (early.decision, "10,000 of at least 20,000" in early.reason) == ("keep_on", True)


def test_a_histogram_tells_latencies_within_one_bucket() -> None:
    counts = [0] * (len(LATENCY_BUCKETS) + 1)
    for ms in range(1, 1001):
        counts[bucket(ms / 1000)] += 1
    tally = Tally(requests=1000, latencies=counts)
    for share in (0.5, 0.95, 0.99):
        assert tally.quantile(share) == pytest.approx(share, rel=0.63)
    assert Tally(latencies=[0] * len(LATENCY_BUCKETS) + [3]).quantile(0.5) == LATENCY_BUCKETS[-1]
    assert Tally().quantile(0.5) is None
