"""Weights in int8, activations quantised as they come: for models that are mostly matrix products."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import Rejected
from pipeline.graphs import optimise
from pipeline.quantizing import Quantiser, feeds, write_quantised
from pipeline.recipes import Recipe
from pipeline.stage import Json

_FORMS = ("MatMulInteger", "DynamicQuantizeMatMul")


def make(
    source: str, destination: str, inputs: Json, calibration: str | None, keep: list[str], **options: Json
) -> Json:
    return write_quantised(
        quantiser(source, str(Path(destination).parent), inputs, calibration, **options), destination, keep
    )


def quantiser(
    source: str,
    scratch: str,
    inputs: Json,
    calibration: str | None,
    *,
    level: str,
    operators: list[str],
    per_channel: bool,
    reduce_range: bool,
) -> Quantiser:
    """Matrix products only: convolutions quantised this way run five times slower than in float.

    Weights keep seven of their eight bits (`reduce_range`), because on CPUs without VNNI the products of full bytes
    overflow sixteen bits, and a variant that was verified here must be right there too.
    """
    lean = str(Path(scratch) / "lean.onnx")
    before = optimise(source, lean, level)
    weights = {one.name for one in before.graph.initializer}
    nodes = [one.name for one in before.graph.node if one.op_type in operators and set(one.input) & weights]
    if not nodes:
        raise Rejected("nothing_to_quantise", f"The graph has no {' or '.join(operators)} with constant weights.")

    def quantise(destination: str, names: list[str]) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            lean,
            destination,
            op_types_to_quantize=operators,
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=[*names, *(f"{one}_MatMul" for one in names)],  # what it makes of a Gemm
        )

    return Quantiser(
        lean=lean, graph=before.graph, nodes=nodes, forms=_FORMS, quantise=quantise, feeds=feeds(inputs, calibration)
    )


RECIPE = Recipe(
    name="onnx-int8-dynamic",
    precision="int8",
    budget="int8",
    options={"level": "basic", "operators": ["MatMul", "Gemm"], "per_channel": True, "reduce_range": True},
    repair="onnx-mixed-dynamic",
)
