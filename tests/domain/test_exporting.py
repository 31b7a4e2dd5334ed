"""What other servers read: every field is one of Triton's own schema, and says what the variant is."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tritonclient
import yaml
from google.protobuf import text_format

from pipeline import exporting
from pipeline.exporting import Form
from registry.errors import Conflict

SHA, MANIFEST = "9f" * 32, "ab" * 32


def port(name: str, dtype: str, shape: list[int | None] | None, example: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, "example": example or []}


IMAGE = port("image", "float32", [None, 3, 8, 8], [1, 3, 8, 8])
SCORES = port("scores", "float32", [None, 2], [1, 2])
FORM = Form(
    owner="ada",
    model="digits",
    version="1.2.0",
    ordinal=3,
    variant="onnx-fp32-optimized",
    device="cpu",
    sha256=SHA,
    size=3 << 30,
    manifest=MANIFEST,
    meta={"runtime": "onnxruntime", "session": {"level": "extended"}, "inputs": [IMAGE], "outputs": [SCORES]},
    classes=("zero", "one\n1"),
    largest_batch=16,
)


@pytest.fixture(scope="module")
def triton() -> Any:
    """Triton's `ModelConfig` as its own client carries it: the module needs no gRPC, its package would."""
    path = Path(tritonclient.__path__[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(triton: Any, form: Form) -> Any:
    """The settings as Triton would read them: a field that it does not know, or of another type, is an error."""
    written = exporting.texts(form)[f"{form.name}/config.pbtxt"].decode()
    return text_format.Parse(written, triton.ModelConfig())


def like(form: Form, **meta: Any) -> Form:
    return replace(form, meta={**form.meta, **meta})


def test_a_classifier_of_any_batch_is_described_field_by_field(triton: Any) -> None:
    config = parsed(triton, FORM)
    assert (config.name, config.backend, config.platform) == ("digits", "onnxruntime", "onnxruntime_onnx")
    assert (config.max_batch_size, config.default_model_filename) == (16, "model.onnx")
    assert list(config.version_policy.specific.versions) == [3]
    (image,), (scores,) = config.input, config.output
    assert (image.name, image.data_type, list(image.dims)) == ("image", triton.TYPE_FP32, [3, 8, 8])
    assert (scores.name, list(scores.dims), scores.label_filename) == ("scores", [2], "labels.txt")
    (group,) = config.instance_group
    assert (group.kind, group.count) == (triton.ModelInstanceGroup.KIND_CPU, 1)
    assert config.optimization.graph.level == 1
    assert config.HasField("dynamic_batching")
    told = {key: parameter.string_value for key, parameter in config.parameters.items()}
    assert told == {
        "slipway_model": "ada/digits",
        "slipway_version": "1.2.0",
        "slipway_variant": "onnx-fp32-optimized",
        "slipway_sha256": SHA,
        "slipway_manifest_sha256": MANIFEST,
    }
    texts = exporting.texts(FORM)
    assert list(texts) == ["digits/labels.txt", "digits/config.pbtxt"]
    assert texts["digits/labels.txt"] == b"zero\none 1\n"
    assert FORM.model_path == "digits/3/model.onnx"


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([port("x", "float32", [1, 4])], [port("y", "float32", [1, 2])]),  # fixed
        ([port("x", "float32", [None, 4]), port("k", "int64", [])], [port("y", "float32", [None, 2])]),  # not of all
        ([port("x", "float32", [None, 4], [1, 4])], [port("boxes", "float32", [None, 7], [5, 7])]),  # boxes, not rows
    ],
)
def test_first_axes_that_are_no_common_batch_are_axes_like_others(triton: Any, inputs: Any, outputs: Any) -> None:
    config = parsed(triton, like(FORM, inputs=inputs, outputs=outputs))
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    for said, one in zip([*config.input, *config.output], [*inputs, *outputs], strict=True):
        assert list(said.dims) == ([-1 if size is None else size for size in one["shape"]] or [1])
        assert said.HasField("reshape") == (one["shape"] == [])


def test_texts_scalars_and_hostile_names_are_written_so_that_triton_reads_the_same(triton: Any) -> None:
    name = 'tëxt"\\\n\x00'
    inputs = [port(name, "str", [None]), port("flag", "bool", [None, None])]
    config = parsed(triton, like(FORM, inputs=inputs, outputs=[port("n", "int64", [None])], session={}))
    assert [each.name for each in config.input] == [name, "flag"]
    assert [each.data_type for each in config.input] == [triton.TYPE_STRING, triton.TYPE_BOOL]
    assert [list(each.dims) for each in config.input] == [[1], [-1]]
    assert list(config.input[0].reshape.shape) == []
    assert not config.HasField("optimization")
    assert replace(FORM, model="Straße 7 / *").name == "Stra-e-7"


def test_an_engine_takes_the_shapes_that_it_was_built_for_and_says_by_what(triton: Any) -> None:
    span = {"ids": [[1, 16], [8, 16], [8, 16]]}
    engine = replace(
        like(
            FORM,
            runtime="tensorrt",
            session={},
            inputs=[port("ids", "int32", [None, None], [1, 16])],
            outputs=[port("vector", "float16", [None, 384], [1, 384])],
            options={"profile": span},
            toolchain={"tensorrt": "10.14"},
        ),
        device="sm90",
        variant="tensorrt-fp16@sm90",
        classes=(),
    )
    config = parsed(triton, engine)
    assert (config.backend, config.platform, config.max_batch_size) == ("tensorrt", "tensorrt_plan", 8)
    assert [list(config.input[0].dims), list(config.output[0].dims)] == [[16], [384]]
    assert config.instance_group[0].kind == triton.ModelInstanceGroup.KIND_GPU
    assert config.parameters["slipway_tensorrt"].string_value == "10.14"
    assert engine.model_path == "digits/3/model.plan"
    assert list(exporting.texts(engine)) == ["digits/config.pbtxt"]


def test_openvino_gets_its_backend_and_its_precision(triton: Any) -> None:
    config = parsed(triton, like(FORM, runtime="openvino", session={"precision": "bf16"}))
    assert (config.backend, config.platform, config.max_batch_size) == ("openvino", "", 0)
    assert config.parameters["HINT_BF16"].string_value == "YES"
    assert list(config.input[0].dims) == [-1, 3, 8, 8]


def test_what_triton_has_no_word_for_is_refused() -> None:
    for wrong in (port("z", "complex64", [None, 2]), port("z", "float32", None)):
        with pytest.raises(Conflict, match="z") as caught:
            exporting.texts(like(FORM, outputs=[wrong]))
        assert caught.value.code == "not_exportable"


def test_the_same_export_has_the_same_address_and_another_one_another() -> None:
    assert exporting.digest(FORM) == exporting.digest(replace(FORM))
    assert exporting.digest(FORM) != exporting.digest(replace(FORM, device="sm90"))
    assert exporting.digest(FORM) != exporting.digest(replace(FORM, sha256="00" * 32))


def test_the_kserve_manifest_has_the_documented_fields() -> None:
    document = yaml.safe_load(exporting.manifest(replace(FORM, device="sm90"), "s3://models/digits"))
    assert (document["apiVersion"], document["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert document["metadata"] == {
        "name": "slipway-digits",
        "annotations": {
            "slipway/model": "ada/digits",
            "slipway/version": "1.2.0",
            "slipway/variant": "onnx-fp32-optimized",
            "slipway/sha256": SHA,
            "slipway/manifest-sha256": MANIFEST,
        },
    }
    assert list(document["spec"]) == ["predictor"]
    assert document["spec"]["predictor"]["model"] == {
        "modelFormat": {"name": "onnx"},
        "runtime": "kserve-tritonserver",
        "protocolVersion": "v2",
        "storageUri": "s3://models/digits",
        "resources": {
            "requests": {"cpu": "1", "memory": "7Gi"},
            "limits": {"cpu": "1", "memory": "7Gi", "nvidia.com/gpu": "1"},
        },
    }
