"""What makes an ONNX file canonical: one checked file of standard operators that says the same whoever wrote it.

Runs in a sandbox child on what an exporter left.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.foreign import blame
from pipeline.formats.onnx import indices, opset_of, read, real_inputs
from pipeline.stage import Json

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto


def finish(source: str, destination: str) -> Json:
    """Write the canonical form of `source`: functions inlined, shapes inferred, notes of the exporter stripped."""
    import onnx
    from onnx import inliner

    proto = read(source)
    with blame("conversion_failed", "Tidying the ONNX graph"):
        if proto.functions:
            proto = inliner.inline_local_functions(proto)
        strip(proto)
        proto = infer(proto)
        onnx.checker.check_model(proto, full_check=True)
    return {
        "opset": opset_of(proto),
        "nodes": len(proto.graph.node),
        "size": write(proto, destination),
        "inputs": [one.name for one in real_inputs(proto)],
        "outputs": [one.name for one in proto.graph.output if one.type.HasField("tensor_type")],
        "indices": indices(proto),
    }


def strip(proto: ModelProto) -> None:
    """Remove doc strings and metadata of graph and nodes: stack traces and paths of the machine that exported it."""
    proto.doc_string = ""
    del proto.metadata_props[:]
    _strip_graph(proto.graph)


def infer(proto: ModelProto) -> ModelProto:
    """Infer shapes afresh: what an earlier writer noted of inner tensors may no longer hold."""
    import onnx

    del proto.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def write(proto: ModelProto, destination: str) -> int:
    """Write the same bytes for the same graph, and give their number."""
    content = proto.SerializeToString(deterministic=True)
    return Path(destination).write_bytes(content)


def _strip_graph(graph: GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    for node in graph.node:
        _strip_node(node)


def _strip_node(node: NodeProto) -> None:
    node.doc_string = ""
    del node.metadata_props[:]
    for attribute in node.attribute:
        attribute.doc_string = ""
        for graph in [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs:
            _strip_graph(graph)
