"""The workbench on which a graph is quantised, wholly or in part, and its layers are tried one by one. Runs in sandbox children.

A recipe brings a `Quantiser`; everything around it is the same for all: samples, tidying, facts, sensitivity.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.canonical import infer, strip, write
from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats.onnx import load, opset_of
from pipeline.graphs import layers, shares
from pipeline.signature import Tensor
from pipeline.stage import Json
from pipeline.trial import draw, read

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

Feeds = Sequence[Mapping[str, Any]]

_BATCH, _SAMPLES, _ASKED = 8, 128, 64
"""Samples are taken in batches of 8, up to 128 of them, and where there are enough not the first 64: verification asks those."""

_SEEDS = (1001, 1002)
"""Of drawn samples; verification draws from others."""

_TRIED = 2
"""Batches that the sensitivity of a layer is measured on."""

_MOST_LAYERS = 40
"""Layers tried one by one; of deeper models neighbours are tried together."""


@dataclass(frozen=True, kw_only=True)
class Quantiser:
    """A graph ready to be quantised.

    `lean`: the file in float and its `graph`. `nodes`: names of those that may be quantised. `forms`: the operators
    by which a quantised graph is known. `quantise(destination, names)` quantises the nodes of these names, `finish`
    has the last word over the graph. `feeds`: samples of the inputs.
    """

    lean: str
    graph: GraphProto
    nodes: Sequence[str]
    forms: Sequence[str]
    quantise: Callable[[str, list[str]], None]
    feeds: Feeds
    finish: Callable[[ModelProto], None] | None = None


class Reader:
    """Samples in the form that ONNX Runtime's calibration takes them: one after the other, then None."""

    def __init__(self, samples: Feeds) -> None:
        self._left = iter(samples)

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._left, None)

    def __len__(self) -> int:
        raise TypeError("samples are read one after the other")


def feeds(inputs: Json, calibration: str | None) -> Feeds:
    """Batches of the user's samples, or of drawn ones where there is no calibration file."""
    tensors = [Tensor.of(one) for one in inputs]
    free = any(one.batched for one in tensors)
    size = _BATCH if free else next((one.example[0] for one in tensors if one.example), 1)
    if calibration is None:
        return [draw(tensors, batch=size, kind=kind, seed=seed) for seed in _SEEDS for kind in ("normal", "uniform")]
    given = _matching(tensors, read(calibration))
    count = min(len(one) for one in given.values())
    first = _ASKED if count >= 2 * _ASKED else 0
    last = min(count, first + _SAMPLES)
    if last - first < size:
        raise Rejected("calibration_mismatch", f"The calibration file holds {count} samples: {size} are needed.")
    return [
        {one.name: given[one.name][start : start + size].astype(one.dtype) for one in tensors}
        for start in range(first, last - size + 1, size)
    ]


def write_quantised(quantiser: Quantiser, destination: str, keep: Collection[str]) -> Json:
    """Write the graph with every node quantised that may be, except those of `keep`. Facts: the number of both."""
    import onnx

    raw = str(Path(destination).with_name("quantised.onnx"))
    logging.getLogger().setLevel(logging.ERROR)  # it advises to prepare the graph first, which was done
    names = [one for one in quantiser.nodes if one not in set(keep)]
    with blame("optimization_failed", "Quantising"):
        quantiser.quantise(raw, names)
        after = onnx.load_model(raw)
        strip(after)
        if quantiser.finish is not None:
            quantiser.finish(after)
        after = infer(after)
        size = write(after, destination)
    if not any(one.op_type in quantiser.forms for one in after.graph.node):
        raise Rejected("nothing_to_quantise", "Nothing in the graph could be quantised.")
    return {"size": size, "opset": opset_of(after), "quantised": len(names), "of": len(quantiser.nodes)}


def bare_outputs(proto: ModelProto) -> None:
    """Let products that end the graph answer in float: what eight bits would take from scores costs no time to keep."""
    made_by = {name: node for node in proto.graph.node for name in node.output}
    readers: dict[str, int] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for output in proto.graph.output:
        last = made_by.get(output.name)
        rounding = made_by.get(last.input[0]) if last is not None and last.op_type == "DequantizeLinear" else None
        product = made_by.get(rounding.input[0]) if rounding is not None else None
        if product is None or rounding is None or rounding.op_type != "QuantizeLinear":
            continue
        inner = rounding.input[0]
        alone = readers[inner] == readers[rounding.output[0]] == 1 and readers.get(output.name, 0) == 0
        if product.op_type in ("Gemm", "MatMul") and alone:
            product.output[0] = output.name
            proto.graph.node.remove(rounding)
            proto.graph.node.remove(last)


_bench: dict[str, Any] = {}
"""What a child holds between calls: the `quantiser` and its `scratch` folder."""


def open_bench(*, module: str, source: str, scratch: str, inputs: Json, calibration: str | None, options: Json) -> Json:
    """In the child: make the quantiser of a recipe's module, to be tried several times."""
    quantiser = importlib.import_module(module).quantiser(source, scratch, inputs, calibration, **options)
    _bench.update(quantiser=quantiser, inputs=inputs, scratch=Path(scratch))
    return {}


def build(destination: str, keep: list[str]) -> Json:
    """In the child: write the graph with `keep` in float; the same bytes as the recipe's `make` would write."""
    return write_quantised(_bench["quantiser"], destination, keep)


def rank() -> Json:
    """In the child: the layers, the most sensitive first.

    `error` is how far the outputs go off when this layer alone is quantised, relative to their RMS; `time` the share
    of the running time in float.
    """
    quantiser: Quantiser = _bench["quantiser"]
    samples = quantiser.feeds[:_TRIED]
    scratch = _bench["scratch"]
    spent = shares(quantiser.lean, samples, scratch)
    expected = _answers(quantiser.lean, samples)
    found = layers(quantiser.graph, set(quantiser.nodes))
    together = max(1, math.ceil(len(found) / _MOST_LAYERS))
    ranked: list[dict[str, Any]] = []
    for number, first in enumerate(range(0, len(found), together)):
        group = found[first : first + together]
        names = [node for one in group for node in one.nodes]
        trial = str(scratch / f"trial-{number}.onnx")
        others = set(quantiser.nodes) - set(names)
        try:
            write_quantised(quantiser, trial, others)
            error = _distance(expected, _answers(trial, samples))
        except Rejected as refusal:
            if refusal.code != "nothing_to_quantise":
                raise
            error = 0.0
        Path(trial).unlink(missing_ok=True)
        time = sum(spent.get(one, 0.0) for one in names)
        ranked.append({"name": group[0].name, "nodes": names, "error": error, "time": min(1.0, time)})
    return {"layers": sorted(ranked, key=_sensitivity)}


def _sensitivity(layer: Mapping[str, Any]) -> tuple[float, str]:
    return -layer["error"], layer["name"]


def _matching(tensors: Sequence[Tensor], given: Mapping[str, Any]) -> dict[str, Any]:
    """The array of each input; of a single input any whose samples have its shape, whatever it is called."""
    if len(tensors) == 1 and tensors[0].name not in given:
        wanted = (tensors[0].shape or [])[1:]
        fitting = [
            one
            for one in given.values()
            if one.ndim == len(wanted) + 1
            and all(size in (None, found) for size, found in zip(wanted, one.shape[1:], strict=True))
        ]
        given = {tensors[0].name: fitting[0]} if fitting else {}
    missing = [one.name for one in tensors if one.name not in given]
    if missing:
        raise Rejected("calibration_mismatch", f"The calibration file holds no array for input {', '.join(missing)}.")
    return {one.name: given[one.name] for one in tensors}


def _answers(model: str, samples: Feeds) -> list[dict[str, Any]]:
    predict = load(model, [], {})
    return [predict(one) for one in samples]


def _distance(expected: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> float:
    """The worst relative RMS error of an output; of one with several axes, the mean over its channels (axis 1)."""
    import numpy as np

    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        for left, right in zip(one.values(), other.values(), strict=True):
            if left.dtype.kind != "f" or not left.size:
                worst = max(worst, float((left != right).mean()) if left.size else 0.0)
                continue
            a, b = (each.astype(np.float64) for each in (left, right))
            axes = tuple(axis for axis in range(a.ndim) if axis != 1) if a.ndim > 2 else None
            scale, off = np.square(a).mean(axis=axes), np.square(a - b).mean(axis=axes)
            error = float(np.sqrt(off / np.maximum(scale, np.finfo(np.float32).tiny)).mean())
            worst = max(worst, error if math.isfinite(error) else 1e9)
    return worst
