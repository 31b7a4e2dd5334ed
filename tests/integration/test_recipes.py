"""Real models become variants: withheld where they decide differently, repaired where a few layers are to blame."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.graphs import tail
from pipeline.recipes import find as recipe
from pipeline.recipes import module
from pipeline.sandbox import Zygote
from pipeline.stages import convert, optimize, validate
from tests.integration.test_formats import Begin, Intake, accuracy, begin, onnx_file

RNG = np.random.default_rng(8)


def spoiled(digits: Path, destination: Path) -> Path:
    """The same digits classifier, whose first channel is 20,000 times as loud as the others until it is read again."""
    model = onnx.load_model(digits / "digits.onnx")
    weights = {one.name: one for one in model.graph.initializer}
    first, second = [one for one in model.graph.node if one.op_type == "Conv"]
    for name, axis, factor in ((first.input[1], 0, 2e4), (first.input[2], 0, 2e4), (second.input[1], 1, 1 / 2e4)):
        values = numpy_helper.to_array(weights[name]).copy()
        values[(slice(None),) * axis + (0,)] *= factor
        weights[name].CopyFrom(numpy_helper.from_array(values, name))
    onnx.save_model(model, destination)
    return destination


def variants(intake: Intake) -> dict[str, Any]:
    return {one["name"]: one for one in intake.earlier["optimize"].facts["variants"]}


def calibrated(intake: Intake, samples: Path) -> Intake:
    intake.side_files = {"calibration": samples}
    return intake


def test_a_model_that_int8_spoils_is_withheld_with_its_numbers_and_then_repaired(
    digits: Path, begin: Begin, tmp_path: Path
) -> None:
    held = np.load(digits / "digits-heldout.npz")
    model = spoiled(digits, tmp_path / "spoiled.onnx")
    healthy = accuracy(model, held)
    assert healthy > 0.97
    intake = calibrated(begin(model), digits / "digits-calibration.npz")
    intake.options["variants"] = ["onnx-int8-static"]
    intake.run(validate, convert, optimize)

    found = variants(intake)
    lost, mended = found["onnx-int8-static"], found["onnx-mixed-static"]
    assert lost["withheld"] is True
    assert lost["verification"]["outputs"][0]["rms_rel"] > lost["verification"]["budget"]["rms_rel"]
    assert mended["withheld"] is False
    repair = mended["repair"]
    assert 0 < repair["kept"] < repair["of"]
    assert repair["size"] == mended["size"]
    assert 0 < repair["time_share"] < 1
    assert 0 < repair["tried"] <= 24
    assert any("in float: met" in line for line in intake.lines)

    [file] = intake.earlier["optimize"].files
    assert (file.meta["variant"], file.meta["precision"]) == ("onnx-mixed-static", "mixed")
    assert len(file.meta["options"]["keep"]) == repair["kept"]
    assert accuracy(Path(file.key), held) >= healthy - 0.01


def test_a_repaired_variant_can_be_made_again_from_what_is_recorded_of_it(
    digits: Path, begin: Begin, tmp_path: Path, zygote: Zygote
) -> None:
    intake = calibrated(begin(spoiled(digits, tmp_path / "spoiled.onnx")), digits / "digits-calibration.npz")
    intake.options["variants"] = ["onnx-int8-static"]
    intake.run(validate, convert, optimize)
    [file] = intake.earlier["optimize"].files
    canonical = intake.files()["onnx-fp32"]
    assert file.meta["parent"] == canonical.sha256
    options = dict(file.meta["options"])
    keep, digest = options.pop("keep"), options.pop("calibration")
    samples = intake.side_files["calibration"]
    assert digest == hashlib.sha256(samples.read_bytes()).hexdigest()
    again = tmp_path / "again"
    again.mkdir()
    with zygote.open(read=[Path(canonical.key), samples], scratch=again) as child:
        child.call(
            f"{module(recipe('onnx-mixed-static'))}:make",
            source=canonical.key,
            destination=str(again / "again.onnx"),
            inputs=canonical.meta["inputs"],
            calibration=str(samples),
            keep=keep,
            **options,
        )
    assert hashlib.sha256((again / "again.onnx").read_bytes()).hexdigest() == file.sha256


def test_the_same_input_and_toolchain_give_the_same_bytes_in_another_process(digits: Path, begin: Begin) -> None:
    digests = []
    for _ in range(2):
        intake = calibrated(begin(digits / "digits.onnx"), digits / "digits-calibration.npz")
        intake.run(validate, convert, optimize)
        digests.append(
            {file.name: (file.sha256, file.meta["fingerprint"]) for file in intake.earlier["optimize"].files}
        )
    assert set(digests[0]) >= {"onnx-fp16", "onnx-fp32-optimized", "onnx-int8-dynamic", "onnx-int8-static"}
    common = set(digests[0]) & set(digests[1])  # what another runtime gains is measured, and may differ
    assert {one: digests[0][one] for one in common} == {one: digests[1][one] for one in common}


def test_static_int8_needs_samples_unless_drawn_ones_are_asked_for(digits: Path, begin: Begin) -> None:
    intake = begin(digits / "digits.onnx")
    intake.options["variants"] = ["onnx-int8-static"]
    intake.run(validate, convert, optimize)
    assert variants(intake)["onnx-int8-static"]["reason"].startswith("needs_calibration")
    intake = begin(digits / "digits.onnx", config={"calibration": "seeded"})
    intake.options["variants"] = ["onnx-int8-static"]
    intake.run(validate, convert, optimize)
    [file] = intake.earlier["optimize"].files
    assert file.meta["options"]["calibration"] == "seeded"


def detector(folder: Path) -> Path:
    """As a detector ends: boxes of some hundred pixels and scores below one leave through one tensor."""
    weights = {
        "w1": RNG.standard_normal((16, 3, 3, 3)) * 0.3,
        "w2": RNG.standard_normal((16, 16, 3, 3)) * 0.1,
        "boxes_w": np.abs(RNG.standard_normal((4, 16, 1, 1))) * 0.2,
        "scores_w": RNG.standard_normal((5, 16, 1, 1)),
        "stride": np.full((1, 1, 1, 1), 160.0),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["h1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["h1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["h2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["h2"], ["r2"]),
        helper.make_node("Conv", ["r2", "boxes_w"], ["raw_boxes"]),
        helper.make_node("Conv", ["r2", "scores_w"], ["raw_scores"]),
        helper.make_node("Mul", ["raw_boxes", "stride"], ["boxes"]),
        helper.make_node("Sigmoid", ["raw_scores"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores"], ["y"], axis=1),
    ]
    return onnx_file(folder, nodes, weights, shape=("n", 3, 32, 32), out=("n", 9, 8, 8))


def test_the_head_of_a_detector_stays_in_float_so_that_boxes_do_not_drown_its_scores(
    begin: Begin, tmp_path: Path
) -> None:
    intake = begin(detector(tmp_path))
    samples = RNG.random((160, 3, 32, 32)).astype(np.float32)
    np.savez(intake.folder / "samples.npz", x=samples)
    intake = calibrated(intake, intake.folder / "samples.npz")
    intake.options["variants"] = ["onnx-int8-static"]
    intake.run(validate, convert, optimize)
    [file] = intake.earlier["optimize"].files
    assert file.meta["variant"] == "onnx-int8-static"
    one, other = (
        onnxruntime.InferenceSession(path.key).run(None, {"x": samples[:8]})[0]
        for path in (intake.files()["onnx-fp32"], file)
    )
    scores, found = one[:, 4:], other[:, 4:]
    assert np.abs(scores - found).max() < 0.1
    graph = onnx.load_model(file.key).graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    [join] = [node for node in graph.node if node.op_type == "Concat"]
    assert [made_by[name] for name in join.input] == ["Mul", "Sigmoid"]  # nothing rounds on the way out


def test_the_tail_of_a_graph_begins_after_its_last_products() -> None:
    small = numpy_helper.from_array(np.ones((1, 16, 1, 1), np.float32), "decoder")
    large = numpy_helper.from_array(np.ones((64, 3, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="before"),
        helper.make_node("Conv", ["a", "w"], ["b"], name="product"),
        helper.make_node("Softmax", ["b"], ["c"], name="softmax"),
        helper.make_node("Conv", ["c", "decoder"], ["d"], name="decode"),
        helper.make_node("Sigmoid", ["b"], ["e"], name="scores"),
        helper.make_node("Concat", ["d", "e"], ["y"], name="join", axis=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "t", [value("x", TensorProto.FLOAT, None)], [value("y", TensorProto.FLOAT, None)], [small, large]
    )
    assert tail(graph) == {"softmax", "decode", "scores", "join"}
