"""What counts as the same decision, whatever the numbers are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.decisions import Count, choices, decide, labels, ranks, signs, task_of

SCORES = st.integers(-8, 8).map(lambda one: one / 4)  # few values, so that ties abound
PAIRS = st.tuples(st.integers(1, 6), st.integers(2, 7)).flatmap(
    lambda shape: st.tuples(arrays(np.float64, shape, elements=SCORES), arrays(np.float64, shape, elements=SCORES))
)
MARGINS = st.sampled_from([0.0, 0.25, 1.0])
quick = settings(max_examples=60, deadline=None)


def told(leads: Any, margin: float) -> dict[str, int]:
    count = Count()
    count.add(leads)
    return count.told(margin)


@quick
@given(PAIRS, MARGINS)
def test_every_decision_is_agreement_a_tie_or_a_flip(pair: tuple[Any, Any], margin: float) -> None:
    found = decide(*pair, margin=margin)
    assert found["compared"] == len(pair[0]) == found["agreed"] + found["ties"] + found["flips"]


@quick
@given(PAIRS, MARGINS)
def test_a_flip_is_never_called_agreement_and_a_tie_never_a_flip(pair: tuple[Any, Any], margin: float) -> None:
    reference, candidate = pair
    found = decide(reference, candidate, margin=margin)
    expected = {"agreed": 0, "ties": 0, "flips": 0}
    for row, other in zip(reference.tolist(), candidate.tolist(), strict=True):
        mine, theirs = row.index(max(row)), other.index(max(other))
        lead = row[mine] - row[theirs]
        expected["agreed" if mine == theirs else "ties" if lead <= margin else "flips"] += 1
    assert {key: found[key] for key in expected} == expected


@quick
@given(PAIRS, MARGINS, st.sampled_from([2.0**-30, 0.5, 4.0, 2.0**40]))
def test_the_scale_of_the_scores_changes_nothing(pair: tuple[Any, Any], margin: float, scale: float) -> None:
    scaled = [one * scale for one in pair]
    assert decide(*scaled, margin=margin * scale) == decide(*pair, margin=margin)
    assert told(ranks(*scaled)[1], margin * scale) == told(ranks(*pair)[1], margin)


@quick
@given(PAIRS, MARGINS, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_changes_nothing(pair: tuple[Any, Any], margin: float, chance: Any) -> None:
    order = list(range(len(pair[0])))
    chance.shuffle(order)
    shuffled = [one[order] for one in pair]
    assert decide(*shuffled, margin=margin) == decide(*pair, margin=margin)


@quick
@given(
    st.permutations(range(6)),
    arrays(np.float64, (4, 6), elements=st.floats(-1, 1), unique=True),
    arrays(np.float64, (4, 6), elements=st.floats(-1, 1), unique=True),
    MARGINS,
)
def test_the_order_of_the_classes_changes_nothing(order: Any, reference: Any, candidate: Any, margin: float) -> None:
    shuffled = [one[:, order] for one in (reference, candidate)]
    for compared in (choices, lambda *pair: ranks(*pair)[1], lambda *pair: ranks(*pair)[2]):
        assert told(compared(*shuffled), margin) == told(compared(reference, candidate), margin)


@quick
@given(PAIRS)
def test_what_is_the_same_always_agrees(pair: tuple[Any, Any]) -> None:
    reference = pair[0]
    top, sets, orders = ranks(reference, reference)
    assert top == min(5, reference.shape[1] // 2)
    for leads in (
        choices(reference, reference),
        sets,
        orders,
        labels(reference, reference),
        signs(reference, reference, 0),
    ):
        assert (leads < 0).all()


@quick
@given(PAIRS, MARGINS)
def test_the_best_few_are_judged_by_what_the_reference_gives_them(pair: tuple[Any, Any], margin: float) -> None:
    """Moving the scores by less than half a margin never makes a set or an order more than a tie."""
    reference, noise = pair
    near = reference + noise / 4 * 0.49 * margin
    _, sets, orders = ranks(reference, near)
    assert told(sets, margin)["flips"] == 0
    assert told(orders, margin)["flips"] == 0
    assert decide(reference, near, margin=margin)["flips"] == 0


@quick
@given(PAIRS, MARGINS)
def test_signs_flip_only_where_the_reference_was_sure(pair: tuple[Any, Any], margin: float) -> None:
    reference, candidate = pair
    found = told(signs(reference, candidate, 0.0), margin)
    differ = (reference > 0) != (candidate > 0)
    assert found["agreed"] == (~differ).sum()
    assert found["flips"] == (differ & (np.abs(reference) > margin)).sum()


def test_labels_that_differ_are_flips_however_wide_the_margin() -> None:
    assert told(labels(np.array(["a", "b"]), np.array(["a", "c"])), 1e300)["flips"] == 1


@pytest.mark.parametrize(
    ("said", "task"),
    [
        ("detect", "detection"),
        ("Object Detection", "detection"),
        ("image-classification", "classification"),
        ("feature_extraction", "values"),
        ("token-classification", "tokens"),
        ("segment", "detection"),
        ("semantic-segmentation", "segmentation"),
        ("poetry", None),
        (["detect"], None),
        (None, None),
    ],
)
def test_tasks_go_by_the_names_that_people_and_frameworks_give_them(said: object, task: str | None) -> None:
    assert task_of(said) == task
