"""What counts as the same answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import Rejected
from pipeline.signature import Inspection, Tensor, declared_shape, example_shape, matched
from pipeline.trial import draw, read, refuse_nan, write
from pipeline.verification import BUDGETS, Tally, compare, decide, pose

IMAGE = Tensor(name="image", dtype="float32", shape=[None, 1, 8, 8], example=[1, 1, 8, 8])
RNG = np.random.default_rng(3)


def judged(reference: np.ndarray, candidate: np.ndarray, *, precision: str = "fp32", kind: str = "normal") -> dict:
    tally = Tally(budget=BUDGETS[precision])
    tally.add(kind, {"scores": reference}, {"scores": candidate})
    return tally.verdict()


def test_rounding_errors_are_within_the_budget() -> None:
    scores = RNG.standard_normal((64, 10)).astype(np.float32)
    found = judged(scores, scores * np.float32(1 + 1e-6))
    assert found["verified"], found["reason"]
    assert found["outputs"][0]["decisions"] == {"compared": 64, "agreed": 64, "ties": 0, "flips": 0}
    assert 0 < found["outputs"][0]["rms_rel"] < 1e-5


def test_errors_are_measured_against_the_size_of_the_output_and_not_absolutely() -> None:
    tiny = RNG.standard_normal((64, 10)) * 1e-11
    found = judged(tiny, tiny + RNG.standard_normal((64, 10)) * 1e-12)
    assert not found["verified"]
    assert found["outputs"][0]["rms_rel"] == pytest.approx(0.1, rel=0.2)


def test_one_flipped_decision_is_caught_where_every_number_is_close() -> None:
    scores = np.tile(np.array([1.0, 0.9995, 0.0]), (100, 1))
    flipped = scores.copy()
    flipped[7, :2] = [0.99975, 0.99976]
    found = judged(scores, flipped)
    output = found["outputs"][0]
    assert output["rms_rel"] < BUDGETS["fp32"].rms_rel
    assert output["max_rel"] < BUDGETS["fp32"].max_rel
    assert output["decisions"]["flips"] == 1
    assert not found["verified"]
    assert "1 of 100 decisions" in found["reason"]


def test_a_tie_is_told_apart_from_a_flip_by_how_sure_the_source_was() -> None:
    reference = np.array([[0.5, 0.5 - 1e-9], [0.9, 0.1]])
    candidate = np.array([[0.5 - 1e-9, 0.5], [0.1, 0.9]])
    assert decide(reference, candidate, margin=1e-6) == {"compared": 2, "agreed": 0, "ties": 1, "flips": 1}


def test_labels_must_be_exactly_the_same() -> None:
    labels = np.arange(50)
    other = labels.copy()
    other[3] = 99
    assert judged(labels, labels.copy())["verified"]
    assert judged(labels, other)["outputs"][0]["decisions"]["flips"] == 1


def test_text_labels_are_compared_too() -> None:
    assert judged(np.array(["cat", "dog"]), np.array(["cat", "dog"]))["verified"]
    assert not judged(np.array(["cat", "dog"]), np.array(["cat", "cow"]))["verified"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_candidate_that_is_not_finite_never_verifies(bad: float) -> None:
    scores = RNG.standard_normal((8, 10))
    broken = scores.copy()
    broken[2, 3] = bad
    found = judged(scores, broken, precision="int8", kind="large")
    assert found["outputs"][0]["nan"]
    assert not found["verified"]


def test_infinities_that_the_source_has_too_are_forgiven_at_the_edges_only() -> None:
    scores = RNG.standard_normal((8, 10))
    scores[0, 0] = -np.inf
    assert judged(scores, scores.copy(), kind="zeros")["verified"]
    assert not judged(scores, scores.copy(), kind="normal")["verified"]


def test_another_shape_or_number_of_outputs_never_verifies() -> None:
    scores = RNG.standard_normal((8, 10))
    found = judged(scores, scores[:, :9])
    assert found["reason"] == "output scores is [8, 9] where the source gives [8, 10]"
    tally = Tally(budget=BUDGETS["int8"])
    tally.add("normal", {"a": scores}, {"a": scores, "b": scores})
    assert tally.verdict()["reason"] == "2 outputs where the source has 1"


def test_comparing_nothing_proves_nothing() -> None:
    assert not Tally(budget=BUDGETS["int8"]).verdict()["verified"]


def test_an_output_that_is_all_zero_must_stay_so() -> None:
    zeros = np.zeros((8, 10))
    assert judged(zeros, zeros.copy())["verified"]
    assert not judged(zeros, zeros + 0.01)["verified"]


def test_eight_bits_may_cost_more_than_thirty_two_and_not_everything() -> None:
    scores = RNG.standard_normal((256, 10)) * 5
    rough = scores + RNG.standard_normal((256, 10)) * 0.1
    assert not judged(scores, rough)["verified"]
    assert judged(scores, rough, precision="int8")["verified"]
    assert not judged(scores, -scores, precision="int8")["verified"]


def test_a_large_kind_of_input_does_not_hide_the_error_of_a_small_one() -> None:
    tally = Tally(budget=BUDGETS["fp32"])
    large, small = RNG.standard_normal((8, 10)) * 1e4, RNG.standard_normal((8, 10))
    tally.add("large", {"y": large}, {"y": large})
    tally.add("small", {"y": small}, {"y": small * 1.5})
    assert tally.verdict()["outputs"][0]["rms_rel"] == pytest.approx(0.5)


def test_the_same_questions_are_posed_each_time(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    first, second = (pose([IMAGE.model_dump()], str(folder)) for folder in folders)
    assert first == second
    assert {one["batch"] for one in first} == {1, 2, 8}
    assert {one["kind"] for one in first} == {"normal", "uniform", "zeros", "ones", "small", "large"}
    for case in first:
        assert (folders[0] / case["file"]).read_bytes() == (folders[1] / case["file"]).read_bytes()
    distinct = {(folders[0] / case["file"]).read_bytes() for case in first}
    assert len(distinct) == len(first)


def test_questions_about_huge_inputs_are_fewer(tmp_path: Path) -> None:
    huge = Tensor(name="image", dtype="float32", shape=[None, 3, 600, 600], example=[1, 3, 600, 600])
    cases = pose([huge.model_dump()], str(tmp_path))
    assert sum(case["batch"] for case in cases) == 2 * (1 + 2 + 8) + 4 * 2
    assert {case["batch"] for case in cases} == {1, 2, 8}


def test_a_fixed_batch_is_respected(tmp_path: Path) -> None:
    fixed = Tensor(name="x", dtype="float32", shape=[4, 3], example=[4, 3])
    for case in pose([fixed.model_dump()], str(tmp_path)):
        assert read(str(tmp_path / case["file"]))["x"].shape == (4, 3)


def test_calibration_samples_are_asked_as_well(tmp_path: Path) -> None:
    calibration = tmp_path / "samples.npz"
    np.savez(calibration, label=np.arange(20), picture=np.full((20, 1, 8, 8), 0.25))
    questions = tmp_path / "questions"
    questions.mkdir()
    cases = [one for one in pose([IMAGE.model_dump()], str(questions), str(calibration)) if one["kind"] == "sample"]
    assert len(cases) == 2
    asked = read(str(questions / cases[0]["file"]))["image"]
    assert asked.dtype == np.float32
    assert (asked == 0.25).all()


def test_calibration_that_fits_no_input_is_refused(tmp_path: Path) -> None:
    calibration = tmp_path / "samples.npz"
    np.savez(calibration, picture=np.zeros((20, 3, 8, 8)))
    with pytest.raises(Rejected, match=r"image \[\?, 1, 8, 8\]") as refusal:
        pose([IMAGE.model_dump()], str(tmp_path), str(calibration))
    assert refusal.value.code == "calibration_mismatch"


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(Rejected) as refusal:
        read(str(tmp_path / "bad.npz"))
    assert refusal.value.code == "not_arrays"


def test_folders_of_answers_are_compared_file_by_file(tmp_path: Path) -> None:
    for name in ("questions", "one", "two"):
        (tmp_path / name).mkdir()
    for case in pose([IMAGE.model_dump()], str(tmp_path / "questions")):
        asked = read(str(tmp_path / "questions" / case["file"]))["image"]
        scores = asked.reshape(len(asked), -1)[:, :10]
        write(str(tmp_path / "one" / case["file"]), {"scores": scores})
        write(str(tmp_path / "two" / case["file"]), {"renamed": scores})
    found = compare(str(tmp_path / "questions"), str(tmp_path / "one"), str(tmp_path / "two"), "fp32")
    assert found["verified"], found["reason"]
    assert found["batches"] == [1, 2, 8]
    (tmp_path / "two" / "000-normal.npz").unlink()
    with pytest.raises(Rejected):
        compare(str(tmp_path / "questions"), str(tmp_path / "one"), str(tmp_path / "two"), "fp32")


def test_masks_and_indices_are_drawn_small() -> None:
    ids = Tensor(name="input_ids", dtype="int64", shape=[None, None], example=[1, 16])
    mask = Tensor(name="attention_mask", dtype="int64", shape=[None, None], example=[1, 16])
    drawn = draw([ids, mask], batch=8, kind="normal")
    assert drawn["input_ids"].shape == (8, 16)
    assert set(np.unique(drawn["attention_mask"])) == {0, 1}
    assert drawn["input_ids"].max() > 1


def test_nan_in_an_ordinary_answer_is_refused() -> None:
    with pytest.raises(Rejected, match="2 NaN or infinite values of 4") as refusal:
        refuse_nan({"y": np.array([1.0, np.nan, np.inf, 0.0])})
    assert refusal.value.code == "nan_output"


@pytest.mark.parametrize("declared", [[1, 1, 8, 8], [-1, 1, 8, 8], [None, 1, 8, 8], [1, 8, 8]])
def test_a_declared_shape_may_fix_or_leave_out_the_batch(declared: list[int | None]) -> None:
    shape = declared_shape({"input_shape": declared}, "image", ["image"])
    assert matched(IMAGE, shape) == []


@pytest.mark.parametrize("declared", [[1, 3, 8, 8], [8, 8], [1, 1, 8, 8, 1]])
def test_a_declared_shape_that_differs_is_refused(declared: list[int | None]) -> None:
    with pytest.raises(Rejected) as refusal:
        matched(IMAGE, declared)
    assert refusal.value.code == "shape_mismatch"
    assert refusal.value.details["found"] == [None, 1, 8, 8]


def test_an_axis_declared_free_but_found_fixed_is_a_warning() -> None:
    fixed = IMAGE.model_copy(update={"shape": [1, 1, 8, 8]})
    assert matched(fixed, [None, 1, 8, 8]) == ["Input image: axis 0 was declared free but the model fixes it at 1."]


def test_free_axes_take_the_declared_sizes_and_else_small_ones() -> None:
    assert example_shape([None, 3, None, None], "float32", [1, 3, 224, 192]) == [1, 3, 224, 192]
    assert example_shape([None, 3, None, None], "float32", [3, 96, 96]) == [1, 3, 96, 96]
    assert example_shape([None, None], "int64", None) == [1, 16]


@pytest.mark.parametrize(
    "answer",
    [
        {"inputs": [{"name": "x", "dtype": "float32", "shape": [-1]}]},
        {"inputs": "x"},
        {"exporters": ["../../etc"]},
        {"surprise": 1},
        {"parameters": float("nan")},
        ["not", "an", "object"],
    ],
)
def test_answers_of_a_child_that_are_out_of_form_are_refused(answer: object) -> None:
    with pytest.raises(Rejected) as refusal:
        Inspection.of(answer)
    assert refusal.value.code == "answer_invalid"
