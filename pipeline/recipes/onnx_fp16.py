"""Weights and arithmetic in half precision: half the size, and on GPUs half the time. Inputs and outputs stay as they are."""

from __future__ import annotations

import warnings
from pathlib import Path

from pipeline.canonical import infer, strip, write
from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats.onnx import opset_of
from pipeline.graphs import optimise
from pipeline.recipes import Recipe
from pipeline.stage import Json

_FLOAT16 = 10  # TensorProto.FLOAT16


def make(source: str, destination: str, inputs: Json, calibration: str | None, keep: list[str], level: str) -> Json:
    """`onnxruntime.transformers.float16`, which keeps in float what has no half-precision form."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    lean = optimise(source, str(Path(destination).with_name("lean.onnx")), level)
    with blame("optimization_failed", "Converting to half precision"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of weights that half precision clips; verification judges them
        after = convert_float_to_float16(lean, keep_io_types=True, node_block_list=keep)
        strip(after)
        size = write(infer(after), destination)
    halved = sum(one.data_type == _FLOAT16 for one in after.graph.initializer)
    if not halved:
        raise Rejected("nothing_to_halve", "The graph has no weights in float.")
    return {"size": size, "opset": opset_of(after), "halved": halved}


RECIPE = Recipe(name="onnx-fp16", precision="fp16", budget="fp16", options={"level": "basic"})
