"""Which names would be taken for one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.names import Known, Outcome, distance, fold, judge, siblings

LETTERS = st.text("abcdefghjkopqtuwxyz", min_size=4, max_size=12)
"""Words in letters that fold to themselves and into which no digit folds."""


def outcome(name: str, *known: str, mine: bool = False) -> Outcome:
    beside = (Known(name=each, folded=fold(each), owner="ada", mine=mine) for each in known)
    return judge(name, beside).outcome


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("Yolo_11N", "yolo11n", "block"),
        ("yo1o11n", "yolo11n", "block"),
        ("уоlо11n", "yolo11n", "block"),  # Cyrillic
        ("digits", "dígits", "block"),
        ("res-net50", "resnet5O", "block"),
        ("modem", "modern", "block"),
        ("ＤＩＧＩＴＳ", "digits", "block"),  # full width
        ("digitss", "digits", "warn"),
        ("digtis", "digits", "warn"),
        ("bert-bsae", "bert-base", "warn"),
        ("yolo11s", "yolo11n", "fine"),
        ("resnet18", "resnet50", "fine"),
        ("net-v1", "net-v2", "fine"),
        ("bert-small", "bert-large", "fine"),
        ("bert", "bert-xl", "fine"),
        ("digits2", "digits", "fine"),
        ("model-1.1", "model-11", "fine"),
        ("cat", "car", "fine"),  # in short names everything is near
        ("faces", "digits", "fine"),
    ],
)
def test_names_that_look_alike_are_blocked_near_ones_are_asked_about_and_siblings_are_fine(
    name: str, known: str, expected: Outcome
) -> None:
    assert outcome(name, known) == outcome(known, name) == expected


def test_the_same_name_is_told_apart_by_its_owner_but_look_alikes_are_not() -> None:
    assert outcome("digits", "digits") == "fine"
    assert outcome("digits", "digits", mine=True) == "fine"
    assert outcome("Digits", "digits", mine=True) == "block"
    found = judge(
        "d1gits", [Known(name=name, folded=fold(name), owner="ada", mine=False) for name in ("digitz", "digits")]
    )
    assert [(each.name, each.relation) for each in found.similar] == [
        ("digits", "looks_the_same"),
        ("digitz", "one_typo_away"),
    ]


@given(LETTERS, st.sampled_from("-_. "), st.integers(1, 3))
def test_case_and_separators_do_not_make_another_name(word: str, separator: str, place: int) -> None:
    assert fold(word.upper()) == fold(word) == fold(word[:place] + separator + word[place:])


@given(LETTERS, st.integers(0, 9), st.integers(0, 9))
def test_another_number_is_another_name(word: str, one: int, other: int) -> None:
    assert (fold(f"{word}{one}") == fold(f"{word}{other}")) == (one == other)
    assert siblings(f"{word}{one}", f"{word}{other}")
    assert outcome(f"{word}{one}", f"{word}{other}") == "fine"


@given(st.text("aаA1ﬁ日\N{COMBINING ACUTE ACCENT}-._ |", min_size=1, max_size=12))
def test_every_name_folds_to_something(name: str) -> None:
    assert fold(name)


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_the_distance_is_that_of_the_textbook(one: str, other: str) -> None:
    assert distance(one, other, 7) == textbook(one, other)
    assert distance(one, other, 7) == distance(other, one, 7)
    for limit in (0, 1, 2):
        assert distance(one, other, limit) == min(textbook(one, other), limit + 1)


def textbook(one: str, other: str) -> int:
    """Optimal string alignment, by its definition."""
    if not one or not other:
        return len(one) + len(other)
    best = min(
        textbook_of(one[:-1], other) + 1,
        textbook_of(one, other[:-1]) + 1,
        textbook_of(one[:-1], other[:-1]) + (one[-1] != other[-1]),
    )
    if len(one) > 1 and len(other) > 1 and one[-2:] == other[-1:-3:-1]:
        best = min(best, textbook_of(one[:-2], other[:-2]) + 1)
    return best


KNOWN: dict[tuple[str, str], int] = {}


def textbook_of(one: str, other: str) -> int:
    if (one, other) not in KNOWN:
        KNOWN[one, other] = textbook(one, other)
    return KNOWN[one, other]
