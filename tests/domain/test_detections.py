"""What counts as the same box."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.budgets import BUDGETS
from pipeline.detections import boxes, find, overlap, suppress
from pipeline.verdict import Verification
from pipeline.verification import Tally

RNG = np.random.default_rng(11)
CLASSES = ["car", "dog", "tree"]
OBJECTS = np.array(  # x1, y1, x2, y2, score, class
    [
        [10, 10, 60, 60, 0.9, 0],
        [100, 20, 180, 90, 0.8, 1],
        [30, 120, 90, 200, 0.6, 2],
        [200, 200, 240, 260, 0.4, 0],
    ],
    dtype=np.float64,
)


def raw(objects: Any, anchors: int = 64) -> Any:
    """(1, 4 + classes, anchors) as YOLO gives it: each object seen by two anchors, the rest sees nothing much."""
    found = np.zeros((1, 4 + len(CLASSES), anchors))
    found[0, :4] = np.array([300, 300, 20, 20])[:, None]
    found[0, 4:] = 1e-4
    for place, (x1, y1, x2, y2, score, kind) in enumerate(objects):
        for shift in (0, 1):
            column = 2 * place + shift
            found[0, :4, column] = (x1 + x2) / 2 + shift, (y1 + y2) / 2, x2 - x1, y2 - y1
            found[0, 4 + int(kind), column] = score - 0.01 * shift
    return found.astype(np.float32)


def apart(objects: Any) -> dict[str, Any]:
    """As torchvision gives them: as many as there are, best first."""
    ordered = objects[np.argsort(-objects[:, 4])]
    return {
        "boxes": ordered[:, :4].astype(np.float32),
        "labels": ordered[:, 5].astype(np.int64),
        "scores": ordered[:, 4].astype(np.float32),
    }


def final(objects: Any, rows: int = 20) -> dict[str, Any]:
    """(1, rows, 6) as end-to-end detectors give it."""
    found = np.zeros((1, rows, 6), np.float32)
    found[0, : len(objects)] = objects
    return {"output0": found}


def judged(reference: dict[str, Any], candidate: dict[str, Any], precision: str = "int8") -> dict[str, Any]:
    tally = Tally(budget=BUDGETS[precision], task="detection", classes=CLASSES)
    tally.add("sample", reference, candidate)
    found = tally.verdict()
    Verification.of(found | {"precision": precision, "batches": [1], "overridden": {}})
    return found


def moved(row: int, column: int, by: float) -> Any:
    objects = OBJECTS.copy()
    objects[row, column] += by
    return objects


FORMS = {"raw": lambda objects: {"output0": raw(objects)}, "apart": apart, "final": final}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_boxes_agree(form: str) -> None:
    reference = FORMS[form](OBJECTS)
    found = judged(reference, FORMS[form](OBJECTS), "fp32")
    assert found["verified"], found["reason"]
    output = found["outputs"][0]
    assert output["decides"] == "boxes"
    assert output["decisions"] == {"compared": 4, "agreed": 4, "ties": 0, "flips": 0}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("objects", "flips"),
    [
        (OBJECTS[:3], 1),  # one is missed
        (np.concatenate([OBJECTS, [[300, 10, 340, 50, 0.7, 1]]]), 1),  # one is made up
        (moved(1, 5, 1.0), 2),  # a dog became a tree: one is missed and one is made up
        (moved(0, 0, 40.0), 2),  # one lies elsewhere
    ],
)
def test_a_box_that_is_missed_made_up_misnamed_or_elsewhere_is_a_flip(form: str, objects: Any, flips: int) -> None:
    found = judged(FORMS[form](OBJECTS), FORMS[form](objects))
    assert found["outputs"][0]["decisions"]["flips"] == flips
    assert not found["verified"]
    assert "decisions of output" in found["reason"]


@pytest.mark.parametrize("form", FORMS)
def test_a_box_at_the_brink_of_being_shown_is_a_tie(form: str) -> None:
    seen, unseen = moved(3, 4, 0.252 - 0.4), moved(3, 4, 0.248 - 0.4)
    for pair in ((seen, unseen), (unseen, seen)):
        decisions = judged(*(FORMS[form](one) for one in pair))["outputs"][0]["decisions"]
        assert (decisions["ties"], decisions["flips"]) == (1, 0)
    assert judged(FORMS[form](seen), FORMS[form](unseen), "fp32")["outputs"][0]["decisions"]["flips"] == 1


def test_the_order_of_finished_boxes_changes_nothing() -> None:
    shuffled = {name: one[[2, 0, 3, 1]] for name, one in apart(OBJECTS).items()}
    assert judged(apart(OBJECTS), shuffled, "fp32")["verified"]


def test_finished_boxes_that_are_paired_but_imprecise_are_judged_by_their_numbers() -> None:
    found = judged(apart(OBJECTS), apart(moved(0, 0, 2.0)), "fp32")
    assert found["outputs"][0]["decisions"]["flips"] == 0
    assert "the boxes in output boxes are off by" in found["reason"]


def test_where_suppression_hung_by_a_hair_it_is_a_tie() -> None:
    pair = np.array([[0, 0, 100, 100, 0.9, 0], [0, 0, 100, 60.5, 0.8, 0]])  # they overlap by 0.605
    parted = pair.copy()
    parted[1, 3] = 59.5
    decisions = judged(final(pair), final(parted))["outputs"][0]["decisions"]
    assert decisions == {"compared": 2, "agreed": 1, "ties": 1, "flips": 0}


def test_class_channels_that_become_zero_miss_every_box_and_their_group_says_so() -> None:
    silent = raw(OBJECTS)
    silent[:, 4:] = 0
    found = judged({"output0": raw(OBJECTS)}, {"output0": silent})
    output = found["outputs"][0]
    assert output["cosine"] > 0.999
    assert output["decisions"]["flips"] == 4
    groups = {one["name"]: one["rms_rel"] for one in output["groups"]}
    assert groups["boxes"] == 0
    assert groups["scores"] == pytest.approx(1)
    assert "the scores in output output0 are off by 1 of their RMS" in found["reason"]


def test_an_image_in_which_nothing_is_seen_is_a_decision_too() -> None:
    nothing = {"output0": raw(OBJECTS[:0])}
    tally = Tally(budget=BUDGETS["int8"], task="detection", classes=CLASSES)
    tally.add("sample", {"output0": raw(OBJECTS)}, {"output0": raw(OBJECTS)})
    tally.add("sample", nothing, nothing)
    tally.add("sample", nothing, {"output0": raw(OBJECTS[:1])})
    assert tally.verdict()["outputs"][0]["decisions"] == {"compared": 6, "agreed": 5, "ties": 0, "flips": 1}


def test_a_model_that_is_never_sure_is_judged_by_its_best_guesses() -> None:
    reference = raw(OBJECTS)
    reference[0, 4:] *= 1e-4
    lost = reference.copy()
    lost[0, 4:, :2] = 1e-9
    assert judged({"output0": reference}, {"output0": reference}, "fp32")["verified"]
    assert judged({"output0": reference}, {"output0": lost})["outputs"][0]["decisions"]["flips"] == 1


def test_a_crowd_of_equal_guesses_that_vanishes_is_not_taken_for_ties() -> None:
    """What random weights do: every anchor says the same of everything, up to noise."""
    places = RNG.uniform(20, 600, (1, 2, 500))
    guesses = RNG.uniform(0.9e-5, 1e-5, (1, 3, 500))
    reference = np.concatenate([places, np.full((1, 2, 500), 40.0), guesses], axis=1)
    silent = reference.copy()
    silent[:, 4:] = 0
    noisy = reference * (1 + RNG.standard_normal(reference.shape) * 1e-7)
    count = judged({"output0": reference}, {"output0": silent})["outputs"][0]["decisions"]
    assert count["flips"] == count["compared"] > 100
    assert judged({"output0": reference}, {"output0": noisy}, "fp32")["verified"]


def test_a_detector_that_sees_nothing_at_all_may_answer_with_no_boxes() -> None:
    found = judged(apart(OBJECTS[:0]), apart(OBJECTS[:0]))
    assert found["outputs"][0]["decisions"] == {"compared": 1, "agreed": 1, "ties": 0, "flips": 0}


@pytest.mark.parametrize(
    ("shapes", "classes", "known"),
    [
        ({"output0": (1, 84, 8400)}, 80, ("output0", 1, 84, False)),
        ({"output0": (1, 84, 8400)}, 0, ("output0", 1, 84, False)),
        ({"output0": (1, 116, 8400), "output1": (1, 32, 160, 160)}, 80, ("output0", 1, 84, False)),
        ({"output": (1, 25200, 85)}, 80, ("output", 2, 85, True)),
        ({"output0": (1, 300, 6)}, 80, ("output0", 2, None, False)),
        ({"boxes": (1, 900, 4), "scores": (1, 900, 21)}, 20, ("boxes", None, None, False)),
    ],
)
def test_layouts_are_told_by_the_shapes(shapes: dict[str, Any], classes: int, known: tuple[Any, ...]) -> None:
    layout = find({name: np.empty(shape, np.float32) for name, shape in shapes.items()}, "detection", classes)
    assert layout is not None
    end = next((last for name, _, last in layout.groups if name == "scores"), None)
    assert (layout.names[0], layout.axis, end, layout.objectness) == known


@pytest.mark.parametrize(
    ("shapes", "task", "classes"),
    [
        ({"scores": (1, 10)}, "detection", 10),
        ({"output0": (1, 84, 8400)}, None, 0),
        ({"hidden": (1, 16, 384)}, None, 0),
        ({"output0": (1, 84, 8400)}, "values", 80),
        ({"coordinates": (1, 7, 4), "weights": (1, 7)}, None, 0),
    ],
)
def test_what_may_be_something_else_is_not_taken_for_boxes(
    shapes: dict[str, Any], task: str | None, classes: int
) -> None:
    assert find({name: np.empty(shape, np.float32) for name, shape in shapes.items()}, task, classes) is None


def test_boxes_by_centre_and_size_and_scores_as_logits_are_understood() -> None:
    corners = OBJECTS[None, :, :4]
    centres = np.concatenate([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], axis=-1)
    centres[..., 2:] /= 4  # small ones, so that they cannot be taken for corners
    logits = np.where(np.eye(3)[OBJECTS[:, 5].astype(int)] > 0, 3.0, -9.0)[None]
    outputs = {"boxes": centres, "scores": logits}
    layout = find(outputs, None, 3)
    assert layout is not None
    found = boxes(layout, outputs)[0]
    assert found[0, 4] == pytest.approx(1 / (1 + np.exp(-3)))
    np.testing.assert_allclose(found[:4, 2] - found[:4, 0], centres[0, :, 2])


def test_suppression_keeps_the_best_of_each_class_and_overlap_is_symmetric() -> None:
    rows = np.array([[0, 0, 10, 10, 0.9, 0], [1, 0, 10, 10, 0.8, 0], [0, 0, 10, 10, 0.7, 1], [50, 50, 60, 60, 0.6, 0]])
    assert suppress(rows)[:, 4].tolist() == [0.9, 0.7, 0.6]
    np.testing.assert_allclose(overlap(rows, rows), overlap(rows, rows).T)
    assert overlap(np.zeros((1, 6)), rows).max() == 0
