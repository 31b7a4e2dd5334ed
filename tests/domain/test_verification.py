"""What counts as the same answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.budgets import BUDGETS
from pipeline.decisions import decide
from pipeline.errors import Rejected
from pipeline.questions import labels_of, pose
from pipeline.signature import Inspection, Tensor, declared_shape, example_shape, matched, outputs_matched
from pipeline.trial import draw, read, refuse_nan, write
from pipeline.verdict import Verification
from pipeline.verification import Tally, compare

IMAGE = Tensor(name="image", dtype="float32", shape=[None, 1, 8, 8], example=[1, 1, 8, 8])
RNG = np.random.default_rng(3)


def asked(folder: Path, case: dict) -> bytes:
    return (folder / "asked" / case["file"]).read_bytes()


def judged(reference: np.ndarray, candidate: np.ndarray, *, precision: str = "fp32", kind: str = "normal") -> dict:
    tally = Tally(budget=BUDGETS[precision])
    tally.add(kind, {"scores": reference}, {"scores": candidate}, case="the case")
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
    assert found["worst"] == "the case"
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
    assert {one["batch"] for one in first} == {1, 2, 32}
    assert {one["kind"] for one in first} == {"normal", "uniform", "zeros", "ones", "small", "large"}
    for case in first:
        assert asked(folders[0], case) == asked(folders[1], case)
    distinct = {asked(folders[0], case) for case in first}
    assert len(distinct) == len(first)


def test_costly_models_are_asked_less_often(tmp_path: Path) -> None:
    asked = []
    for operations in (0, 1 << 30, 1 << 32, 1 << 40):
        folder = tmp_path / str(operations)
        folder.mkdir()
        cases = pose([IMAGE.model_dump()], str(folder), operations=operations)
        asked.append((max(case["batch"] for case in cases), sum(case["batch"] for case in cases)))
    assert asked == [(32, 526), (32, 142), (16, 46), (2, 14)]


def test_the_largest_batch_is_the_one_that_the_model_is_meant_for(tmp_path: Path) -> None:
    for largest in (1, 2, 5, 100):
        folder = tmp_path / str(largest)
        folder.mkdir()
        cases = pose([IMAGE.model_dump()], str(folder), largest=largest)
        assert {case["batch"] for case in cases} == {1, 2, largest} - ({2} if largest == 1 else set())


def test_a_fixed_batch_is_respected(tmp_path: Path) -> None:
    fixed = Tensor(name="x", dtype="float32", shape=[4, 3], example=[4, 3])
    for case in pose([fixed.model_dump()], str(tmp_path)):
        assert read(str(tmp_path / "asked" / case["file"]))["x"].shape == (4, 3)


def test_the_users_samples_are_asked_one_alone_two_and_many_together_with_their_labels_beside(tmp_path: Path) -> None:
    calibration = tmp_path / "samples.npz"
    np.savez(calibration, labels=np.arange(20), picture=np.full((20, 1, 8, 8), 0.25))
    cases = pose([IMAGE.model_dump()], str(tmp_path), str(calibration), largest=8)
    samples = [one for one in cases if one["kind"] == "sample"]
    assert [one["batch"] for one in samples] == [1, 2, 8, 8, 1]
    question = read(str(tmp_path / "asked" / samples[2]["file"]))
    assert set(question) == {"image"}  # the form under test is never shown the labels
    assert question["image"].dtype == np.float32
    assert (question["image"] == 0.25).all()
    known = [labels_of(str(tmp_path / "labels"), one["file"]) for one in samples]
    assert np.concatenate(known).tolist() == list(range(20))
    assert labels_of(str(tmp_path / "labels"), cases[0]["file"]) is None


@pytest.mark.parametrize("labels", [np.arange(19), np.linspace(0, 1, 20)])
def test_labels_that_are_no_classes_of_the_samples_are_refused(labels: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", labels=labels, image=np.zeros((20, 1, 8, 8)))
    with pytest.raises(Rejected, match="20 class names or numbers") as refusal:
        pose([IMAGE.model_dump()], str(tmp_path), str(tmp_path / "samples.npz"))
    assert refusal.value.code == "calibration_mismatch"


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
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    np.savez(tmp_path / "samples.npz", labels=np.zeros(9, np.int64), image=RNG.random((9, 1, 8, 8)))
    for case in pose([IMAGE.model_dump()], str(tmp_path), str(tmp_path / "samples.npz"), largest=8):
        question = read(str(tmp_path / "asked" / case["file"]))["image"]
        scores = question.reshape(len(question), -1)[:, :10]
        write(str(tmp_path / "one" / case["file"]), {"scores": scores})
        write(str(tmp_path / "two" / case["file"]), {"renamed": scores})

    def compared() -> Verification:
        return Verification.of(
            compare(
                questions=str(tmp_path / "asked"),
                labels=str(tmp_path / "labels"),
                reference=str(tmp_path / "one"),
                candidate=str(tmp_path / "two"),
                precision="fp32",
                declared={"config": {"budgets": {"fp32": {"flips": 0.01}}}},
                task=None,
                classes=[],
            )
        )

    found = compared()
    assert found.verified, found.reason
    assert found.batches == [1, 2, 6, 8]
    assert found.worst is None
    assert found.budget["flips"] == 0.01
    assert found.overridden["flips"].model_dump() == {"default": 0.0, "used": 0.01}
    assert found.accuracy is not None
    assert found.accuracy.samples == 9
    assert found.accuracy.reference == found.accuracy.candidate < 1
    broken = tmp_path / "two" / "001-normal.npz"
    write(str(broken), {"scores": read(str(broken))["renamed"] * 2})
    assert compared().worst == "001-normal.npz"
    broken.unlink()
    with pytest.raises(Rejected):
        compared()


def test_masks_and_indices_are_drawn_small() -> None:
    ids = Tensor(name="input_ids", dtype="int64", shape=[None, None], example=[1, 16])
    mask = Tensor(name="attention_mask", dtype="int64", shape=[None, None], example=[1, 16])
    drawn = draw([ids, mask], batch=8, kind="normal")
    assert drawn["input_ids"].shape == (8, 16)
    assert set(np.unique(drawn["attention_mask"])) == {0, 1}
    assert drawn["input_ids"].max() > 1


def test_indices_cover_the_whole_table_and_never_leave_it() -> None:
    ids = Tensor(name="input_ids", dtype="int64", shape=[None, None], example=[1, 16], below=30_000)
    drawn = {kind: draw([ids], batch=32, kind=kind)["input_ids"] for kind in ("normal", "large", "ones")}
    assert 20_000 < drawn["normal"].max() < 30_000
    assert (drawn["large"] == 29_999).all()
    single = ids.model_copy(update={"below": 1})
    assert all((draw([single], batch=2, kind=kind)["input_ids"] == 0).all() for kind in ("ones", "large", "uniform"))


def test_bytes_are_drawn_from_all_there_are() -> None:
    image = Tensor(name="image", dtype="uint8", shape=[None, 16, 16, 3], example=[1, 16, 16, 3])
    drawn = draw([image], batch=4, kind="uniform")["image"]
    assert drawn.dtype == np.uint8
    assert drawn.max() > 250
    quantised = Tensor(name="x", dtype="int8", shape=[None, 64], example=[1, 64])
    assert draw([quantised], batch=8, kind="normal")["x"].min() < -120


def told(outputs: dict[str, tuple[np.ndarray, np.ndarray]], *, precision: str = "int8", **known: object) -> dict:
    tally = Tally(budget=BUDGETS[precision], **known)
    tally.add("normal", *({name: pair[side] for name, pair in outputs.items()} for side in (0, 1)))
    found = tally.verdict()
    Verification.of(found | {"precision": precision, "batches": [1], "overridden": {}})
    return found


def test_channels_that_go_silent_beside_loud_ones_never_verify() -> None:
    """What quantising YOLO whole does: all class channels become zero while the cosine is 0.99998."""
    boxes, scores = RNG.uniform(0, 640, (8, 4, 500)), RNG.uniform(0, 0.9, (8, 80, 500)) ** 4
    reference = np.concatenate([boxes, scores], axis=1)
    silent = np.concatenate([boxes, np.zeros_like(scores)], axis=1)
    found = told({"output0": (reference, silent)})
    output = found["outputs"][0]
    assert output["cosine"] > 0.999_99
    assert output["rms_rel"] < 0.01
    assert output["channels"]["axis"] == 1
    assert output["channels"]["error"] == pytest.approx(1)
    assert not found["verified"]
    assert "of the RMS of its kind" in found["reason"]
    assert told({"output0": (reference, reference * 1.01)})["verified"]


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-8])
def test_scores_may_be_as_small_as_they_like_beside_pixels_and_still_must_not_vanish(size: float) -> None:
    boxes, scores = RNG.uniform(0, 640, (2, 4, 500)), RNG.uniform(0.5, 1, (2, 6, 500)) * size
    both = [np.concatenate([boxes, one], axis=1).astype(np.float32) for one in (scores, np.zeros_like(scores))]
    assert not told({"output0": (both[0], both[1])})["verified"]
    assert told({"output0": (both[0], both[0] * np.float32(1.001))})["verified"]


def test_one_class_that_goes_silent_among_its_like_is_seen_and_one_that_is_merely_small_is_not() -> None:
    logits = RNG.standard_normal((200, 100))
    logits[:, 7] *= 0.05
    noisy = logits + RNG.standard_normal(logits.shape) * 0.06  # what eight bits may cost; it drowns class 7
    assert told({"logits": (logits, noisy)}, task="values")["verified"]
    silent = logits.copy()
    silent[:, 7] = 0
    found = told({"logits": (logits, silent)}, task="values")
    assert (found["outputs"][0]["channels"]["worst"], found["verified"]) == (7, False)


def test_rounding_noise_in_a_channel_that_should_be_zero_is_not_held_against_anyone() -> None:
    values = RNG.standard_normal((8, 3, 50)).astype(np.float32)
    noisy = [values.copy(), values.copy()]
    for one in noisy:
        one[:, 1] = RNG.standard_normal((8, 50)) * 1e-8
    assert told({"y": (noisy[0], noisy[1])}, precision="fp32")["verified"]


def test_small_probabilities_are_no_silent_channels() -> None:
    logits = RNG.standard_normal((64, 10)) * 3
    logits[:, 9] -= 20
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rounded = np.round(scores * 255) / 255
    assert (rounded[:, 9] == 0).all()
    found = told({"probabilities": (scores, rounded)})
    assert found["verified"], found["reason"]
    assert found["outputs"][0]["channels"] is None


def test_the_best_five_are_looked_at_as_well() -> None:
    scores = RNG.standard_normal((200, 20))
    shuffled = scores.copy()
    order = np.argsort(-scores, axis=1)
    for row in range(60):  # the fifth and the tenth change places
        fifth, tenth = order[row, 4], order[row, 9]
        shuffled[row, [fifth, tenth]] = scores[row, [tenth, fifth]]
    found = told({"scores": (scores, shuffled)})
    ranks = found["outputs"][0]["ranks"]
    assert found["outputs"][0]["decisions"]["flips"] == 0
    assert (ranks["top"], ranks["compared"], ranks["flips"]) == (5, 200, 60)
    assert "the best 5 classes" in found["reason"]


def test_a_single_logit_decides_by_its_sign_and_a_probability_at_one_half() -> None:
    logits = RNG.standard_normal((100, 1))
    moved = logits.copy()
    moved[3] = -moved[3]
    output = told({"logit": (logits, moved)})["outputs"][0]
    assert (output["decides"], output["decisions"]["flips"]) == ("sign", 1)
    chances = RNG.uniform(0.2, 0.8, 100)
    output = told({"chance": (chances, chances + 0.1)})["outputs"][0]
    assert output["decisions"]["flips"] == ((chances < 0.5) & (chances + 0.1 > 0.5) & (0.5 - chances > 0.0055)).sum()


def test_what_decides_nothing_is_judged_by_its_numbers_alone() -> None:
    vectors = RNG.standard_normal((64, 16))
    near = vectors + RNG.standard_normal((64, 16)) * 0.05
    assert told({"y": (vectors, near)})["outputs"][0]["decisions"]["compared"] == 64
    found = told({"y": (vectors, near)}, task="values")
    assert found["outputs"][0]["decisions"]["compared"] == 0
    assert found["outputs"][0]["decides"] is None


def test_each_pixel_and_each_token_decides_where_the_classes_are_known() -> None:
    maps = RNG.standard_normal((2, 5, 4, 4))
    names = list("abcde")
    assert told({"maps": (maps, maps)})["outputs"][0]["decisions"]["compared"] == 0
    assert told({"maps": (maps, maps)}, classes=names)["outputs"][0]["decisions"]["compared"] == 32
    assert told({"maps": (maps, maps)}, task="segmentation")["outputs"][0]["decisions"]["compared"] == 32
    tokens = np.moveaxis(maps.reshape(2, 5, 16), 1, -1)
    found = told({"logits": (tokens, tokens)}, task="tokens")["outputs"][0]
    assert (found["decisions"]["compared"], found["decides"]) == (32, "class")


@pytest.mark.parametrize("named", [True, False])
def test_accuracy_is_told_before_and_after(named: bool) -> None:
    names = ["ant", "bee", "cat"]
    truth = RNG.integers(0, 3, 400)
    scores = np.eye(3)[truth] + RNG.standard_normal((400, 3)) * 0.3
    worse = scores + RNG.standard_normal((400, 3)) * 0.5
    tally = Tally(budget=BUDGETS["int8"], classes=names)
    known = np.array(names)[truth] if named else truth
    tally.add("sample", {"scores": scores}, {"scores": worse}, known=known)
    found = tally.verdict()["accuracy"]
    assert found["samples"] == 400
    assert found["reference"] == (scores.argmax(axis=1) == truth).mean()
    assert found["candidate"] == (worse.argmax(axis=1) == truth).mean()
    assert "of the labels are met" in tally.verdict()["reason"]


def test_accuracy_goes_by_the_label_where_the_model_gives_one() -> None:
    truth = np.array(["spam", "ham"] * 10)
    tally = Tally(budget=BUDGETS["fp32"])
    outputs = {"label": truth, "probabilities": np.full((20, 2), 0.5)}
    tally.add("sample", outputs, outputs, known=truth)
    assert tally.verdict()["accuracy"] == {"samples": 20, "reference": 1.0, "candidate": 1.0}


def test_a_forest_whose_labels_flip_at_ties_is_caught_although_all_its_probabilities_are_close() -> None:
    """Measured on a real forest: within 4e-7, and one label in a hundred is another."""
    votes = RNG.integers(0, 11, (1000, 1)) / 10
    chances = np.concatenate([votes, 1 - votes], axis=1).astype(np.float32)
    near = (chances + RNG.uniform(-4e-7, 4e-7, chances.shape)).astype(np.float32)
    found = told(
        {"label": (chances.argmax(axis=1), near.argmax(axis=1)), "probabilities": (chances, near)}, precision="fp32"
    )
    label, probabilities = found["outputs"]
    assert label["decisions"]["flips"] > 10
    assert probabilities["decisions"]["ties"] == label["decisions"]["flips"]
    assert probabilities["decisions"]["flips"] == 0
    assert not found["verified"]
    assert "decisions of output label differ" in found["reason"]


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


LABELS = Tensor(name="label", dtype="int64", shape=[None])
SCORES = Tensor(name="scores", dtype="float32", shape=[None, 10])


@pytest.mark.parametrize("said", [None, [1, 10], [10], [-1, 10], {"scores": [1, 10]}, {"label": [4]}])
def test_a_declared_output_may_be_any_one_of_several(said: object) -> None:
    assert outputs_matched([LABELS, SCORES], {"output_shape": said}) == []


@pytest.mark.parametrize("said", [[1, 1000], {"scores": [1, 1000]}, {"logits": [1, 10]}])
def test_a_declared_output_that_is_none_of_the_model_s_is_refused(said: object) -> None:
    with pytest.raises(Rejected) as refusal:
        outputs_matched([LABELS, SCORES], {"output_shape": said})
    assert refusal.value.code == "shape_mismatch"


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
