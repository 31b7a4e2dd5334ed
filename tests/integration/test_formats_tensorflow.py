"""TensorFlow's files through the stages: what answers in the source's own runtime must answer the same as ONNX."""

from __future__ import annotations

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from pipeline import extras
from pipeline.stages import benchmark, convert, validate
from tests.integration.test_formats import Begin, begin, refusal
from tests.readers.foreign import FILES
from tests.zoo import SAMPLES, Sample

__all__ = ["begin"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(extras.missing("tensorflow")), reason="the extra 'tensorflow' is not installed"),
    pytest.mark.timeout(900),  # each child imports TensorFlow anew
]
DIGITS = [name for name in SAMPLES if name.startswith("tensorflow-digits-")]


@pytest.mark.parametrize("name", DIGITS)
def test_a_network_reads_as_many_digits_as_before(name: str, begin: Begin, tmp_path: Path) -> None:
    sample: Sample = SAMPLES[name]
    assert sample.calibration is not None
    samples = sample.calibration(tmp_path)
    intake = begin(sample.make(tmp_path), **sample.declared)
    intake.side_files = {"calibration": Path(shutil.copyfile(samples, intake.folder / "samples.npz"))}

    found = intake.run(validate).facts
    dtype = "int8" if name.endswith("int8") else "float32"
    assert [(one["name"], one["dtype"], one["shape"]) for one in found["inputs"]] == [("image", dtype, [None, 8, 8, 1])]
    assert [one["shape"] for one in found["outputs"]] == [[None, 10]]
    assert 9_900 < found["parameters"] < 10_010  # batch normalisation may be folded
    assert found["warnings"] == []

    verification = intake.run(convert).facts["verification"]
    assert verification["verified"] is True
    [output] = verification["outputs"]
    assert output["decisions"]["flips"] == 0
    if dtype == "int8":
        assert output["decisions"]["agreed"] == output["decisions"]["compared"] > 500  # every value, bit for bit
    held = np.load(samples)
    session = onnxruntime.InferenceSession(intake.files()["onnx-fp32"].key)
    assert [one.name for one in session.get_inputs()] == ["image"]
    [scores] = session.run(None, {"image": held["image"]})
    assert (scores.argmax(1) == held["labels"]).mean() > 0.9


def test_a_lite_model_is_measured_in_its_own_interpreter(begin: Begin, tmp_path: Path) -> None:
    intake = begin(SAMPLES["tensorflow-digits-lite"].make(tmp_path))
    rows = intake.run(validate, convert, benchmark).facts["rows"]
    assert [(one["name"], one["runtime"]) for one in rows] == [("source", "tflite"), ("onnx-fp32", "onnxruntime")]


def test_a_large_saved_model_goes_the_whole_way(begin: Begin, tmp_path: Path) -> None:
    intake = begin(SAMPLES["tensorflow-mobilenet"].make(tmp_path))
    found = intake.run(validate).facts
    assert 3.4e6 < found["parameters"] < 3.6e6
    assert intake.run(convert).facts["verification"]["verified"] is True


def saved(name: str, folder: Path) -> Path:
    """A SavedModel among the files that TensorFlow wrote for the tests of our readers."""
    path = folder / f"{name}.zip"
    path.write_bytes(FILES[f"benign/{name}.zip"])
    return path


def test_a_model_of_several_signatures_serves_the_one_that_is_named(begin: Begin, tmp_path: Path) -> None:
    path = saved("module_saved", tmp_path)
    found = begin(path).run(validate).facts
    assert found["notes"]["signature"] == "serving_default"
    assert found["notes"]["signatures"] == "image, look, serving_default"
    wrong = refusal(begin(path, config={"signature": "nobody"}), validate)
    assert wrong.code == "no_signature"
    assert "image, look, serving_default" in wrong.message


@pytest.mark.parametrize("name", ["v1_saved", "keras2_saved", "attention_export", "convolution_export", "module_saved"])
def test_what_older_and_newer_writers_export_is_converted(name: str, begin: Begin, tmp_path: Path) -> None:
    """Sessions of TensorFlow 1, Keras 2 and 3, and plain modules with loops and branches."""
    intake = begin(saved(name, tmp_path))
    assert intake.run(validate, convert).facts["verification"]["verified"] is True


@pytest.mark.parametrize(
    "name", ["frozen.pb", "frozen_v1.pb", "lstm.tflite", "convolution_int8.tflite", "attention_half.tflite"]
)
def test_single_files_of_all_ages_are_converted(name: str, begin: Begin, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[f"benign/{name}"])
    assert begin(path).run(validate, convert).facts["verification"]["verified"] is True


def test_a_graph_says_what_its_ends_are_called_where_that_is_not_clear(begin: Begin, tmp_path: Path) -> None:
    path = tmp_path / "frozen_v1.pb"
    path.write_bytes(FILES["benign/frozen_v1.pb"])
    found = begin(path, config={"inputs": ["x"], "outputs": ["y:0"]}).run(validate).facts
    assert [one["name"] for one in (*found["inputs"], *found["outputs"])] == ["x", "y"]
    assert "nothing_here" in refusal(begin(path, config={"outputs": ["nothing_here"]}), validate).message


def test_a_damaged_lite_model_is_the_models_fault(begin: Begin, tmp_path: Path) -> None:
    content = bytearray(FILES["benign/convolution_float.tflite"])
    content[40:400] = bytes(360)
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content)
    assert refusal(begin(path), validate).code in {"not_loadable", "crashed", "forward_failed", "unsupported_signature"}


def test_an_archive_with_two_saved_models_is_refused(begin: Begin, tmp_path: Path) -> None:
    inner = zipfile.ZipFile(io.BytesIO(FILES["benign/v1_saved.zip"]))
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name in inner.namelist():
            archive.writestr(f"a/{name}", inner.read(name))
            archive.writestr(f"b/{name}", inner.read(name))
    assert refusal(begin(tmp_path / "two.zip"), validate).code == "several_models"
