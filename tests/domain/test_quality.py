"""The quality score: what it is made of, and what it is not moved by."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.quality import score

SOURCE = {"name": "source", "size": 1000}


def verification(flips: int = 0, error: float = 0.0, compared: int = 200) -> dict[str, Any]:
    return {
        "outputs": [{"rms_rel": error, "decisions": {"compared": compared, "flips": flips}}],
        "budget": {"rms_rel": 0.1},
    }


def points(**changes: Any) -> dict[str, float]:
    given = {
        "verification": verification(),
        "row": {"size": 1000, "speedup_ci": [0.99, 1.01]},
        "source": SOURCE,
        "warnings": [],
    } | changes
    return {one["term"]: one["points"] for one in score(**given)["terms"]}


def test_a_form_like_its_source_has_all_points_but_those_for_being_better() -> None:
    assert points() == {"agreement": 40, "error": 20, "speed": 10, "size": 5, "warnings": 10}


def test_each_term_moves_with_its_own_evidence() -> None:
    assert points(verification=verification(flips=10))["agreement"] == 20
    assert points(verification=verification(flips=100))["agreement"] == 0
    assert points(verification=verification(error=0.05))["error"] == 10
    assert points(row={"size": 250, "speedup_ci": [8.0, 9.0]}) == points() | {"speed": 20, "size": 8.75}
    assert points(row={"size": 4000, "speedup_ci": [0.1, 0.125]}) == points() | {"speed": 0, "size": 0}
    assert points(warnings=["one", "two"])["warnings"] == 6
    assert points(warnings=["many"] * 50)["warnings"] == 0


def test_a_speed_up_counts_as_far_as_it_is_sure() -> None:
    wide, narrow = (points(row={"size": 1000, "speedup_ci": ci})["speed"] for ci in ([1.1, 9.0], [3.9, 4.1]))
    assert 10 < wide < narrow
    assert points(row={"size": 1000, "speedup_ci": [0.5, 9.0]})["speed"] == 10


def test_what_nothing_is_known_of_does_not_count() -> None:
    unknown = score(verification=None, row={"size": 1000, "speedup_ci": None}, source=SOURCE, warnings=[])
    assert [one["term"] for one in unknown["terms"]] == ["size", "warnings"]
    assert unknown["score"] == 75.0
    assert score(verification=verification(compared=0), row={}, source={}, warnings=[])["score"] == 100.0


@pytest.mark.parametrize(("low", "high"), [(1e-9, 1e-8), (1e8, 1e9)])
def test_no_speed_leaves_the_scale(low: float, high: float) -> None:
    assert points(row={"size": 1000, "speedup_ci": [low, high]})["speed"] in (0, 20)


@given(
    flips=st.integers(0, 200),
    error=st.floats(0, 10),
    size=st.integers(1, 10_000),
    low=st.floats(1e-6, 1e6),
    warnings=st.integers(0, 20),
)
def test_it_lies_between_nothing_and_a_hundred_and_more_flips_never_help(
    flips: int, error: float, size: int, low: float, warnings: int
) -> None:
    row = {"size": size, "speedup_ci": [low, 2 * low]}

    def of(flips: int) -> float:
        found = verification(flips, error)
        return float(score(verification=found, row=row, source=SOURCE, warnings=["w"] * warnings)["score"])

    assert 0 <= of(flips) <= of(0) <= 100
