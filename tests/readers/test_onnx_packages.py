"""ONNX models whose data stand in files beside them, and functions of a model's own."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.readers import examine


@pytest.fixture
def judge(tmp_path: Path) -> Callable[[dict[str, bytes]], dict[str, Any]]:
    def judge(content: dict[str, bytes]) -> dict[str, Any]:
        path = tmp_path / "upload"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        answer = examine(str(path), "package.zip")
        json.dumps(answer, allow_nan=False)
        return answer

    return judge


def rules(answer: dict[str, Any]) -> set[str]:
    return {finding["rule"] for finding in answer["findings"]}


def model(*functions: Any, operator: str = "Add", domain: str = "") -> Any:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    w = helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    v = helper.make_tensor("v", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    nodes = [helper.make_node(operator, ["x", "w"], ["z"], domain=domain), helper.make_node("Add", ["z", "v"], ["y"])]
    graph = helper.make_graph(nodes, "g", [x], [y], [w, v])
    return helper.make_model(graph, functions=list(functions), opset_imports=[helper.make_opsetid("", 20)])


def external(**changes: str) -> bytes:
    """A model with both tensors in `weights.bin`; `changes` go to the second one's entries."""
    made = model()
    for number, tensor in enumerate(made.graph.initializer):
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": "weights.bin", "offset": str(16 * number), "length": "16", **(changes if number else {})}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
    return bytes(made.SerializeToString())


def test_what_onnx_itself_writes_beside_a_model_is_clean_in_a_package(judge: Any, tmp_path: Path) -> None:
    for together in (True, False):
        folder = tmp_path / str(together)
        folder.mkdir()
        settings = {"all_tensors_to_one_file": together, "size_threshold": 0, "convert_attribute": False}
        made = model()
        for tensor in made.graph.initializer:
            tensor.raw_data = b"\1" * 16
            tensor.ClearField("float_data")
        onnx.save(made, folder / "m.onnx", save_as_external_data=True, **settings)
        files = {f"deep/{path.name}": path.read_bytes() for path in folder.iterdir()}
        answer = judge({**files, "README.md": b"# hello\n"})
        assert (len(files), answer["verdict"], answer["findings"]) == (2 if together else 3, "clean", [])
        assert answer["bytes"]["tensors"] == 32


HOSTILE = {
    "no such file": (external(location="other.bin"), bytes(32), "onnx.external_data"),
    "another folder": (external(location="../weights.bin"), bytes(32), "onnx.external_path"),
    "an absolute path": (external(location="/etc/passwd"), bytes(32), "onnx.external_path"),
    "an address": (external(location="http://example.org/w"), bytes(32), "onnx.external_path"),
    "the model itself": (external(location="m.onnx"), bytes(32), "onnx.external_data"),
    "beyond the end": (external(), bytes(31), "onnx.external_data"),
    "far beyond the end": (external(offset=str(1 << 62)), bytes(32), "onnx.external_hole"),
    "bytes nobody names": (external(), bytes(32) + b"more", "onnx.external_hole"),
    "bytes between": (external(offset="20"), bytes(16) + b"evil" + bytes(16), "onnx.external_hole"),
    "an overlap": (external(offset="8"), bytes(24), "onnx.external_overlap"),
    "shorter than its shape": (external(length="12"), bytes(32), "onnx.tensor_size"),
    "a negative offset": (external(offset="-16"), bytes(32), "onnx.external_data"),
    "an unknown key": (external(basepath="/"), bytes(32), "onnx.external_data"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_data_beside_a_model_must_be_exactly_its_tensors(judge: Any, name: str) -> None:
    content, data, rule = HOSTILE[name]
    assert judge({"m.onnx": external(), "weights.bin": bytes(32)})["verdict"] == "clean"
    answer = judge({"m.onnx": content, "weights.bin": data})
    assert rule in rules(answer), answer["findings"]
    assert answer["verdict"] in ("unknown", "malicious")


def test_a_file_that_no_tensor_names_is_judged_by_what_it_is(judge: Any) -> None:
    pickled = b"cos\nsystem\n(S'true'\ntR."
    assert judge({"m.onnx": external(), "weights.bin": bytes(32), "x.bin": pickled})["verdict"] == "malicious"
    assert judge({"m.onnx": external(), "weights.bin": bytes(32), "x.bin": b"\1\2\3"})["verdict"] == "unknown"


def function(name: str, *called: str, domain: str = "mine") -> Any:
    nodes = [helper.make_node(other, ["a", "b"], [f"c{n}"], domain=domain) for n, other in enumerate(called)]
    nodes.append(helper.make_node("Add", ["a", "b"], ["c"]))
    return helper.make_function(domain, name, ["a", "b"], ["c"], nodes, [helper.make_opsetid("", 20)])


def lone(made: Any, tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    return examine(str(path), "m.onnx")


def test_functions_are_named_and_bounded(tmp_path: Path) -> None:
    answer = lone(model(function("F"), operator="F", domain="mine"), tmp_path)
    assert (answer["verdict"], rules(answer)) == ("clean", {"onnx.function"})
    assert "onnx.custom_operator" in rules(lone(model(function("F"), operator="G", domain="mine"), tmp_path))
    assert "onnx.custom_operator" in rules(lone(model(function("F", "G"), operator="F", domain="mine"), tmp_path))
    assert "onnx.function_cycle" in rules(lone(model(function("F", "G"), function("G", "F")), tmp_path))
    assert "onnx.function_shadows" in rules(lone(model(function("Add", domain="")), tmp_path))
    laughs = [function(f"F{n}", *[f"F{n - 1}"] * 10) if n else function("F0") for n in range(10)]
    assert "onnx.function_bomb" in rules(lone(model(*laughs, operator="F9", domain="mine"), tmp_path))
