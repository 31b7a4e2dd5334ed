"""How variants are made from the canonical ONNX file. A recipe is a value; its function runs in a sandbox child.

Whether a variant may be used is not decided here: every one is verified against the canonical file afterwards.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.canonical import infer, strip, write
from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats.onnx import domains, opset_of, read
from pipeline.stage import Json

if TYPE_CHECKING:
    from onnx import ModelProto

_TOOLS = ("numpy", "onnx", "onnxruntime", "onnxscript", "onnxslim", "protobuf", "torch")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to a variant: the variant's name, its precision (a key of `BUDGETS`), the function and its options."""

    name: str
    precision: str
    function: str
    options: Mapping[str, Json] = field(default_factory=dict)


RECIPES = (
    Recipe(
        name="onnx-fp32-optimized",
        precision="fp32",
        function=f"{__name__}:optimize_graph",
        options={"level": "basic"},
    ),
    Recipe(
        name="onnx-int8-dynamic",
        precision="int8",
        function=f"{__name__}:quantize_dynamically",
        options={"operators": ["MatMul", "Gemm"], "per_channel": True, "reduce_range": True},
    ),
)


@functools.cache
def toolchain() -> Mapping[str, str]:
    """Versions of everything that shapes the bytes of a variant, without importing any of it."""
    return {"python": platform.python_version(), "machine": platform.machine()} | {one: version(one) for one in _TOOLS}


def optimize_graph(source: str, destination: str, level: str) -> Json:
    """Fold, fuse and drop what the graph can do without.

    onnxslim, then ONNX Runtime at level `basic`: that one keeps to standard operators, while the higher levels write
    operators of ONNX Runtime's own or a memory layout made for the very CPU that did it. What those levels bring, the
    runtime still does for itself when it loads the file.
    """
    import onnx
    import onnxruntime
    import onnxslim

    scratch = Path(destination).parent
    before = read(source)
    slimmed, ordered = str(scratch / "slimmed.onnx"), str(scratch / "ordered.onnx")
    with blame("optimization_failed", "Slimming the graph"):
        onnx.save_model(onnxslim.slim(before), slimmed)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
    options.optimized_model_filepath = ordered
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with blame("optimization_failed", "Optimising the graph"):
        onnxruntime.InferenceSession(slimmed, options, providers=["CPUExecutionProvider"])
        after = read(ordered)
        new = set(domains(after)) - set(domains(before))
        if new:
            raise Rejected("optimization_failed", f"The optimiser brought in operators of {', '.join(sorted(new))}.")
        _drop_imports(after)
        strip(after)
        return {"size": write(infer(after), destination), "opset": opset_of(after)}


def quantize_dynamically(
    source: str, destination: str, operators: list[str], *, per_channel: bool, reduce_range: bool
) -> Json:
    """Store weights in int8 and quantise activations as they come.

    Matrix products only: convolutions quantised this way run five times slower than in float. Weights keep seven of
    their eight bits (`reduce_range`), because on CPUs without VNNI the products of full bytes overflow sixteen bits,
    and a variant that was verified here must be right there too.
    """
    import logging

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    lean = str(Path(destination).with_name("lean.onnx"))
    optimize_graph(source, lean, "basic")
    before = read(lean)
    if not any(node.op_type in operators for node in before.graph.node):
        raise Rejected("nothing_to_quantise", f"The graph has none of {', '.join(operators)}.")
    raw = str(Path(destination).with_name("quantised.onnx"))
    logging.getLogger().setLevel(logging.ERROR)  # it advises to prepare the graph first, which was just done
    with blame("optimization_failed", "Quantising"):
        quantize_dynamic(
            lean,
            raw,
            op_types_to_quantize=operators,
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
        )
        after = onnx.load_model(raw)
        strip(after)
        size = write(infer(after), destination)
    changed = sum(node.op_type in ("MatMulInteger", "DynamicQuantizeMatMul") for node in read(destination).graph.node)
    if not changed:
        raise Rejected("nothing_to_quantise", "No product in the graph has constant weights.")
    return {"size": size, "opset": opset_of(after), "quantised": changed}


def _drop_imports(proto: ModelProto) -> None:
    """Drop operator sets that the optimiser declares and the graph does not use."""
    used = set(domains(proto))
    unused = [one for one in proto.opset_import if one.domain not in used and one.domain not in ("", "ai.onnx")]
    for one in unused:
        proto.opset_import.remove(one)
