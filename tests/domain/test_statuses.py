"""What a version may become, what an alias may be called and go back to, and what a metric may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import figures
from registry.errors import Conflict, Invalid
from registry.pointers import behind, is_name, refuse_unless_name
from registry.statuses import NEXT, STATUSES, Status, refuse_unless_legal

some = st.sampled_from(STATUSES)


@given(some, some, st.booleans())
def test_only_listed_moves_are_legal_and_only_what_is_ready_is_approved(
    current: Status, wanted: Status, ready: bool
) -> None:
    legal = wanted == current or (wanted in NEXT[current] and (ready or wanted != "approved"))
    if legal:
        refuse_unless_legal(current, wanted, ready=ready)
        return
    with pytest.raises(Conflict) as caught:
        refuse_unless_legal(current, wanted, ready=ready)
    assert caught.value.code == "illegal_status"


def test_everything_can_be_archived_and_nothing_is_lost_for_ever() -> None:
    assert all("archived" in NEXT[status] for status in STATUSES if status != "archived")
    reached = {"archived"}
    while more := {onward for status in reached for onward in NEXT[status]} - reached:
        reached |= more
    assert reached == set(STATUSES)


@pytest.mark.parametrize("name", ["production", "default", "a", "champion-2", "team_a.blue", "rc1", "x" * 63])
def test_names_of_aliases(name: str) -> None:
    refuse_unless_name(name)


@pytest.mark.parametrize(
    "name", ["", "latest", "v1", "v1.2", "2", "v1.0.0-rc.1", "Production", "x" * 64, "a/b", "a b", "é", "a:b", "a~b"]
)
def test_what_could_be_taken_for_a_version_is_no_alias(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(Invalid):
        refuse_unless_name(name)


@pytest.mark.parametrize(
    ("moves", "back"),
    [
        ("", ""),
        ("A", ""),
        ("AB", "A"),
        ("ABC", "BA"),
        ("ABCB", "A"),  # one rollback: the next goes to A, not to C again
        ("ABCBA", ""),
        ("ABA", ""),
        ("ABCBD", "BA"),
        ("AB-", "BA"),  # removed: back to where it pointed last
        ("A-B", "A"),
        ("AA", ""),
    ],
)
def test_where_an_alias_goes_back_to(moves: str, back: str) -> None:
    assert behind(None if each == "-" else each for each in moves) == list(back)


@given(st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=12))
def test_rolling_back_ends_and_never_stays_where_it_is(moves: list[int | None]) -> None:
    steps = 0
    while back := behind(moves):
        assert back[0] != moves[-1]
        assert len(set(back)) == len(back)
        moves = [*moves, back[0]]
        steps += 1
    assert steps <= 4


@pytest.mark.parametrize(
    ("name", "known"),
    [("accuracy", "accuracy"), ("f1_score", "f1"), ("map", "mAP"), ("mAP", "mAP"), ("Recall", "recall")],
)
def test_metrics_go_by_one_name(name: str, known: str) -> None:
    assert figures.checked(name, 0.5) == (known, 0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("accuracy", 1.5), ("mAP", -0.1), ("loss", float("nan")), ("loss", float("inf")), ("Loss", 1.0), ("a b", 1.0)],
)
def test_what_is_no_metric(name: str, value: float) -> None:
    with pytest.raises(Invalid):
        figures.checked(name, value)


def test_names_of_one_s_own_may_have_any_finite_value() -> None:
    assert figures.checked("loss@epoch-20", -3.5) == ("loss@epoch-20", -3.5)
