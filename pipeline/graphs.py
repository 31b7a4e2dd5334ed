"""What may be done to an ONNX graph before it is quantised, and what must be known of it. Runs in sandbox children."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.canonical import infer, strip, write
from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats.onnx import domains, read

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators that models spend their time in."""

_FEW_WEIGHTS = 64
"""A product with no more constant weights than this decodes something (a detector's box distribution), and learns nothing."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A product and what follows it up to the next ones, by the names of the nodes."""

    name: str
    nodes: tuple[str, ...]


def optimise(source: str, destination: str, level: str) -> ModelProto:
    """Fold, fuse and drop what the graph can do without, give each node a name of its own, and write the file.

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
        _name(after.graph)
        after = infer(after)
        write(after, destination)
    return after


def tail(graph: GraphProto) -> set[str]:
    """Names of the nodes past the last product on every way to an output.

    There a detector decodes boxes and puts them into one tensor with the scores of classes. On one scale of eight bits
    boxes of some hundred pixels leave nothing of scores below one, while the tensor as a whole hardly changes.
    """
    weights = {one.name: math.prod(one.dims) for one in graph.initializer}
    wanted: set[str] = set()
    past = set()
    for node in reversed(graph.node):
        constant = max((weights[name] for name in node.input if name in weights), default=_FEW_WEIGHTS + 1)
        if (node.op_type in PRODUCTS and constant > _FEW_WEIGHTS) or wanted & set(node.output):
            wanted.update(node.input)
        else:
            past.add(node.name)
    return past


def layers(graph: GraphProto, quantised: set[str]) -> list[Layer]:
    """The nodes of `quantised` as layers, in the order of the graph."""
    place: dict[str, int] = {}
    names, found = ["the inputs"], [list[str]()]
    for node in graph.node:
        here = max((place.get(one, 0) for one in node.input), default=0)
        if node.op_type in PRODUCTS:
            names.append(node.name)
            found.append([])
            here = len(found) - 1
        place |= dict.fromkeys(node.output, here)
        if node.name in quantised:
            found[here].append(node.name)
    return [Layer(name=name, nodes=tuple(nodes)) for name, nodes in zip(names, found, strict=True) if nodes]


def shares(model: str, feeds: Sequence[Mapping[str, Any]], scratch: Path) -> dict[str, float]:
    """The share of the running time that each node has, by name, as ONNX Runtime's profiler saw it at level `basic`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_profiling = True
    options.profile_file_prefix = str(scratch / "profile")
    with blame("optimization_failed", "Profiling the graph"):
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for feed in feeds:
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    taken: dict[str, float] = {}
    for event in events:
        name = event["name"].removesuffix("_kernel_time")
        if event.get("cat") == "Node" and name != event["name"]:
            taken[name] = taken.get(name, 0.0) + event["dur"]
    total = sum(taken.values()) or 1.0
    return {name: one / total for name, one in taken.items()}


def _name(graph: GraphProto) -> None:
    seen: set[str] = set()
    for number, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{number}"
            while node.name in seen:
                node.name += "_"
        seen.add(node.name)


def _drop_imports(proto: ModelProto) -> None:
    """Drop operator sets that the optimiser declares and the graph does not use."""
    used = set(domains(proto))
    unused = [one for one in proto.opset_import if one.domain not in used and one.domain not in ("", "ai.onnx")]
    for one in unused:
        proto.opset_import.remove(one)
