"""A variant in the forms that other servers take: a Triton model repository, and a KServe manifest that names it. Pure.

Sources: Triton's `model_config.proto` and the READMEs of its ONNX Runtime, TensorRT and OpenVINO backends; KServe's API
`serving.kserve.io/v1beta1`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.selection import CPU
from pipeline.signature import Tensor
from registry.errors import Conflict

ONNXRUNTIME, OPENVINO, TENSORRT = "onnxruntime", "openvino", "tensorrt"
CONFIG, LABELS = "config.pbtxt", "labels.txt"
_FILES = {ONNXRUNTIME: "model.onnx", OPENVINO: "model.onnx", TENSORRT: "model.plan"}
"""Under which name a backend looks for the model."""
_LEVELS = {"basic": -1, "extended": 1}
"""Graph optimisation as Triton's ONNX Runtime backend counts it; left out, it does all there is."""
_TYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
    "str": "STRING",
}
_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Form:
    """A variant of a version and where it is to run: `device` is `cpu` or a GPU's architecture (`sm90`).

    `sha256`, `size` (bytes) and `meta` are its artifact's, `manifest` is the digest of the manifest that names it,
    `largest_batch` what the model is meant for, `classes` are in the order of the scores.
    """

    owner: str
    model: str
    version: str
    ordinal: int
    variant: str
    device: str
    sha256: str
    size: int
    manifest: str
    meta: Mapping[str, Any]
    classes: tuple[str, ...]
    largest_batch: int

    @property
    def runtime(self) -> str:
        return str(self.meta.get("runtime", ONNXRUNTIME))

    @property
    def name(self) -> str:
        """What Triton calls the model: its name in the letters that folders and addresses may have."""
        return re.sub(r"[^0-9A-Za-z._-]+", "-", self.model).strip("-.") or "model"

    @property
    def model_path(self) -> str:
        """Where the model's file lies in the repository."""
        return f"{self.name}/{self.ordinal}/{_FILES[self.runtime]}"

    @property
    def origin(self) -> dict[str, str]:
        """Where it comes from, for whoever finds it elsewhere."""
        return {
            "model": f"{self.owner}/{self.model}",
            "version": self.version,
            "variant": self.variant,
            "sha256": self.sha256,
            "manifest_sha256": self.manifest,
        }


def texts(form: Form) -> dict[str, bytes]:
    """The files of the repository beside the model itself, by path; that of the settings is the last.

    Raises `Conflict("not_exportable")` for a type or shape that Triton has no word for.
    """
    labels = {f"{form.name}/{LABELS}": _labels(form.classes)} if _labelled(form) is not None else {}
    return labels | {f"{form.name}/{CONFIG}": "".join(f"{line}\n" for line in _lines(settings(form))).encode()}


def digest(form: Form) -> str:
    """Hex SHA-256 of all that the repository holds: the same export has the same address."""
    held = [form.model_path, form.sha256, *(f"{path}\0{content.decode()}" for path, content in texts(form).items())]
    return hashlib.sha256("\0".join(held).encode()).hexdigest()


def settings(form: Form) -> dict[str, Any]:
    """Triton's `ModelConfig`, field by field."""
    inputs, outputs = (_tensors(form, side) for side in ("inputs", "outputs"))
    batch = _largest_batch(form, inputs, outputs)
    level = _LEVELS.get((form.meta.get("session") or {}).get("level", "all")) if form.runtime == ONNXRUNTIME else None
    platform = {ONNXRUNTIME: {"platform": "onnxruntime_onnx"}, TENSORRT: {"platform": "tensorrt_plan"}}
    labelled = _labelled(form)
    return {
        "name": form.name,
        **platform.get(form.runtime, {}),
        "backend": form.runtime,
        "default_model_filename": _FILES[form.runtime],
        "version_policy": {"specific": {"versions": [form.ordinal]}},
        "max_batch_size": batch,
        "input": [_port(form, one, batch) for one in inputs],
        "output": [
            _port(form, one, batch) | ({"label_filename": LABELS} if one.name == labelled else {}) for one in outputs
        ],
        "instance_group": [{"kind": _Word("KIND_CPU" if form.device == CPU else "KIND_GPU"), "count": 1}],
        **({"optimization": {"graph": {"level": level}}} if level is not None else {}),
        **({"dynamic_batching": {}} if batch > 1 else {}),
        "parameters": [{"key": key, "value": {"string_value": value}} for key, value in _parameters(form).items()],
    }


def manifest(form: Form, storage_uri: str) -> str:
    """KServe's `InferenceService` over a Triton repository that lies at `storage_uri`, as YAML."""
    gpu = {} if form.device == CPU else {"nvidia.com/gpu": "1"}
    memory = f"{1 + -(-2 * form.size // _GIB)}Gi"  # the file, as much again for the runtime, and the server itself
    document = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": re.sub(r"[^a-z0-9]+", "-", f"slipway-{form.model}".lower())[:53].strip("-"),
            "annotations": {f"slipway/{key.replace('_', '-')}": value for key, value in form.origin.items()},
        },
        "spec": {
            "predictor": {
                "model": {
                    "modelFormat": {"name": "onnx" if form.runtime == ONNXRUNTIME else "triton"},
                    "runtime": "kserve-tritonserver",
                    "protocolVersion": "v2",
                    "storageUri": storage_uri,
                    "resources": {
                        "requests": {"cpu": "1", "memory": memory},
                        "limits": {"cpu": "1", "memory": memory, **gpu},
                    },
                }
            }
        },
    }
    return "".join(f"{line}\n" for line in _yaml(document))


class _Word(str):
    """A value of an enumeration: written without quotes."""

    __slots__ = ()


def _tensors(form: Form, side: str) -> list[Tensor]:
    found = [Tensor.of(one) for one in form.meta[side]]
    for one in found:
        if one.dtype not in _TYPES:
            raise _beyond(f"{one.name} is of type {one.dtype}")
        if one.shape is None and not one.example:
            raise _beyond(f"nobody knows how many axes {one.name} has")
    return found


def _beyond(why: str) -> Conflict:
    return Conflict("not_exportable", f"Triton has no settings for this variant: {why}. Serve it here.")


def _shape(form: Form, one: Tensor) -> list[int]:
    """Sizes as Triton counts them, -1 for any; of an engine those that it was built for."""
    shape = one.shape if one.shape is not None else [None] * len(one.example)
    span = _spans(form).get(one.name)
    if span is not None:
        shape = [low if low == high else None for low, high in zip(span[0], span[-1], strict=True)]
    return [-1 if size is None else size for size in shape]


def _spans(form: Form) -> Mapping[str, Sequence[Sequence[int]]]:
    """Of an engine's inputs: the smallest, the usual and the largest shape."""
    found: Mapping[str, Any] = (form.meta.get("options") or {}).get("profile") or {}
    return found


def _largest_batch(form: Form, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
    """Triton's `max_batch_size`: 0 where the first axes are not one batch that any size will do for.

    A first axis that came out of a trial with another size than went in counts something else, such as boxes found.
    OpenVINO's backend takes no batch but the largest (its README, known issues), so its first axis is an axis like others.
    """
    ports = [*inputs, *outputs]
    sizes = {one.example[0] for one in ports if one.example}
    if form.runtime == OPENVINO or not all(one.batched for one in ports) or len(sizes) > 1:
        return 0
    return min([form.largest_batch, *(span[-1][0] for span in _spans(form).values())])


def _port(form: Form, one: Tensor, batch: int) -> dict[str, Any]:
    shape = _shape(form, one)[1 if batch else 0 :]
    said = {"name": one.name, "data_type": _Word(f"TYPE_{_TYPES[one.dtype]}"), "dims": shape or [1]}
    return said if shape else said | {"reshape": {"shape": []}}  # Triton's protocol knows no scalar


def _labelled(form: Form) -> str | None:
    """The output whose last axis is the classes', where there is one."""
    outputs = [Tensor.of(one) for one in form.meta["outputs"]]
    fitting = (
        one.name
        for one in outputs
        if one.dtype.startswith(("float", "bfloat")) and one.shape and one.shape[-1] == len(form.classes)
    )
    return next(fitting, None) if form.classes else None


def _labels(classes: Sequence[str]) -> bytes:
    """A line for each: a line break in a name is a space."""
    return "".join(f"{' '.join(one.splitlines())}\n" for one in classes).encode()


def _parameters(form: Form) -> dict[str, str]:
    said = {f"slipway_{key}": value for key, value in form.origin.items()}
    if form.runtime == TENSORRT:  # an engine opens with the TensorRT that built it, and no other
        said["slipway_tensorrt"] = str((form.meta.get("toolchain") or {}).get("tensorrt", "unknown"))
    if (form.meta.get("session") or {}).get("precision") == "bf16":
        said["HINT_BF16"] = "YES"
    return said


def _lines(message: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A message in protobuf's text format."""
    for field, value in message.items():
        many = isinstance(value, list) and value and isinstance(value[0], Mapping)
        for one in value if many else [value]:
            match one:
                case Mapping():
                    yield f"{indent}{field} {{"
                    yield from _lines(one, f"{indent}  ")
                    yield f"{indent}}}"
                case list():
                    yield f"{indent}{field}: [{', '.join(_scalar(each) for each in one)}]"
                case _:
                    yield f"{indent}{field}: {_scalar(one)}"


def _scalar(value: int | str) -> str:
    if isinstance(value, _Word | int):
        return str(value)
    shown = (chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:03o}" for byte in value.encode())
    return f'"{"".join(shown)}"'


def _yaml(document: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Objects of objects and texts; a JSON text is one of YAML's."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _yaml(value, f"{indent}  ")
        else:
            yield f"{indent}{key}: {json.dumps(value)}"
