"""ONNX files: how to know one without a magic number, and how to open one in a sandbox child."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats import Format, Glimpse
from pipeline.signature import Inspection, Tensor, class_warnings, declared_shape, example_shape, in_form, matched
from pipeline.stage import Json
from pipeline.trial import Predictor, settle

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

OLDEST_OPSET = 13
"""Below this, quantised and per-channel forms of the operators are missing."""

EXPORT_OPSET = 18
"""What exporters are asked for and older files are raised to: torch's newer exporter writes broken files below it."""

_STANDARD = ("", "ai.onnx", "ai.onnx.ml")
_RUNTIME = ("com.microsoft",)

_SAME_VALUES = ("Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Transpose")

_VARINT, _BYTES = 0, 2
_MODEL_FIELDS = {1: _VARINT, 2: _BYTES, 3: _BYTES, 4: _BYTES, 5: _VARINT, 6: _BYTES, 7: _BYTES, 8: _BYTES}
_MODEL_FIELDS |= {14: _BYTES, 20: _BYTES, 25: _BYTES, 26: _BYTES}
_IR_VERSION, _GRAPH = 1, 7
_NEWEST_IR = 1000


@in_form
def inspect(model: str, declared: Json) -> Json:
    """Check the file, read its signature, compare it with what was declared and run it once."""
    from pipeline import onnx_facts

    proto = read(model)
    opset = opset_of(proto)
    inputs = [_tensor(one) for one in real_inputs(proto)]
    outputs = [_tensor(one) for one in proto.graph.output if one.type.HasField("tensor_type")]
    if not inputs or not outputs:
        raise Rejected("no_signature", "The graph needs at least one input and one output that is a tensor.")
    names = [one.name for one in inputs]
    warnings = [] if opset >= OLDEST_OPSET else [f"Opset {opset} is old: it will be raised to {EXPORT_OPSET}."]
    warnings += [
        f"Output {one.name} is no tensor and is left out."
        for one in proto.graph.output
        if not one.type.HasField("tensor_type")
    ]
    warnings += [f"Uses operators of {one}, which only ONNX Runtime has." for one in domains(proto) if one in _RUNTIME]
    ranges = indices(proto)
    for index, one in enumerate(inputs):
        wanted = declared_shape(declared, one.name, names)
        warnings += matched(one, wanted)
        shape = one.shape if one.shape is not None else wanted
        if shape is None:
            raise Rejected("input_shape_required", f"Input {one.name} has no shape in the file: declare input_shape.")
        example = example_shape(shape, one.dtype, wanted)
        found = {"shape": list(shape), "example": example, "below": ranges.get(one.name)}
        inputs[index] = one.model_copy(update=found)
    inputs, outputs, forward, learned = settle(load(model, [], {}), inputs, outputs)
    return Inspection(
        inputs=inputs,
        outputs=outputs,
        parameters=parameters(proto),
        opset=opset,
        flops=onnx_facts.flops(proto, inputs),
        classes=onnx_facts.class_names(proto),
        notes=onnx_facts.notes(proto),
        producer=" ".join(filter(None, (proto.producer_name, proto.producer_version)))[:200] or None,
        warnings=[*warnings, *class_warnings(outputs, declared), *learned],
        forward=forward,
        exporters=["unchanged"] if opset >= OLDEST_OPSET else [f"opset{EXPORT_OPSET}", "unchanged"],
    ).model_dump()


def load(model: str, inputs: Json, declared: Json) -> Predictor:
    """Open the file in the runtime and with the settings that a variant carries, on threads that sleep when idle.

    `declared["threads"]` says how many, one where it does not; `declared["device"]` where: `cpu` (the default), or a GPU, on
    which ONNX Runtime then must really run.
    `declared["runtime"]` is `onnxruntime` or `openvino`, `declared["session"]` what is set there: `level` of graph
    optimisation (`basic`, `extended`, `all`; default `all`), or `precision` of products (`f32`, `bf16`; default: OpenVINO's).
    """
    session, threads = declared.get("session") or {}, declared.get("threads") or 1
    match declared.get("runtime") or "onnxruntime":
        case "onnxruntime":
            return _in_onnxruntime(model, threads, declared.get("device") or "cpu", **session)
        case "openvino":
            return _in_openvino(model, threads, **session)
        case runtime:
            raise Rejected("unknown_runtime", f"ONNX files do not run in {runtime!r} here.")


def _in_onnxruntime(model: str, threads: int, device: str, level: str = "all") -> Predictor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}")
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    with blame("not_loadable", "Opening the model in ONNX Runtime"):
        providers = ["CPUExecutionProvider"] if device == "cpu" else ["CUDAExecutionProvider", "CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(model, options, providers=providers)
        if session.get_providers()[0] != providers[0]:
            raise RuntimeError(f"it runs in {session.get_providers()[0]} and not on the GPU")
    names = [one.name for one in session.get_outputs() if one.type.startswith("tensor(")]
    wanted = {one.name for one in session.get_inputs()}  # exporters drop inputs that change nothing

    def predict(arrays: Any) -> dict[str, Any]:
        with blame("forward_failed", "Running the model"):
            return dict(zip(names, session.run(names, {name: arrays[name] for name in wanted}), strict=True))

    return predict


def _in_openvino(model: str, threads: int, precision: str | None = None) -> Predictor:
    import openvino

    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    settings |= {} if precision is None else {"INFERENCE_PRECISION_HINT": precision}
    with blame("not_loadable", "Opening the model in OpenVINO"):
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(model), "CPU", settings)
        request = compiled.create_infer_request()
    names = [one.get_any_name() for one in compiled.outputs]
    wanted = {one.get_any_name() for one in compiled.inputs}

    def predict(arrays: Any) -> dict[str, Any]:
        with blame("forward_failed", "Running the model"):
            found = request.infer({name: arrays[name] for name in wanted}, share_inputs=True)
            return {name: found[index].copy() for index, name in enumerate(names)}

    return predict


def export(
    model: str,
    destination: str,
    exporter: str,
    inputs: Json,
    outputs: Json,
    declared: Json,
) -> Json:
    """Write the graph as it is, or raised to `EXPORT_OPSET`."""
    import onnx
    from onnx import version_converter

    proto = read(model)
    if exporter != "unchanged":
        with blame("conversion_failed", f"Raising the opset from {opset_of(proto)} to {EXPORT_OPSET}"):
            proto = version_converter.convert_version(proto, EXPORT_OPSET)
    onnx.save_model(proto, destination)
    return {}


def read(model: str) -> ModelProto:
    """A checked model of one file: valid, nothing outside it, no operators that nobody here could run."""
    import onnx

    with blame("not_loadable", "Reading the file as ONNX"):
        proto = onnx.load_model(model, load_external_data=False)
    outside = [one.name for one in stored_tensors(proto) if one.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise Rejected(
            "external_data",
            f"{len(outside)} weights (first: {outside[0]}) lie in other files that were not uploaded. "
            "Save the model as one file: onnx.save_model(model, path, save_as_external_data=False).",
            tensors=outside[:20],
        )
    foreign = [one for one in domains(proto) if one not in (*_STANDARD, *_RUNTIME)]
    if foreign:
        raise Rejected(
            "custom_operators",
            f"The graph uses operators of {', '.join(foreign)}, which need a library of their own. Export it with "
            "standard operators only.",
            domains=foreign,
        )
    with blame("not_loadable", "The ONNX check"):
        onnx.checker.check_model(proto)
    return proto


def opset_of(proto: ModelProto) -> int:
    """The version of the standard operators, 0 where none is imported."""
    return max((one.version for one in proto.opset_import if one.domain in ("", "ai.onnx")), default=0)


def domains(proto: ModelProto) -> list[str]:
    """Domains of the operators in use, those left out that the file defines as functions."""
    own = {(one.domain, one.name) for one in proto.functions}
    bodies = [*_nodes(proto.graph.node), *_nodes(node for one in proto.functions for node in one.node)]
    return sorted({node.domain for node in bodies if (node.domain, node.op_type) not in own})


def real_inputs(proto: ModelProto) -> list[ValueInfoProto]:
    """Graph inputs that are not weights with a default."""
    weights = {one.name for one in proto.graph.initializer}
    return [one for one in proto.graph.input if one.name not in weights]


def indices(proto: ModelProto) -> dict[str, int]:
    """For each input whose values are places in a table of weights, the number of rows of the shortest such table."""
    tables = {one.name: one.dims for one in proto.graph.initializer}
    origins = {one.name: one.name for one in real_inputs(proto)}
    found: dict[str, int] = {}
    for node in proto.graph.node:
        if node.op_type in _SAME_VALUES and node.input[0] in origins:
            origins |= dict.fromkeys(node.output, origins[node.input[0]])
        if node.op_type == "Gather" and node.input[0] in tables and node.input[1] in origins:
            axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
            rows, name = tables[node.input[0]][axis], origins[node.input[1]]
            found[name] = max(1, min(rows, found.get(name, rows)))
    return found


def parameters(proto: ModelProto) -> int:
    """Number of weights stored in the graph."""
    return sum(math.prod(one.dims) for one in proto.graph.initializer)


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    for node in nodes:
        yield node
        for graph in _subgraphs(node):
            yield from _nodes(graph.node)


def _subgraphs(node: NodeProto) -> Sequence[GraphProto]:
    return [*(one.g for one in node.attribute if one.HasField("g")), *(one for a in node.attribute for one in a.graphs)]


def stored_tensors(proto: ModelProto) -> Iterator[TensorProto]:
    """Everything in the graph, its subgraphs and functions that may lie in another file."""
    nodes = list(_nodes([*proto.graph.node, *(node for one in proto.functions for node in one.node)]))
    for graph in [proto.graph, *(one for node in nodes for one in _subgraphs(node))]:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for attribute in (one for node in nodes for one in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _tensor(info: ValueInfoProto) -> Tensor:
    import numpy as np
    from onnx import helper

    kind = info.type.tensor_type
    with blame("not_loadable", f"Reading the type of {info.name}"):
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    shape = [one.dim_value if one.dim_value > 0 else None for one in kind.shape.dim]  # some write -1 or 0 for free
    name = "str" if dtype.kind in "OUS" else dtype.name
    return Tensor(name=info.name, dtype=name, shape=shape if kind.HasField("shape") else None)


def _recognises(glimpse: Glimpse) -> bool:
    """Walk the top-level protobuf fields as far as the head reaches: all must be ModelProto's, IR version among them.

    A file that ends within the head must also hold a graph.
    """
    head, position, versions, graph = glimpse.head, 0, 0, False
    while position < len(head):
        tag, position = _varint(head, position)
        value, position = _varint(head, position)
        if tag < 0 or value < 0:
            return versions == 1 and glimpse.size > len(head)
        wire = _MODEL_FIELDS.get(tag >> 3)
        if wire is None or wire != tag & 7:
            return False
        if wire == _BYTES:
            if position + value > glimpse.size:
                return False
            graph |= tag >> 3 == _GRAPH
            position += value
        elif tag >> 3 == _IR_VERSION:
            if not 1 <= value <= _NEWEST_IR:
                return False
            versions += 1
    return versions == 1 and (graph or glimpse.size > len(head)) and position <= glimpse.size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        if position + index >= len(data):
            break
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    return -1, len(data)


FORMAT = Format(
    name="onnx",
    title="ONNX",
    extensions=(".onnx",),
    recognises=_recognises,
    runtime="onnxruntime",
)
