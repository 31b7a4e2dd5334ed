"""safetensors files: named tensors and no code. The header is read here, strictly, before any library opens the file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats import Format, Glimpse
from pipeline.formats.checkpoint import export_module, inspect_weights, names_architecture, needs
from pipeline.signature import Inspection, Tensor, in_form
from pipeline.stage import Json
from pipeline.trial import Predictor

if TYPE_CHECKING:
    import torch

MAX_HEADER = 100_000_000
_SMALLEST = 10
_LISTED = 1000
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "C64": 64}
_BITS |= {"I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8}

UNSERVABLE = (
    "A safetensors file holds weights without the network that uses them: it is stored and described, not served. "
    "To serve the model, upload it as .onnx (torch.onnx.export) or .pt2 (torch.export.save), or name the network as "
    "architecture in the config."
)


@in_form
def inspect(model: str, declared: Json) -> Json:
    """List the tensors; refuse the file where header and bytes do not account for each other to the last byte."""
    header, space = _header(Path(model))
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(one, str) for one in notes.values()):
        raise _malformed("__metadata__ must map texts to texts")
    spans = sorted((*_span(name, one), name) for name, one in header.items())
    reached = 0
    for start, end, name in spans:
        if start != reached:
            raise _malformed(f"tensor {name} {'overlaps the one before it' if start < reached else 'follows a hole'}")
        reached = end
    if reached != space:
        raise _malformed(f"the tensors take {reached} bytes, the file has room for {space}")
    if names_architecture(declared):
        return inspect_weights(_tensors(model), declared, producer=_producer(notes), classes=[], notes={}, warnings=[])
    listed = [Tensor(name=name[:1000], dtype=one["dtype"], shape=one["shape"]) for name, one in header.items()]
    warnings = [f"{len(listed)} tensors, of which {_LISTED} are listed."] if len(listed) > _LISTED else []
    return Inspection(
        tensors=listed[:_LISTED],
        parameters=sum(math.prod(one["shape"]) for one in header.values()),
        producer=_producer(notes),
        warnings=warnings,
        unservable=UNSERVABLE,
    ).model_dump()


def load(model: str, inputs: Json, declared: Json) -> Predictor:
    """Build the network that the config names, for running on arrays."""
    from pipeline.torch_models import named_call, predictor

    names = [Tensor.of(one).name for one in inputs]
    return predictor(named_call(_module(model, declared), names), names)


def export(model: str, destination: str, exporter: str, inputs: Json, outputs: Json, declared: Json) -> Json:
    """Write ONNX with the newer exporter, or trace the network for the older one."""
    return export_module(_module(model, declared), destination, exporter, inputs, outputs)


def _module(model: str, declared: Json) -> torch.nn.Module:
    from pipeline.architectures import declared_architecture, network

    architecture = declared_architecture(declared)
    if architecture is None:
        raise Rejected("unservable", UNSERVABLE)
    return network(architecture, _tensors(model))[0]


def _tensors(model: str) -> Mapping[str, torch.Tensor]:
    from safetensors.torch import load_file

    with blame("not_loadable", "Reading the tensors"):
        tensors: Mapping[str, torch.Tensor] = load_file(model)
    return tensors


def _producer(notes: Mapping[str, str]) -> str | None:
    return str(notes.get("format", ""))[:100] or None


def _header(path: Path) -> tuple[dict[str, Any], int]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < _SMALLEST or not 2 <= length <= min(MAX_HEADER, size - 8):
            raise _malformed("the header's length is out of bounds")
        raw = stream.read(length)
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"the header is no JSON ({error})") from error
    if not isinstance(header, dict) or not raw.startswith(b"{"):
        raise _malformed("the header is no JSON object")
    return header, size - 8 - length


def _span(name: str, entry: Any) -> tuple[int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _malformed(f"tensor {name} must have dtype, shape and data_offsets, and nothing else")
    shape, offsets = entry["shape"], entry["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or any(type(one) is not int or not 0 <= one < 1 << 40 for one in numbers):
            raise _malformed(f"tensor {name} has a shape or offsets that are no sizes")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _BITS:
        raise _malformed(f"tensor {name} is of unknown type {entry['dtype']!r}")
    bits = math.prod(shape) * _BITS[entry["dtype"]]
    if len(offsets) != 2 or bits % 8 or offsets[1] - offsets[0] != bits // 8:
        raise _malformed(
            f"tensor {name} of shape {shape} and type {entry['dtype']} does not fill its offsets {offsets}"
        )
    return offsets[0], offsets[1]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _malformed(flaw: str) -> Rejected:
    return Rejected("not_loadable", f"Not a valid safetensors file: {flaw[:500]}.")


def _recognises(glimpse: Glimpse) -> bool:
    length = int.from_bytes(glimpse.head[:8], "little")
    bounded = glimpse.size >= _SMALLEST and 2 <= length <= min(MAX_HEADER, glimpse.size - 8)
    return bounded and glimpse.head[8:9] == b"{"


FORMAT = Format(
    name="safetensors",
    title="safetensors",
    extensions=(".safetensors",),
    recognises=_recognises,
    unservable=lambda declared: None if names_architecture(declared) else UNSERVABLE,
    extra=needs,
    runtime="torch",
)
