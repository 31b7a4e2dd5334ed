"""What `torch.save` wrote, in every age and shape, and weights with the name of their network, through the stages."""

from __future__ import annotations

import functools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from examples import digits as example
from pipeline import detections, extras
from pipeline.errors import Rejected
from pipeline.formats import discover, find, glimpse_of, identify
from pipeline.formats.checkpoint import needs
from pipeline.skeletons import fill, read_tensors
from pipeline.stages import benchmark, convert, optimize, validate
from tests.integration.test_formats import Begin, Intake, accuracy, begin, refusal  # noqa: F401 - fixtures too
from tests.zoo import SAMPLES, Sample, detector
from tests.zoo import torch as zoo

NAMED = {"architecture": {"library": "torchvision", "name": "squeezenet1_1", "arguments": {"num_classes": 10}}}
IMAGES = [-1, 3, 64, 64]
TORCH = [one for one in SAMPLES.values() if one.format in ("checkpoint", "safetensors", "yolo")]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.*LeafSpec.*:FutureWarning"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Samples by name, each made once."""

    @functools.cache
    def make(name: str) -> tuple[Sample, Path]:
        return SAMPLES[name], SAMPLES[name].make(tmp_path_factory.mktemp("zoo"))

    return make


def test_a_pickled_module_goes_the_whole_way_and_still_reads_digits(made: Any, begin: Begin) -> None:  # noqa: F811
    sample, path = made("digits-module")
    intake = begin(path, **sample.declared)
    found = intake.run(validate).facts
    assert (found["format"], found["servable"], found["warnings"]) == ("checkpoint", True, [])
    assert [(one["name"], one["shape"]) for one in found["inputs"]] == [("input", [None, 1, 8, 8])]
    assert (found["parameters"], found["flops"]) == (64 * 48 + 48 + 48 * 10 + 10, 2 * (64 * 48 + 48 * 10))
    assert found["notes"]["dtypes"] == "float32: 3,610"
    converted = intake.run(convert).facts
    assert [(one["exporter"], one["ok"]) for one in converted["tried"]] == [("dynamo", True), ("torchscript", True)]
    _, held = example.data()
    canonical = Path(intake.files()["onnx-fp32"].key)
    assert accuracy(canonical, {"images": held.images.numpy(), "labels": held.labels.numpy()}) > 0.95


def test_files_of_every_age_of_torch_hold_the_same_weights(made: Any, begin: Begin) -> None:  # noqa: F811
    for name in ("digits-old-module", "digits-training-state", "digits-tar-weights"):
        sample, path = made(name)
        found = begin(path, **sample.declared).run(validate).facts
        assert found["parameters"] == 3610, name
        assert found["notes"]["dtypes"] == "float32: 3,610"
        assert found["servable"] is (name == "digits-old-module")
        assert found["servable"] or "architecture in the config" in found["warnings"][0]
    assert made("digits-tar-weights")[1].read_bytes()[257:262] == b"ustar"


def test_what_a_training_loop_saves_beside_the_weights_is_read_too(made: Any, begin: Begin) -> None:  # noqa: F811
    _, path = made("digits-training-state")
    found = begin(path).run(validate).facts
    assert found["classes"] == [str(digit) for digit in range(10)]
    assert found["notes"]["epoch"] == "60"
    assert [one["name"] for one in found["tensors"]] == ["1.weight", "1.bias", "3.weight", "3.bias"]


class Mine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_class_of_the_owners_is_named_with_the_ways_out(zipped: bool, begin: Begin, tmp_path: Path) -> None:  # noqa: F811
    torch.save(Mine(), tmp_path / "mine.pt", _use_new_zipfile_serialization=zipped)
    error = refusal(begin(tmp_path / "mine.pt", input_shape=[-1, 4]), validate)
    assert error.code == "foreign_class"
    assert f"{Mine.__module__}.Mine" in error.message
    for way in (".pt2", "torch.jit.script", "state_dict"):
        assert way in error.message


def test_functions_that_act_are_no_classes_of_a_network(begin: Begin, tmp_path: Path) -> None:  # noqa: F811
    class Loads:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch.hub.load_state_dict_from_url, ("http://localhost/",)

    class Builds:
        def __reduce__(self) -> tuple[Any, ...]:
            return nn.utils.skip_init, (nn.Linear, 2, 2)

    for number, evil in enumerate((Loads(), Builds())):
        for zipped in (True, False):
            path = tmp_path / f"{number}-{zipped}.pt"
            torch.save({"w": evil}, path, _use_new_zipfile_serialization=zipped)
            assert refusal(begin(path), validate).code == "foreign_class"


def test_weights_with_the_name_of_their_network_are_served(made: Any, begin: Begin) -> None:  # noqa: F811
    sample, path = made("squeezenet-weights")
    intake = begin(path, **sample.declared)
    found = intake.run(validate).facts
    assert found["servable"] is True
    assert found["notes"]["architecture"] == "torchvision squeezenet1_1"
    assert found["flops"] > 1e7
    converted = intake.run(convert).facts
    assert converted["verification"]["verified"] is True
    scores = onnxruntime.InferenceSession(intake.files()["onnx-fp32"].key)
    assert scores.run(None, {"x": np.zeros((3, 3, 64, 64), np.float32)})[0].shape == (3, 10)


def test_the_same_weights_without_a_name_are_stored_as_ever(made: Any, begin: Begin) -> None:  # noqa: F811
    _, path = made("squeezenet-weights")
    found = begin(path, input_shape=IMAGES).run(validate).facts
    assert found["servable"] is False
    assert len(found["tensors"]) == 52
    form = find("safetensors")
    assert form.why_unservable({}) == found["warnings"][0]
    assert form.why_unservable({"config": NAMED}) is None


def test_weights_of_another_network_are_named(made: Any, begin: Begin, tmp_path: Path) -> None:  # noqa: F811
    _, path = made("squeezenet-weights")
    other = {"architecture": {**NAMED["architecture"], "arguments": {"num_classes": 5}}}
    error = refusal(begin(path, input_shape=IMAGES, config=other), validate)
    assert error.code == "weights_mismatch"
    assert "classifier.1.bias is [10], not [5]" in error.message
    state = read_tensors(str(path))
    save_file({f"module.{name}": one for name, one in state.items()}, tmp_path / "wrapped.safetensors")
    found = begin(tmp_path / "wrapped.safetensors", input_shape=IMAGES, config=NAMED).run(validate).facts
    assert "'module.'" in found["warnings"][0]
    save_file(
        {name: one for name, one in state.items() if "bias" not in name} | {"x": torch.ones(1)},
        tmp_path / "a.safetensors",
    )
    error = refusal(begin(tmp_path / "a.safetensors", input_shape=IMAGES, config=NAMED), validate)
    assert "26 missing: classifier.1.bias" in error.message
    assert "1 unexpected: x" in error.message


@pytest.mark.parametrize(
    ("architecture", "said"),
    [
        ("resnet18", "library"),
        (
            {"library": "torchvision", "name": "resnet18", "arguments": {"weights": "DEFAULT"}},
            "weights come from the file",
        ),
        ({"library": "torchvision", "name": "os.system"}, "has no model called"),
        ({"library": "torchvision", "name": "squeezenet1_2"}, "Close to it: squeezenet1_"),
        ({"library": "torchvision", "name": "squeezenet1_1", "arguments": {"banana": 1}}, "banana"),
        ({"library": "subprocess", "name": "run"}, "library"),
        ({"library": "torchvision", "name": "squeezenet1_1", "path": "/etc"}, "path"),
    ],
)
def test_an_architecture_is_a_name_in_a_librarys_own_list(
    architecture: Any,
    said: str,
    made: Any,
    begin: Begin,  # noqa: F811
) -> None:
    _, path = made("squeezenet-weights")
    error = refusal(begin(path, input_shape=IMAGES, config={"architecture": architecture}), validate)
    assert error.code == "invalid_architecture"
    assert said in error.message


def test_a_network_must_know_its_input_shape(made: Any, begin: Begin) -> None:  # noqa: F811
    _, path = made("squeezenet-weights")
    assert refusal(begin(path, config=NAMED), validate).code == "input_shape_required"


def test_a_skeleton_is_filled_with_weights_and_answers_like_the_network(tmp_path: Path) -> None:
    torch.manual_seed(1)
    bare, trained = (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).eval() for _ in range(2))
    save_file(trained.state_dict(), tmp_path / "weights.safetensors")
    asked = torch.ones(3, 6)
    expected = trained(asked).detach().numpy()
    program = torch.export.export(bare, (torch.zeros(2, 6),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "bare.pt2")
    exported = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False)
    assert exported is not None
    exported.save(tmp_path / "bare.onnx")
    tensors = read_tensors(str(tmp_path / "weights.safetensors"))
    fill(str(tmp_path / "bare.pt2"), tensors, str(tmp_path / "full.pt2"))
    fill(str(tmp_path / "bare.onnx"), tensors, str(tmp_path / "full.onnx"))
    filled = torch.export.load(tmp_path / "full.pt2").module()(asked).detach().numpy()
    session = onnxruntime.InferenceSession(tmp_path / "full.onnx")
    np.testing.assert_allclose(filled, expected, rtol=1e-6)
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: asked.numpy()})[0], expected, rtol=1e-5)
    with pytest.raises(Rejected, match="1 missing"):
        fill(str(tmp_path / "bare.pt2"), dict(list(tensors.items())[1:]), str(tmp_path / "none.pt2"))


def test_the_edge_tells_torch_files_apart_and_what_extra_they_take(made: Any, tmp_path: Path) -> None:
    for name in ("digits-module", "digits-old-module", "digits-training-state", "digits-tar-weights"):
        sample, path = made(name)
        assert identify(sample.filename, glimpse_of(path)).name == "checkpoint"
        assert needs(glimpse_of(path), {}) is None
    with zipfile.ZipFile(tmp_path / "yolo.pt", "w") as archive:
        archive.writestr("yolo/data.pkl", b"\x80\x02cultralytics.nn.tasks\nDetectionModel\n.")
    assert identify("yolo.pt", glimpse_of(tmp_path / "yolo.pt")).needs(glimpse_of(tmp_path / "yolo.pt"), {}) == "yolo"
    plain = glimpse_of(made("digits-training-state")[1])
    for library, extra in (("torchvision", None), ("timm", "architectures"), ("ultralytics", "yolo")):
        assert needs(plain, {"config": {"architecture": {"library": library, "name": "x"}}}) == extra
    assert needs(plain, {"config": zoo.TINY_BERT}) == "architectures"
    assert sum(one.recognises(plain) for one in discover()) == 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "sample", [one for one in TORCH if one.slow and one.calibration is None], ids=lambda one: one.name
)
def test_networks_of_the_libraries_go_the_whole_way(sample: Sample, begin: Begin, tmp_path: Path) -> None:  # noqa: F811
    if sample.missing:
        pytest.skip(f"not installed: {', '.join(sample.missing)}")
    intake: Intake = begin(sample.make(tmp_path), **sample.declared)
    found = intake.run(validate).facts
    assert found["format"] == sample.format
    assert found["flops"] > 100_000
    converted = intake.run(convert).facts
    assert converted["verification"]["verified"] is True
    assert all(one["ok"] for one in converted["tried"])
    assert {one["shape"][0] for one in converted["inputs"]} == {None}
    names = [row["name"] for row in intake.run(optimize, benchmark).facts["rows"]]
    assert names[:2] == ["source", "onnx-fp32"]


def test_every_form_of_a_network_counts_the_same_operations(made: Any, begin: Begin) -> None:  # noqa: F811
    counted = set()
    for name in ("digits-torchscript", "digits-export"):
        sample, path = made(name)
        found = begin(path, **sample.declared).run(validate).facts
        assert found["notes"]["dtypes"] == "float32: 71,754"
        counted.add(found["flops"])
    products = 8 * 8 * 16 * 9 + 8 * 8 * 32 * 16 * 9 + 512 * 128 + 128 * 10
    assert counted == {2 * products}


@pytest.mark.parametrize(("dtype", "takes"), [(torch.float16, "float32"), (torch.float64, "float64")])
def test_halves_are_computed_in_full_and_doubles_stay(
    dtype: torch.dtype,
    takes: str,
    begin: Begin,  # noqa: F811
    tmp_path: Path,
) -> None:
    torch.save(nn.Sequential(nn.Linear(6, 4), nn.ReLU()).to(dtype), tmp_path / "model.pt")
    found = begin(tmp_path / "model.pt", input_shape=[-1, 6]).run(validate).facts
    assert found["inputs"][0]["dtype"] == takes
    assert found["notes"]["dtypes"] == f"{str(dtype).removeprefix('torch.')}: 28"


@pytest.mark.slow
def test_weights_of_ultralytics_are_served_by_the_name_of_their_network(begin: Begin, tmp_path: Path) -> None:  # noqa: F811
    if missing := extras.missing("yolo"):
        pytest.skip(f"not installed: {', '.join(missing)}")
    whole = torch.load(zoo.yolo(tmp_path), weights_only=False)["model"]
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    named = {"architecture": {"library": "ultralytics", "name": "yolo11n", "arguments": {"nc": 4}}}
    intake = begin(tmp_path / "weights.pt", input_shape=IMAGES, config=named)
    found = intake.run(validate).facts
    assert [one["shape"] for one in found["outputs"]] == [[None, 8, 84]]


@pytest.mark.slow
def test_a_yolo_checkpoint_says_what_it_was_trained_for(made: Any, begin: Begin) -> None:  # noqa: F811
    if missing := extras.missing("yolo"):
        pytest.skip(f"not installed: {', '.join(missing)}")
    found = begin(made("yolo11n")[1]).run(validate).facts
    assert found["classes"] == ["circle", "square", "triangle", "star"]
    assert found["notes"].items() >= {"task": "detect", "stride": "8, 16, 32", "imgsz": "64"}.items()
    assert [(one["shape"], one["example"]) for one in found["outputs"]] == [([None, 8, 84], [1, 8, 84])]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_detector_that_sees_still_sees_in_int8(made: Any, begin: Begin, tmp_path: Path) -> None:  # noqa: F811
    sample = SAMPLES["yolo11n-trained"]
    if sample.missing:
        pytest.skip(f"not installed: {', '.join(sample.missing)}")
    intake: Intake = begin(made(sample.name)[1])
    assert sample.calibration is not None
    intake.side_files = {"calibration": sample.calibration(tmp_path)}
    intake.run(validate, convert)
    variants = {one["name"]: one for one in intake.run(optimize).facts["variants"]}
    quantised = [name for name in variants if "int8-static" in name and not variants[name]["withheld"]]
    assert quantised
    for name in quantised:
        (boxes,) = (one["decisions"] for one in variants[name]["verification"]["outputs"] if one["decides"] == "boxes")
        assert boxes["compared"] > 200, "real boxes, not noise"
    for name in ("onnx-fp32", *quantised):
        assert seen(Path(intake.files()[name].key)) > 0.97, name


def seen(model: Path) -> float:
    """The share of shapes that a detector finds, of those that are there and those that it sees where none is."""
    images, rows = detector.unseen()
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    answer = dict(
        zip(
            (one.name for one in session.get_outputs()),
            session.run(None, {session.get_inputs()[0].name: images}),
            strict=True,
        )
    )
    layout = detections.find(answer, "detection", len(detector.SHAPES))
    assert layout is not None
    leads = []
    for number, found in enumerate(detections.boxes(layout, answer)):
        kinds, centres, sizes = np.split(rows[rows[:, 0] == number][:, 1:], [1, 3], axis=1)
        corners = np.hstack([centres - sizes / 2, centres + sizes / 2]) * detector.SIZE
        there = np.hstack([corners, np.ones_like(kinds), kinds])
        leads.append(detections.match(there, found, detections.CONFIDENT).leads)
    return float((np.concatenate(leads) < 0).mean())
