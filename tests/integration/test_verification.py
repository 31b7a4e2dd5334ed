"""What verification finds out about real models, every foreign byte in a real sandbox child."""

# ruff: noqa: F401, F811 - fixtures come by import

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.stages import convert, optimize, validate
from tests.integration.test_formats import SERVABLE, Begin, begin, onnx_file, refusal

RNG = np.random.default_rng(5)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.*LeafSpec.*:FutureWarning"),
]


class Tampering:
    """A sandbox in which every exporter gets one value of one weight wrong."""

    def __init__(self, sandbox: Any, weight: str) -> None:
        self._sandbox, self._weight = sandbox, weight

    @contextlib.contextmanager
    def open(self, **arguments: Any) -> Iterator[Any]:
        with self._sandbox.open(**arguments) as child:
            self._child = child
            yield self

    def call(self, function: str, **arguments: Any) -> Any:
        answer = self._child.call(function, **arguments)
        if function.endswith(":export"):
            path = Path(arguments["destination"])
            model = onnx.load_model(path)
            weight = next(one for one in model.graph.initializer if one.name.endswith(self._weight))
            values = numpy_helper.to_array(weight).copy()
            values.flat[3] += 0.5
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
            path.write_bytes(model.SerializeToString())
        return answer


@pytest.mark.parametrize(
    ("form", "weight"),
    [
        ("onnx", "features.2.bias"),
        pytest.param("pt2", "scores.0.weight", marks=pytest.mark.slow),
        pytest.param("torchscript", "features.2.bias", marks=pytest.mark.slow),
    ],
)
def test_a_conversion_that_gets_one_weight_wrong_is_refused_and_the_layer_named(
    form: str, weight: str, digits: Path, begin: Begin
) -> None:
    intake = begin(digits / SERVABLE[form], input_shape=[-1, 1, 8, 8])
    intake.run(validate)
    intake.sandbox = Tampering(intake.sandbox, weight)
    error = refusal(intake, convert)
    assert error.code == "not_equivalent"
    found = [one["verification"]["diverges"] for one in error.details["tried"] if one["verification"]]
    assert found
    for one in found:
        assert any(name.endswith(weight) for name in one["weights"])
        assert one["op"] in {"Conv", "Gemm"}
        assert one["error"] > 1e-4
    assert "they part at tensor" in error.message
    assert weight in error.message


def test_labels_config_and_samples_of_the_user_are_heeded_and_told(digits: Path, begin: Begin) -> None:
    config = {"budgets": {"int8": {"flips": 0.05}}, "max_batch": 16, "task": "image-classification"}
    intake = begin(digits / "digits.onnx", config=config)
    intake.side_files = {"calibration": digits / "digits-heldout.npz"}
    found = intake.run(validate, convert).facts["verification"]
    assert max(found["batches"]) == 16
    assert found["task"] == "classification"
    assert found["accuracy"]["samples"] == len(np.load(digits / "digits-heldout.npz")["labels"])
    assert found["accuracy"]["reference"] == found["accuracy"]["candidate"] > 0.97
    assert found["overridden"] == {}
    assert found["outputs"][0]["decides"] == "class"
    assert found["outputs"][0]["ranks"]["flips"] == 0

    variants = {one["name"]: one["verification"] for one in intake.run(optimize).facts["variants"]}
    rough = variants["onnx-int8-dynamic"]
    assert rough["overridden"] == {"flips": {"default": 0.03, "used": 0.05}}
    assert abs(rough["accuracy"]["candidate"] - rough["accuracy"]["reference"]) < 0.02
    assert rough["batches"] == found["batches"]

    files = intake.files()
    first = np.load(digits / "digits-heldout.npz")["images"][:1]
    np.testing.assert_array_equal(np.load(files["golden-sample-inputs"].key)["image"], first)
    assert files["golden-sample-outputs"].meta == {"of": "onnx-fp32", "holds": "outputs"}
    assert np.load(files["golden-inputs"].key)["image"].shape[0] == 2


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ({"budgets": {"int8": {"flips": 0.9}}}, "invalid_budget", "config.budgets.int8.flips may be at most 0.1"),
        ({"budgets": {"int8": {"flops": 1}}}, "invalid_budget", "config.budgets.int8.flops is unknown"),
        ({"max_batch": "many"}, "invalid_max_batch", "config.max_batch must be a whole number"),
    ],
)
def test_a_config_that_cannot_be_followed_is_refused_before_anything_is_opened(
    config: Any, code: str, said: str, digits: Path, begin: Begin
) -> None:
    error = refusal(begin(digits / "digits.onnx", config=config), validate)
    assert error.code == code
    assert said in error.message


@pytest.mark.parametrize("rows", [3, 5000])
def test_indices_are_asked_all_over_the_table_and_never_beyond_it(rows: int, begin: Begin, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["ids"], ["places"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "places"], ["found"]),
        helper.make_node("ReduceMean", ["found"], ["y"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "words",
        [helper.make_tensor_value_info("ids", TensorProto.INT32, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(RNG.standard_normal((rows, 8)).astype(np.float32), "table")],
    )
    path = tmp_path / "words.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    intake = begin(path)
    assert intake.run(validate).facts["inputs"][0]["below"] == rows
    assert intake.run(convert).facts["verification"]["verified"] is True
    assert intake.files()["onnx-fp32"].meta["inputs"][0]["below"] == rows
    asked = np.load(intake.files()["golden-inputs"].key)["ids"]
    assert asked.max() < rows
    assert rows < 100 or asked.max() > 1000


def test_a_model_whose_memory_grows_with_the_batch_is_asked_at_as_large_a_batch_as_it_has_memory_for(
    begin: Begin, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["n"], start=0, end=1),
        helper.make_node("Concat", ["n", "n", "much"], ["size"], axis=0),
        helper.make_node("ConstantOfShape", ["size"], ["room"]),
        helper.make_node("ReduceMax", ["room"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "greedy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(np.array([35 << 20], np.int64), "much")],
    )
    path = tmp_path / "greedy.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    intake = begin(path)
    found = intake.run(validate, convert).facts["verification"]
    assert found["verified"] is True
    assert found["batches"] == [1, 2]
    assert any("asking at smaller batches than 32" in line for line in intake.lines)
