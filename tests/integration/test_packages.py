"""Packages through the stages: one model and what belongs to it, unpacked where nothing can be stolen."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from pipeline import extras
from pipeline.stages import convert, validate
from tests.integration.test_formats import Begin, begin, refusal
from tests.zoo import SAMPLES, packages
from tests.zoo import onnx as graphs

__all__ = ["begin"]


def test_external_data_is_taken_in_and_side_files_come_along(begin: Begin, tmp_path: Path) -> None:
    intake = begin(packages.write_external(tmp_path))
    found = intake.run(validate).facts
    assert found["format"] == "package"
    assert found["servable"] is True
    assert found["notes"]["package"] == "ONNX (model/digits.onnx)"
    assert found["notes"]["licence file"] == "LICENSE"
    assert found["declared"] == {"config": packages.CONFIG, "classes": packages.CONFIG["classes"]}
    assert found["warnings"] == []
    left = {file.role: file for file in intake.earlier["validate"].files}
    assert set(left) == {"requirements", "calibration", "card"}
    assert Path(left["card"].key).read_text() == packages.CARD
    assert np.load(left["calibration"].key)["image"].shape == (256, 8, 8)

    intake.run(convert)
    canonical = onnx.load_model(intake.files()["onnx-fp32"].key, load_external_data=False)
    assert all(one.data_location == onnx.TensorProto.DEFAULT for one in canonical.graph.initializer)
    held = np.load(left["calibration"].key)
    session = onnxruntime.InferenceSession(intake.files()["onnx-fp32"].key)
    [scores] = session.run(None, {"image": held["image"]})
    assert (scores.argmax(1) == held["labels"]).mean() > 0.9


def test_a_skeleton_is_filled_with_the_weights_beside_it(begin: Begin, digits: Path, tmp_path: Path) -> None:
    intake = begin(packages.write_skeleton(tmp_path))
    found = intake.run(validate).facts
    assert found["notes"]["package"] == "torch.export (skeleton.pt2), filled from weights.safetensors"
    assert intake.run(convert).facts["verification"]["verified"] is True
    held = np.load(digits / "digits-heldout.npz")
    session = onnxruntime.InferenceSession(intake.files()["onnx-fp32"].key)
    [scores] = session.run(None, {"image": held["images"][:100]})
    assert (scores.argmax(1) == held["labels"][:100]).mean() > 0.9


@pytest.mark.slow
@pytest.mark.skipif(bool(extras.missing("tensorflow")), reason="the extra 'tensorflow' is not installed")
def test_a_saved_model_in_a_package_is_converted(begin: Begin, tmp_path: Path) -> None:
    intake = begin(SAMPLES["package-saved-model"].make(tmp_path))
    assert intake.run(validate).facts["notes"]["package"] == "TensorFlow SavedModel (digits)"
    assert intake.run(convert).facts["verification"]["verified"] is True


def test_two_models_are_named_and_the_config_may_choose(begin: Begin, tmp_path: Path) -> None:
    model = graphs.write_digits(tmp_path)
    path = packages.pack(tmp_path / "two.zip", {"a.onnx": model, "old/b.onnx": model})
    wrong = refusal(begin(path), validate)
    assert wrong.code == "several_models"
    assert "a.onnx (ONNX), old/b.onnx (ONNX)" in wrong.message
    assert begin(path, config={"model": "a.onnx"}).run(validate).facts["notes"]["package"] == "ONNX (a.onnx)"
    assert refusal(begin(path, config={"model": "c.onnx"}), validate).code == "no_model"


def external(folder: Path, **changes: str) -> Path:
    """An ONNX file whose first weight says something else of where it lies."""
    onnx.save_model(
        graphs.digits_model(), folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    proto = onnx.load_model(folder / "m.onnx", load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        entry.value = changes.get(entry.key, entry.value)
    onnx.save_model(proto, folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.parametrize(
    "changes",
    [
        {"location": "../m.data"},
        {"location": "/etc/passwd"},
        {"location": "missing.data"},
        {"location": "a\\..\\m.data"},
        {"offset": "999999999"},
        {"length": "999999999"},
    ],
)
def test_external_data_lies_in_the_package_or_nowhere(changes: dict[str, str], begin: Begin, tmp_path: Path) -> None:
    model = external(tmp_path, **changes)
    path = packages.pack(tmp_path / "p.zip", {"m/m.onnx": model, "m/m.data": tmp_path / "m.data", "m.data": b"x"})
    assert refusal(begin(path), validate).code in {"external_data", "not_loadable"}


def archive(folder: Path, *members: tuple[str, bytes, int]) -> Path:
    """A package whose further members have these names, contents and Unix modes."""
    path = packages.pack(folder / "p.zip", {"m.onnx": graphs.write_digits(folder)})
    with zipfile.ZipFile(path, "a") as bundle:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            bundle.writestr(info, content)
    return path


@pytest.mark.parametrize(
    ("name", "mode"), [("../out.txt", 0o100644), ("/out.txt", 0o100644), ("a\\..\\out", 0o100644), ("link", 0o120777)]
)
def test_names_that_lead_out_and_links_are_refused(name: str, mode: int, begin: Begin, tmp_path: Path) -> None:
    """The scan stops such archives; where they are opened they are not trusted to have been stopped."""
    assert refusal(begin(archive(tmp_path, (name, b"/etc/passwd", mode))), validate).code == "not_loadable"


def test_a_config_that_is_none_is_the_packages_fault(begin: Begin, tmp_path: Path) -> None:
    model = graphs.write_digits(tmp_path)
    for text in ("{", "[]", '{"a": NaN}', '{"input_shape": "large"}', "\ud800".encode("utf-8", "surrogatepass")):
        path = packages.pack(tmp_path / "p.zip", {"m.onnx": model, "config.json": text})
        assert refusal(begin(path), validate).code in {"invalid_config", "invalid_input_shape"}
    path = packages.pack(tmp_path / "p.zip", {"m.onnx": model, "config.json": '{"budgets": {"int8": {"flips": 0.9}}}'})
    assert refusal(begin(path), validate).code == "invalid_budget"


def test_settings_in_another_notation_are_kept_and_said_not_to_be_read(begin: Begin, tmp_path: Path) -> None:
    model = graphs.write_digits(tmp_path)
    path = packages.pack(tmp_path / "p.zip", {"m.onnx": model, "config.yaml": "task: classification\n"})
    [warning] = begin(path).run(validate).facts["warnings"]
    assert warning.startswith("config.yaml is kept and not read")


def test_a_shape_in_the_packages_config_counts_as_declared(begin: Begin, tmp_path: Path) -> None:
    model = graphs.write_digits(tmp_path)
    config = json.dumps({"input_shape": [None, 28, 28]})
    path = packages.pack(tmp_path / "p.zip", {"m.onnx": model, "config.json": config})
    assert refusal(begin(path), validate).code == "shape_mismatch"
    assert begin(path, input_shape=[None, 8, 8]).run(validate).facts["servable"] is True
