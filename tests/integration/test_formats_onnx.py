"""ONNX files and TensorRT engines: what they say of themselves, and real topologies on their way to the canonical form."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from pipeline import onnx_facts
from pipeline.formats import find, glimpse_of, identify
from pipeline.signature import Tensor
from pipeline.stages import convert, validate
from tests.integration.test_formats import Begin, begin, refusal
from tests.zoo import SAMPLES
from tests.zoo import onnx as zoo

__all__ = ["begin"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if SAMPLES[f"onnx-{name.replace('_', '-')}"].slow else ())
        for name in zoo.NAMES
    ],
)
def test_old_topologies_are_raised_to_a_new_operator_set_and_answer_as_before(
    name: str, begin: Begin, tmp_path: Path
) -> None:
    intake = begin(SAMPLES[f"onnx-{name.replace('_', '-')}"].make(tmp_path))
    found = intake.run(validate).facts
    assert found["opset"] == 9
    assert found["producer"] == "onnx-caffe2"
    if name in zoo.GIGAFLOPS:
        assert found["flops"] / 1e9 == pytest.approx(zoo.GIGAFLOPS[name], rel=0.01)
    converted = intake.run(convert).facts
    assert converted["opset"] >= 18
    assert converted["exporter"] == "opset18"
    session = onnxruntime.InferenceSession(intake.files()["onnx-fp32"].key)
    [given] = session.get_inputs()
    [answer] = session.run(None, {given.name: np.ones(given.shape, np.float32)})
    np.testing.assert_allclose(answer, zoo.expected(name), rtol=1e-3, atol=1e-5)


def test_a_file_says_its_classes_its_task_its_free_axes_and_its_work(begin: Begin, tmp_path: Path) -> None:
    found = begin(zoo.write_digits(tmp_path)).run(validate).facts
    assert found["classes"] == [f"digit {digit}" for digit in range(10)]
    assert found["notes"] == {"ir_version": "8", "free axes": "image: 0 (batch)", "task": "classify"}
    assert found["flops"] == 2 * (64 * 48 + 48 * 10)
    assert found["parameters"] == 64 * 48 + 48 + 48 * 10 + 10


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{0: 'cat', 1: 'dog'}", ["cat", "dog"]),
        ('{"1": "dog", "0": "cat"}', ["cat", "dog"]),
        ('["cat", "dog"]', ["cat", "dog"]),
        ("{0: 'cat', 2: 'dog'}", []),
        ("cat, dog", []),
        ("__import__('os').getcwd()", []),
        ("[" * 5000, []),
        ("7", []),
    ],
)
def test_class_names_are_read_as_data_in_either_notation(text: str, names: list[str]) -> None:
    proto = zoo.digits_model()
    proto.metadata_props.add(key="names", value=text)
    assert onnx_facts.class_names(proto) == names


def test_labels_of_a_classifier_are_its_class_names() -> None:
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml", classlabels_strings=["no", "yes"]
    )
    proto = helper.make_model(helper.make_graph([node], "g", [], []))
    assert onnx_facts.class_names(proto) == ["no", "yes"]


def test_work_that_cannot_be_told_is_not_guessed() -> None:
    def value(name: str, *shape: object) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    inputs = [Tensor(name=name, dtype="float32", shape=[None, None], example=[3, 4]) for name in "ab"]
    node = helper.make_node("Gemm", ["a", "b"], ["y"], transB=1)
    graph = helper.make_graph([node], "g", [value("a", "n", "m"), value("b", "n", "m")], [value("y", "n", "n")])
    assert onnx_facts.flops(helper.make_model(graph), inputs) is not None
    unknown = helper.make_node("MatMul", ["somewhere", "b"], ["y"])
    graph = helper.make_graph([unknown], "g", [value("b", "n", "m")], [value("y", "n", "m")])
    assert onnx_facts.flops(helper.make_model(graph), inputs) is None


def engine(description: dict[str, object] | None = None) -> bytes:
    """The header of an engine of TensorRT 10.3.0.26, with or without what ultralytics writes before it."""
    head = b"ftrt" + bytes(4) + struct.pack("<I", 239) + bytes(12) + bytes((10, 3, 0, 26)) + bytes(4000)
    if description is None:
        return head
    text = json.dumps(description).encode()
    return struct.pack("<I", len(text)) + text + head


def test_an_engine_is_described_from_its_header_and_asked_for_its_onnx(begin: Begin, tmp_path: Path) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(engine())
    intake = begin(path)
    found = intake.run(validate).facts
    assert found["format"] == "tensorrt_engine"
    assert found["servable"] is False
    assert found["notes"] == {"tensorrt": "10.3.0.26", "serialisation": "239"}
    assert "upload the .onnx file" in found["warnings"][0]


def test_an_engine_of_ultralytics_tells_its_classes_and_its_precision(begin: Begin, tmp_path: Path) -> None:
    path = tmp_path / "yolo.engine"
    path.write_bytes(
        engine({"task": "detect", "version": "8.4.190", "names": {"0": "cat", "1": "dog"}, "args": {"half": True}})
    )
    found = begin(path).run(validate).facts
    assert found["classes"] == ["cat", "dog"]
    assert found["notes"]["precision"] == "fp16"
    assert found["notes"]["task"] == "detect"
    assert found["producer"] == "TensorRT 10.3.0.26 by ultralytics 8.4.190"


def test_an_engine_that_breaks_off_is_refused(begin: Begin, tmp_path: Path) -> None:
    path = tmp_path / "short.trt"
    path.write_bytes(engine()[:20])
    assert identify(path.name, glimpse_of(path)) == find("tensorrt_engine")
    assert refusal(begin(path), validate).code == "not_loadable"
