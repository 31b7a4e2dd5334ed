"""What an ONNX graph says of itself besides its inputs and outputs: its work, its class names, who wrote it and for what.

Runs in sandbox children. Whatever cannot be told is left out: nothing here refuses a model.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.signature import Tensor

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TypeProto

_CLASS_KEYS = ("names", "classes", "class_names", "labels")
_NOTED_KEYS = ("task", "stride", "imgsz", "batch", "version", "license", "description", "author", "date")
_MOST_CLASSES = 100_000
_SMALL = 1024
"""Values that an initializer may have to be looked into: shapes are small, weights are not."""

_CONVOLUTIONS = {"Conv": (0, 1), "ConvInteger": (0, 1), "QLinearConv": (0, 3), "FusedConv": (0, 1)}
_PRODUCTS = {"MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3)}
"""Operator → where among its inputs the data and the weights stand."""


def flops(proto: ModelProto, inputs: Sequence[Tensor]) -> int | None:
    """Floating-point operations of all convolutions and products for the example inputs, at a batch of one.

    One multiplication and addition count as two. None where a shape cannot be inferred, or the work hides in a loop.
    """
    shapes = _shapes(proto, inputs)
    total = 0
    for node in proto.graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            return None
        try:
            total += _work(node, shapes)
        except (KeyError, IndexError):
            return None
    return total


def class_names(proto: ModelProto) -> list[str]:
    """Names in the order of the scores: from the metadata, as ultralytics writes it, or from a classifier's labels."""
    properties = {one.key: one.value for one in proto.metadata_props}
    for key in _CLASS_KEYS:
        if names := _listed(properties.get(key, "")):
            return names
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "classlabels_strings" and attribute.strings:
                return [one.decode("utf-8", "replace")[:1000] for one in attribute.strings[:_MOST_CLASSES]]
            if attribute.name in {"classlabels_int64s", "classlabels_ints"} and attribute.ints:
                return [str(one) for one in attribute.ints[:_MOST_CLASSES]]
    return []


def notes(proto: ModelProto) -> dict[str, str]:
    """Versions, free axes and what the exporter wrote into the metadata."""
    properties = {one.key: one.value for one in proto.metadata_props}
    found = {"ir_version": str(proto.ir_version)}
    found |= {f"opset of {one.domain}": str(one.version) for one in proto.opset_import if one.domain}
    axes = [f"{one.name}: {said}" for one in proto.graph.input if (said := _free_axes(one.type))]
    found |= {"free axes": "; ".join(axes)} if axes else {}
    found |= {key: properties[key] for key in _NOTED_KEYS if properties.get(key)}
    return {key[:1000]: value[:1000] for key, value in list(found.items())[:100]}


def _free_axes(kind: TypeProto) -> str:
    sizes = kind.tensor_type.shape.dim if kind.HasField("tensor_type") else ()
    return ", ".join(f"{axis} ({one.dim_param or '?'})" for axis, one in enumerate(sizes) if one.dim_value <= 0)


def _listed(text: str) -> list[str]:
    """A list of names, or a mapping of their numbers to them without a gap, in JSON or as Python writes it."""
    if not text:
        return []
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        try:
            found = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return []
    if isinstance(found, Mapping):
        numbered = {str(key): name for key, name in found.items()}
        if set(numbered) != {str(number) for number in range(len(numbered))}:
            return []
        found = [numbered[str(number)] for number in range(len(numbered))]
    fits = isinstance(found, Sequence) and not isinstance(found, str) and len(found) <= _MOST_CLASSES
    return [str(one)[:1000] for one in found] if fits else []


def _shapes(proto: ModelProto, inputs: Sequence[Tensor]) -> dict[str, list[int]]:
    """Every tensor whose shape is known once the inputs have theirs. Large weights take no part: only their shapes do."""
    import onnx
    from onnx import helper

    graph = onnx.GraphProto(name="shapes", node=proto.graph.node, output=proto.graph.output)
    examples = {one.name: one.sized(1) for one in inputs}
    stored = {one.name: one for one in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in examples:
            kind = value.type.tensor_type.elem_type
            graph.input.append(helper.make_tensor_value_info(value.name, kind, examples[value.name]))
    for name, one in stored.items():
        if math.prod(one.dims) <= _SMALL:
            graph.initializer.append(one)
        else:
            graph.input.append(helper.make_tensor_value_info(name, one.data_type, one.dims))
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")  # what was written there may hold for another batch
    bare = onnx.ModelProto(graph=graph, opset_import=proto.opset_import, functions=proto.functions)
    bare.ir_version = max(proto.ir_version, 4)  # before that, initializers are no inputs of their own
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    except onnx.shape_inference.InferenceError:
        return {}
    known = {name: list(one.dims) for name, one in stored.items()}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        sizes = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(one.HasField("dim_value") for one in sizes):
            known[value.name] = [one.dim_value for one in sizes]
    return known


def _work(node: NodeProto, shapes: Mapping[str, list[int]]) -> int:
    """Operations of one node. Raises `KeyError` or `IndexError` where a shape it takes is not known."""
    if node.op_type in _CONVOLUTIONS:
        weights = shapes[node.input[_CONVOLUTIONS[node.op_type][1]]]
        return 2 * math.prod(shapes[node.output[0]]) * math.prod(weights[1:])
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type in _PRODUCTS:
        shared = shapes[node.input[_PRODUCTS[node.op_type][0]]][-1]
        return 2 * math.prod(shapes[node.output[0]]) * shared
    if node.op_type == "Gemm":
        first = shapes[node.input[0]]
        transposed = any(one.name == "transA" and one.i for one in node.attribute)
        return 2 * math.prod(shapes[node.output[0]]) * first[0 if transposed else 1]
    if node.op_type in {"LSTM", "GRU", "RNN"}:
        steps = math.prod(shapes[node.input[0]][:2])  # times batch, whichever of them stands first
        return sum(2 * steps * math.prod(shapes[node.input[index]]) for index in (1, 2))
    return 0
