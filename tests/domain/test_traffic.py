"""The tally of requests: right to its bounds, and as small after a million as after one."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from api.traffic import RATIO, Traffic, bucket, percentile

TIMES = st.floats(min_value=1e-4, max_value=300, allow_nan=False)


@given(st.lists(TIMES, min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_percentile_is_right_to_a_tenth(seconds: list[float], share: float) -> None:
    traffic = Traffic()
    for each in seconds:
        traffic.saw("GET /x", failed=False, seconds=each)
    exact = sorted(seconds)[math.ceil(share * len(seconds)) - 1]
    found = percentile(traffic._histogram, share)
    assert exact * 0.999 <= found <= exact * RATIO * 1.001


@given(st.floats(min_value=0, max_value=1e9))
def test_every_time_has_a_bucket(seconds: float) -> None:
    assert 0 <= bucket(seconds) < len(Traffic()._histogram)


def test_figures_name_the_endpoints_with_the_most_requests() -> None:
    traffic = Traffic()
    for number in range(8):
        for _ in range(number + 1):
            traffic.saw(f"GET /{number}", failed=number == 7, seconds=0.01)
    traffic.saw("GET /events", failed=False, seconds=None)  # a stream is counted and not timed
    figures = traffic.figures()
    assert (figures.total.requests, figures.total.failed, figures.total.timed) == (37, 8, 36)
    assert [(name, tally.requests) for name, tally in figures.top] == [(f"GET /{n}", n + 1) for n in (7, 6, 5, 4, 3)]
    assert round(figures.total.average, 9) == 0.01
    assert 0.009 < figures.p99 < 0.012


def test_without_requests_nothing_is_claimed() -> None:
    figures = Traffic().figures()
    assert (figures.total.requests, figures.total.average, figures.p95, figures.top) == (0, 0.0, 0.0, [])
