"""Real models through the stages, every foreign byte in a real sandbox child."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from examples.digits import Digits
from pipeline.errors import Rejected
from pipeline.formats import discover, glimpse_of, identify
from pipeline.sandbox import Zygote, discard
from pipeline.stage import File, Passage, Report, Sandbox, Upload
from pipeline.stages import benchmark, convert, optimize, validate

ROOT = Path(__file__).parents[2]
SERVABLE = {"onnx": "digits.onnx", "torchscript": "digits.pt", "pt2": "digits.pt2"}
RNG = np.random.default_rng(5)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.*LeafSpec.*:FutureWarning"),
]


@dataclass(kw_only=True)
class Intake:
    """One upload on its way: what the worker would do around the stages, without its database and buckets."""

    model: Path
    sandbox: Sandbox
    folder: Path
    upload: Upload
    side_files: Mapping[str, Path] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=lambda: {"benchmark_rounds": 2})
    earlier: dict[str, Passage] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    scratch: Path = Path()
    attempt: int = 1
    scanner: None = None
    publisher: Any = None
    served: File | None = None

    def log(self, text: str) -> None:
        self.lines.append(text)

    def fetch(self, file: File) -> Path:
        return Path(file.key)

    def incumbent(self) -> File | None:
        return self.served

    def run(self, *modules: Any) -> Report:
        report = Report()
        for module in modules:
            self.scratch = self.folder / f"scratch-{module.STAGE.name}-{uuid4().hex}"
            self.scratch.mkdir()
            report = module.STAGE.run(self)
            files = [self._stored(made.path, made.role, made.meta) for made in report.files]
            self.earlier[module.STAGE.name] = Passage(
                facts=json.loads(json.dumps(report.facts, allow_nan=False)), files=files
            )
            discard(self.scratch)
        return report

    def _stored(self, path: Path, role: str, meta: Mapping[str, Any]) -> File:
        key = self.folder / f"stored-{uuid4().hex}-{path.name}"
        shutil.copyfile(path, key)
        digest = hashlib.sha256(key.read_bytes()).hexdigest()
        json.dumps(dict(meta), allow_nan=False)
        return File(name=path.stem, role=role, key=str(key), sha256=digest, size=key.stat().st_size, meta=meta)

    def files(self) -> dict[str, File]:
        return {file.name: file for passage in self.earlier.values() for file in passage.files}


Begin = Callable[..., Intake]


@pytest.fixture
def begin(zygote: Zygote, tmp_path: Path) -> Begin:
    tmp_path.chmod(0o755)

    def begin(source: Path, **declared: Any) -> Intake:
        folder = tmp_path / uuid4().hex
        folder.mkdir()
        model = folder / f"model{source.suffix}"
        shutil.copyfile(source, model)
        upload = Upload(
            version_id=uuid4(),
            model="digits",
            version="1.0.0",
            format=identify(model.name, glimpse_of(model)).name,
            filename=source.name,
            size=model.stat().st_size,
            sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
            declared=declared,
        )
        return Intake(model=model, sandbox=zygote, folder=folder, upload=upload)

    return begin


def refusal(intake: Intake, *modules: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        intake.run(*modules)
    return caught.value


def accuracy(model: Path, held: Mapping[str, np.ndarray]) -> float:
    session = onnxruntime.InferenceSession(str(model))
    scores = session.run(None, {session.get_inputs()[0].name: held["images"]})[0]
    return float((scores.argmax(1) == held["labels"]).mean())


def onnx_file(
    folder: Path,
    nodes: list[Any],
    weights: Mapping[str, np.ndarray],
    *,
    shape: tuple[Any, ...],
    out: tuple[Any, ...],
    opset: int = 18,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    path = folder / f"{uuid4().hex}.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, producer_name="test")
    onnx.save_model(model, path)
    return path


def torch_file(folder: Path, module: nn.Module) -> Path:
    path = folder / f"{uuid4().hex}.pt"
    torch.jit.script(module.eval()).save(path)
    return path


@pytest.mark.parametrize("form", ["onnx", pytest.param("torchscript", marks=pytest.mark.slow), "pt2"])
def test_a_model_goes_the_whole_way_and_every_variant_still_reads_digits(form: str, digits: Path, begin: Begin) -> None:
    card = json.loads((digits / "digits.json").read_text())
    assert card["accuracy"] > 0.97
    intake = begin(digits / SERVABLE[form], classes=card["classes"], input_shape=card["input_shape"])
    intake.side_files = {
        "calibration": shutil.copyfile(digits / "digits-calibration.npz", intake.folder / "samples.npz")
    }

    found = intake.run(validate).facts
    assert found["format"] == form
    assert found["servable"] is True
    assert [(one["name"], one["dtype"], one["shape"]) for one in found["inputs"]] == [
        ("image", "float32", [None, 1, 8, 8])
    ]
    assert [one["shape"] for one in found["outputs"]] == [[None, 10]]
    assert found["parameters"] > 70_000
    assert found["warnings"] == []

    converted = intake.run(convert).facts
    assert converted["opset"] >= 18
    assert converted["verification"]["verified"] is True
    assert converted["verification"]["batches"] == [1, 2, 29, 32]
    decisions = converted["verification"]["outputs"][0]["decisions"]
    assert decisions["compared"] == decisions["agreed"] > 100
    assert next(one["exporter"] for one in converted["tried"] if one["ok"]) == converted["exporter"]

    optimized = intake.run(optimize).facts
    found = {one["name"]: one["withheld"] for one in optimized["variants"]}
    ours = ("onnx-fp16", "onnx-fp32-optimized", "onnx-int8-dynamic", "onnx-int8-static")
    assert [found[name] for name in ours] == [False] * 4

    intake.options["benchmark_rounds"] = 5
    measured = intake.run(benchmark).facts
    names = [row["name"] for row in measured["rows"]]
    assert names[:6] == ["source", "onnx-fp32", *ours]
    assert measured["protocol"]["rounds"] in {10, 20, 40}
    assert measured["device"]["cpu"]
    for row in measured["rows"]:
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert set(row["throughput_per_s"]) == {"1", "8", "32", "128"}
        assert row["speedup_ci"][0] <= row["speedup"] <= row["speedup_ci"][1]
        assert row["peak_memory"] > row["model_memory"] > 0
        assert row["verdict"] in {"faster", "same", "slower", "inconclusive"}
    if form != "onnx":
        assert measured["rows"][1]["verdict"] == "faster"  # ONNX Runtime beside torch, at least twice as fast

    files, held = intake.files(), np.load(digits / "digits-heldout.npz")
    for name in names[1:]:
        meta = files[name].meta
        assert accuracy(Path(files[name].key), held) >= card["accuracy"] - 0.01
        assert meta["variant"] == name
        assert meta["parent"] == (intake.upload.sha256 if name == "onnx-fp32" else files["onnx-fp32"].sha256)
        assert meta["toolchain"]["onnxruntime"] == onnxruntime.__version__
    assert files["onnx-int8-dynamic"].size < files["onnx-fp32"].size / 2
    assert b"/" + Path.home().name.encode() + b"/" not in Path(files["onnx-fp32"].key).read_bytes()

    asked, answered = np.load(files["golden-inputs"].key), np.load(files["golden-outputs"].key)
    session = onnxruntime.InferenceSession(files["onnx-fp32"].key)
    for name, expected in zip(answered.files, session.run(None, dict(asked)), strict=True):
        np.testing.assert_allclose(answered[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "form", ["onnx", *(pytest.param(one, marks=pytest.mark.slow) for one in ("torchscript", "pt2"))]
)
def test_the_same_model_gives_the_same_bytes(form: str, digits: Path, begin: Begin) -> None:
    digests = []
    for _ in range(2):
        intake = begin(digits / SERVABLE[form], input_shape=[-1, 1, 8, 8])
        intake.run(validate, convert, optimize)
        digests.append({name: file.sha256 for name, file in intake.files().items() if file.role != "sample"})
    assert len(digests[0]) >= 4
    common = digests[0].keys() & digests[1].keys()  # what OpenVINO gains is measured, and may differ
    assert {name: digests[0][name] for name in common} == {name: digests[1][name] for name in common}


def test_both_exporters_are_tried_and_reported(digits: Path, begin: Begin) -> None:
    facts = begin(digits / "digits.pt", input_shape=[-1, 1, 8, 8])
    found = facts.run(validate, convert).facts
    assert [(one["exporter"], one["ok"]) for one in found["tried"]] == [("torchscript", True), ("dynamo", True)]
    assert all(one["verification"]["outputs"] for one in found["tried"])


def test_a_program_exported_for_one_batch_size_stays_at_it(begin: Begin, tmp_path: Path) -> None:
    model, path = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).eval(), tmp_path / "fixed.pt2"
    torch.export.save(torch.export.export(model, (torch.zeros(3, 6),)), path)
    intake = begin(path)
    found = intake.run(validate, convert).facts
    assert [one["ok"] for one in found["tried"]] == [True, True]
    assert found["inputs"][0]["shape"] == [3, 6]
    rows = intake.run(optimize, benchmark).facts["rows"]
    assert set(rows[0]["throughput_per_s"]) == {"3"}


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.scores = nn.Linear(8, 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = mask.unsqueeze(-1).float()
        pooled = (self.table(ids) * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        scores = self.scores(pooled)
        return scores, scores.argmax(-1)


def test_integer_inputs_and_several_outputs_are_found_by_trial(begin: Begin, tmp_path: Path) -> None:
    intake = begin(torch_file(tmp_path, Tokens()), input_shape={"ids": [-1, 12], "mask": [-1, 12]})
    found = intake.run(validate).facts
    assert [(one["name"], one["dtype"]) for one in found["inputs"]] == [("ids", "int64"), ("mask", "int64")]
    verification = intake.run(convert).facts["verification"]
    assert [one["name"] for one in verification["outputs"]] == ["output_0", "output_1"]
    assert verification["outputs"][1]["decisions"]["agreed"] > 50


class IgnoresOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor, unused: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"scores": self.layer(x)}


def test_an_input_that_changes_nothing_may_go_and_outputs_keep_their_names(begin: Begin, tmp_path: Path) -> None:
    path = tmp_path / "ignores.pt2"
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(
        IgnoresOne().eval(), (torch.zeros(2, 6), torch.zeros(2, 3)), dynamic_shapes={"x": batch, "unused": batch}
    )
    torch.export.save(program, path)
    intake = begin(path)
    measured = {row["name"] for row in intake.run(validate, convert, optimize, benchmark).facts["rows"]}
    assert measured >= {"source", "onnx-fp32", "onnx-fp32-optimized", "onnx-int8-dynamic"}
    file = intake.files()["onnx-fp32"]
    session = onnxruntime.InferenceSession(file.key)
    assert [one["name"] for one in file.meta["inputs"]] == [one.name for one in session.get_inputs()]
    assert [one["name"] for one in file.meta["outputs"]] == [one.name for one in session.get_outputs()] == ["scores"]


class OneAtATime(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.reshape(1, 12))


def test_a_batch_that_is_baked_in_is_found_out_and_said(begin: Begin, tmp_path: Path) -> None:
    intake = begin(torch_file(tmp_path, OneAtATime()), input_shape=[-1, 12])
    found = intake.run(validate).facts
    assert found["inputs"][0]["shape"] == [1, 12]
    assert "fixed at 1" in found["warnings"][0]
    assert intake.run(convert).facts["verification"]["batches"] == [1]


class PoolsToItsSize(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(x[None, None], [x.shape[0], 3])[0, 0]


def test_the_exporter_that_can_is_kept_where_the_other_cannot(begin: Begin, tmp_path: Path) -> None:
    found = begin(torch_file(tmp_path, PoolsToItsSize()), input_shape=[-1, 6]).run(validate, convert).facts
    assert [(one["exporter"], one["ok"]) for one in found["tried"]] == [("torchscript", False), ("dynamo", True)]
    assert "adaptive pooling" in found["tried"][0]["reason"]
    assert found["exporter"] == "dynamo"


class GroupsByItsSize(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[0]
        return nn.functional.conv1d(x[None], torch.ones(rows, 1, 3), None, 1, 1, 1, rows)[0]


def test_a_model_that_no_exporter_can_write_for_every_batch_is_written_for_one(begin: Begin, tmp_path: Path) -> None:
    intake = begin(torch_file(tmp_path, GroupsByItsSize()), input_shape=[-1, 6])
    assert intake.run(validate).facts["inputs"][0]["shape"] == [None, 6]
    found = intake.run(convert).facts
    assert [one["ok"] for one in found["tried"]][:2] == [False, False]
    assert found["inputs"][0]["shape"] == [1, 6]
    assert found["warnings"] == ["No exporter keeps the batch size free: it is fixed at 1."]
    assert found["verification"]["batches"] == [1]


class Cumulative(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], 2, 3).cumprod(1).sum(1)


def test_a_model_that_cannot_be_written_as_onnx_is_refused_with_the_reason_of_each_exporter(
    begin: Begin, tmp_path: Path
) -> None:
    error = refusal(begin(torch_file(tmp_path, Cumulative()), input_shape=[-1, 6]), validate, convert)
    assert error.code == "conversion_failed"
    assert "torchscript: " in error.message
    assert "dynamo: " in error.message
    assert "cumprod" in error.message


def test_a_signature_beyond_all_bounds_is_the_models_fault(begin: Begin, tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y" * 2000])]
    path = onnx_file(tmp_path, nodes, {}, shape=("n", 4), out=("n", 4))
    model = onnx.load_model(path)
    model.graph.output[0].name = "y" * 2000
    onnx.save_model(model, path)
    assert refusal(begin(path), validate).code == "unsupported_signature"


def test_torchscript_without_a_shape_is_told_to_declare_one(digits: Path, begin: Begin) -> None:
    error = refusal(begin(digits / "digits.pt"), validate)
    assert error.code == "input_shape_required"
    assert "image" in error.message


@pytest.mark.parametrize("form", SERVABLE)
def test_a_declared_shape_that_the_model_does_not_take_is_refused(form: str, digits: Path, begin: Begin) -> None:
    assert refusal(begin(digits / SERVABLE[form], input_shape=[1, 3, 8, 8]), validate).code == "shape_mismatch"


def test_a_declared_output_that_the_model_does_not_give_is_refused(digits: Path, begin: Begin) -> None:
    error = refusal(begin(digits / "digits.onnx", output_shape=[1, 1000]), validate)
    assert error.code == "shape_mismatch"
    assert error.message.endswith("was declared as [1, 1000] but the model gives [?, 10].")


@pytest.mark.parametrize("form", SERVABLE)
def test_a_wrong_number_of_classes_is_only_a_warning(form: str, digits: Path, begin: Begin) -> None:
    found = begin(digits / SERVABLE[form], input_shape=[-1, 1, 8, 8], classes=["odd", "even"]).run(validate).facts
    assert found["warnings"] == ["2 classes were declared, but the model scores 10."]


@pytest.mark.parametrize("name", ["digits.onnx", "digits.pt", "digits.pt2", "digits.safetensors"])
def test_a_damaged_file_is_refused_and_breaks_nothing(name: str, digits: Path, begin: Begin) -> None:
    intake = begin(digits / name, input_shape=[-1, 1, 8, 8])
    content = bytearray(intake.model.read_bytes())
    for place in range(40, min(len(content), 60_000), 97):
        content[place] ^= 0xFF
    intake.model.write_bytes(content)
    assert refusal(intake, validate).code in {
        "not_loadable",
        "content_mismatch",
        "no_signature",
        "crashed",
        "nan_output",
    }


def test_weights_alone_are_described_and_said_not_to_be_servable(digits: Path, begin: Begin) -> None:
    found = begin(digits / "digits.safetensors").run(validate).facts
    assert found["servable"] is False
    assert {one["name"] for one in found["tensors"]} >= {"scores.0.weight", "features.0.bias"}
    assert found["parameters"] == sum(one.numel() for one in Digits().parameters())
    assert any("upload it as .onnx" in one for one in found["warnings"])
    assert all(module.STAGE.servable_only for module in (convert, optimize, benchmark))


def weights(header: object, room: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(room)


FLOATS = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        (weights({"a": FLOATS}, 9), "take 8 bytes, the file has room for 9"),
        (weights({"a": FLOATS}, 4), "take 8 bytes, the file has room for 4"),
        (weights({"a": FLOATS, "b": FLOATS}, 8), "overlaps"),
        (weights({"a": FLOATS, "b": FLOATS | {"data_offsets": [9, 17]}}, 17), "follows a hole"),
        (weights({"a": FLOATS | {"shape": [3]}}, 8), "does not fill its offsets"),
        (weights({"a": FLOATS | {"shape": [-2]}}, 8), "no sizes"),
        (weights({"a": FLOATS | {"shape": [True, 2]}}, 8), "no sizes"),
        (weights({"a": FLOATS | {"dtype": "F31"}}, 8), "unknown type"),
        (weights({"a": FLOATS | {"dtype": ["F32"]}}, 8), "unknown type"),
        (weights({"a": FLOATS | {"code": "x"}}, 8), "nothing else"),
        (weights(b'{"a":{},"a":{}}', 8), "twice"),
        (weights({"a": FLOATS, "__metadata__": {"n": 1}}, 8), "texts"),
        (weights(b"{" * 50_000, 8), "no JSON"),
    ],
)
def test_a_safetensors_header_that_does_not_account_for_every_byte_is_refused(
    content: bytes, flaw: str, begin: Begin, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    error = refusal(begin(path), validate)
    assert error.code == "not_loadable"
    assert flaw in error.message


def test_an_old_opset_is_raised_and_verified(begin: Begin, tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"], axis=1)]
    path = onnx_file(tmp_path, nodes, {"w": RNG.standard_normal((6, 4))}, shape=("n", 6), out=("n", 4), opset=11)
    intake = begin(path)
    assert "Opset 11 is old" in intake.run(validate).facts["warnings"][0]
    found = intake.run(convert).facts
    assert (found["exporter"], found["opset"]) == ("opset18", 18)
    assert found["verification"]["verified"] is True


def test_weights_in_other_files_are_refused_before_anything_is_opened(begin: Begin, tmp_path: Path) -> None:
    path = onnx_file(
        tmp_path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": np.ones((64, 64))},
        shape=("n", 64),
        out=("n", 64),
    )
    model = onnx.load_model(path)
    onnx.save_model(model, path, save_as_external_data=True, location="outside.bin", size_threshold=0)
    error = refusal(begin(path), validate)
    assert error.code == "external_data"
    assert "first: w" in error.message


def test_operators_that_nobody_here_has_are_named(begin: Begin, tmp_path: Path) -> None:
    nodes = [helper.make_node("Magic", ["x"], ["y"], domain="com.example")]
    path = onnx_file(tmp_path, nodes, {}, shape=("n", 4), out=("n", 4))
    error = refusal(begin(path), validate)
    assert error.code == "custom_operators"
    assert "com.example" in error.message


def test_a_model_that_answers_nan_is_refused(begin: Begin, tmp_path: Path) -> None:
    nodes = [helper.make_node("Sqrt", ["x"], ["y"])]
    error = refusal(begin(onnx_file(tmp_path, nodes, {}, shape=("n", 4), out=("n", 4))), validate)
    assert error.code == "nan_output"


def test_a_model_that_answers_differently_each_time_is_not_equivalent_to_anything(begin: Begin, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Add", ["x", "noise"], ["y"]),
    ]
    intake = begin(onnx_file(tmp_path, nodes, {}, shape=("n", 4), out=("n", 4)))
    error = refusal(intake, validate, convert)
    assert error.code == "not_equivalent"
    assert "of its RMS" in error.message


def test_an_int8_variant_that_loses_too_much_is_withheld_with_its_numbers_and_the_others_go_on(
    begin: Begin, tmp_path: Path
) -> None:
    scale = np.eye(16)
    scale[0, 0] = 1e5  # one feature so large that eight bits leave nothing of the others
    head = RNG.standard_normal((16, 10))
    head[0] = 0
    nodes = [
        helper.make_node("MatMul", ["x", "scale"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "head"], ["y"]),
    ]
    intake = begin(onnx_file(tmp_path, nodes, {"scale": scale, "head": head}, shape=("n", 16), out=("n", 10)))
    found = {one["name"]: one for one in intake.run(validate, convert, optimize).facts["variants"]}
    assert found["onnx-fp32-optimized"]["withheld"] is False
    lost = found["onnx-int8-dynamic"]
    assert lost["withheld"] is True
    assert lost["verification"]["outputs"][0]["decisions"]["flips"] > 0
    assert "decisions" in lost["reason"] or "RMS" in lost["reason"]
    assert lost["verification"]["diverges"]["tensor"] == "y"
    kept = [file.name for file in intake.earlier["optimize"].files]
    assert "onnx-int8-dynamic" not in kept
    names = [row["name"] for row in intake.run(benchmark).facts["rows"]]
    assert names == ["source", "onnx-fp32", *kept]


def test_a_graph_without_products_has_no_int8_variant_and_says_why(begin: Begin, tmp_path: Path) -> None:
    intake = begin(onnx_file(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], {}, shape=("n", 4), out=("n", 4)))
    found = {one["name"]: one for one in intake.run(validate, convert, optimize).facts["variants"]}
    assert found["onnx-int8-dynamic"]["withheld"] is True
    assert found["onnx-int8-dynamic"]["reason"].startswith("nothing_to_quantise")


def test_calibration_for_another_model_is_refused(digits: Path, begin: Begin) -> None:
    intake = begin(digits / "digits.onnx")
    np.savez(intake.folder / "samples.npz", image=np.zeros((4, 3, 3), np.float32))
    intake.side_files = {"calibration": intake.folder / "samples.npz"}
    assert refusal(intake, validate, convert).code == "calibration_mismatch"


def test_names_and_content_must_agree(digits: Path) -> None:
    for form, name in SERVABLE.items():
        glimpse = glimpse_of(digits / name)
        assert identify(f"Some.Model{Path(name).suffix.upper()}", glimpse).name == form
        for other in {one for kind in discover() for one in kind.extensions} - {".pt", ".pth", Path(name).suffix}:
            with pytest.raises(Rejected, match=f"is named {other} but holds") as caught:
                identify(f"model{other}", glimpse)
            assert caught.value.code == "content_mismatch"


def test_what_is_no_model_is_refused_as_unsupported(digits: Path) -> None:
    for name in ("model.exe", "model"):
        with pytest.raises(Rejected, match="Accepted are") as caught:
            identify(name, glimpse_of(digits / "digits.onnx"))
        assert caught.value.code == "unsupported_format"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x08", b"<html>", bytes(4096), b"\x80\x04\x95", b"{}" * 40])
@pytest.mark.parametrize("name", ["a.onnx", "a.pt", "a.pt2", "a.safetensors"])
def test_odd_content_is_refused_whatever_it_is_called(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(Rejected) as caught:
        identify(name, glimpse_of(path))
    assert caught.value.code == "content_mismatch"


def test_the_worker_itself_imports_no_model_library() -> None:
    """Everything that a stage imports must be free of them: they belong into the children."""
    heavy = "numpy", "torch", "onnx", "onnxruntime", "onnxslim", "safetensors", "sklearn", "joblib", "keras", "h5py"
    program = (
        "import sys, pipeline.formats, pipeline.stage; pipeline.formats.discover(); pipeline.stage.discover();"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
