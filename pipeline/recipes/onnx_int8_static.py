"""Weights and activations in int8 with ranges found beforehand on samples: for models that are mostly convolutions."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import Rejected
from pipeline.graphs import PRODUCTS, optimise, tail
from pipeline.quantizing import Quantiser, Reader, bare_outputs, feeds, write_quantised
from pipeline.recipes import Recipe
from pipeline.stage import Json

_FORMS = ("QuantizeLinear",)


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
    """QDQ with unsigned activations, 2.6 times as fast as signed ones on CPUs with VNNI, and ranges from the extremes.

    Weights keep seven of their eight bits (`reduce_range`), because on CPUs without VNNI the products of full bytes
    overflow sixteen bits, and a variant that was verified here must be right there too. The graph's tail stays in float.
    """
    lean, ranges = str(Path(scratch) / "lean.onnx"), Path(scratch) / "ranges.json"
    before = optimise(source, lean, level)
    past = tail(before.graph)
    nodes = [one.name for one in before.graph.node if one.op_type in operators and one.name not in past]
    if not any(one.op_type in PRODUCTS for one in before.graph.node if one.name in nodes):
        raise Rejected("nothing_to_quantise", f"The graph has none of {', '.join(PRODUCTS)}.")
    samples = feeds(inputs, calibration)

    def quantise(destination: str, names: list[str]) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

        quantize_static(
            lean,
            destination,
            None if ranges.exists() else Reader(samples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=operators,
            per_channel=per_channel,
            reduce_range=reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=names,
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=ranges,
        )

    return Quantiser(
        lean=lean,
        graph=before.graph,
        nodes=nodes,
        forms=_FORMS,
        quantise=quantise,
        feeds=samples,
        finish=bare_outputs,
    )


RECIPE = Recipe(
    name="onnx-int8-static",
    precision="int8",
    budget="int8",
    options={
        "level": "basic",
        "operators": [
            *("Add", "AveragePool", "Concat", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul"),
            *("MaxPool", "Mul", "Pad", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze"),
            *("Transpose", "Unsqueeze"),
        ],
        "per_channel": True,
        "reduce_range": True,
    },
    calibrated=True,
    repair="onnx-mixed-static",
)
