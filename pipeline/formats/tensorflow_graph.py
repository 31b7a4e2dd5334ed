"""Frozen TensorFlow graphs (`.pb`): operators and constants in one message, run only in a sandbox child."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats import Format, Glimpse
from pipeline.formats.onnx import EXPORT_OPSET
from pipeline.signature import in_form
from pipeline.stage import Json
from pipeline.trial import Predictor

_INPUTS = ("Placeholder", "PlaceholderWithDefault")
_NO_OUTPUTS = ("Const", "NoOp", "Assert", *_INPUTS)
_FIRST_NODE = re.compile(
    rb"\x0a[\x80-\xff]{0,4}[\x00-\x7f]\x0a([\x01-\x7f])([A-Za-z0-9.][\w.\\/>-]*)\x12([\x01-\x7f])([A-Za-z]\w*)"
)
"""How a GraphDef begins: with a node, which begins with its name and its operator, each after its length."""


@in_form
def inspect(model: str, declared: Json) -> Json:
    """Read the graph, find what goes in and comes out, compare it with what was declared and run it once."""
    from pipeline.tensorflow_models import described, plain, tensor

    graph = _read(model)
    function, inputs, _ = _opened(graph, declared)
    produced = graph.versions.producer
    return described(
        _predictor(graph, declared),
        [tensor(plain(name), one) for name, one in zip(inputs, function.inputs, strict=True)],
        declared,
        producer=f"TensorFlow GraphDef {produced}" if produced else "TensorFlow",
        parameters=sum(_sizes(graph)),
        notes={"operators": str(len(graph.node))},
    )


def load(model: str, inputs: Json, declared: Json) -> Predictor:
    """Open the graph for running on arrays."""
    return _predictor(_read(model), declared)


def export(model: str, destination: str, exporter: str, inputs: Json, outputs: Json, declared: Json) -> Json:
    """Fold constants and write the graph with tf2onnx."""
    from pipeline.tensorflow_models import plain, tensorflow, write_onnx

    graph = _read(model)
    given, wanted = _ends(graph, declared)
    tf = tensorflow()
    with blame("conversion_failed", "Tidying the graph"):
        from tf2onnx.tf_loader import tf_optimize

        with tf.Graph().as_default():
            graph = tf_optimize(given, wanted, graph)
    write_onnx(
        destination,
        names={one: plain(one) for one in (*given, *wanted)},
        opset=EXPORT_OPSET,
        graph=graph,
        input_names=given,
        output_names=wanted,
    )
    return {}


def _read(model: str) -> Any:
    from pipeline.tensorflow_models import tensorflow

    with blame("not_loadable", "Reading the graph"):
        graph: Any = tensorflow().compat.v1.GraphDef.FromString(Path(model).read_bytes())
    variables = [node.name for node in graph.node if node.op in {"VarHandleOp", "Variable", "VariableV2"}]
    if variables:
        raise Rejected(
            "not_frozen",
            f"The graph has {len(variables)} variables (first: {variables[0][:200]}) whose values are not in the file. "
            "Freeze it, or upload the SavedModel as .zip.",
        )
    return graph


def _opened(graph: Any, declared: Json) -> tuple[Any, list[str], list[str]]:
    from pipeline.tensorflow_models import tensorflow

    tf = tensorflow()
    given, wanted = _ends(graph, declared)
    with blame("not_loadable", "Opening the graph"):
        whole = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
        return whole.prune(given, wanted), given, wanted


def _predictor(graph: Any, declared: Json) -> Predictor:
    from pipeline.tensorflow_models import plain, runner

    function, given, wanted = _opened(graph, declared)
    return runner(function, [plain(one) for one in given], [plain(one) for one in wanted])


def _ends(graph: Any, declared: Json) -> tuple[list[str], list[str]]:
    """Names of the tensors that go in and come out: as the config says, else placeholders and what nobody reads."""
    config = declared.get("config") or {}
    read = {name.lstrip("^").partition(":")[0] for node in graph.node for name in node.input}
    given = [node.name for node in graph.node if node.op in _INPUTS]
    wanted = [node.name for node in graph.node if node.name not in read and node.op not in _NO_OUTPUTS]
    found = _declared(config, "inputs") or given, _declared(config, "outputs") or wanted
    known = {node.name for node in graph.node}
    for kind, names in zip(("inputs", "outputs"), found, strict=True):
        unknown = [name for name in names if name.partition(":")[0] not in known]
        if unknown or not names:
            what = f"no node is called {', '.join(unknown)[:300]}" if unknown else "the graph has none"
            raise Rejected("no_signature", f"The {kind}: {what}. Name them as `{kind}` in the config, a list of nodes.")
    return [_full(name) for name in found[0]], [_full(name) for name in found[1]]


def _declared(config: Json, key: str) -> list[str]:
    said = config.get(key) or []
    if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
        raise Rejected("no_signature", f"`{key}` in the config must be a list of names of nodes.")
    return said


def _full(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _sizes(graph: Any) -> Iterator[int]:
    """Sizes of the floating constants: in a frozen graph these are the weights."""
    for node in graph.node:
        value = node.attr["value"].tensor if node.op == "Const" else None
        if value is not None and value.dtype in {1, 2, 14, 19}:  # DT_FLOAT, DT_DOUBLE, DT_BFLOAT16, DT_HALF
            yield math.prod(one.size for one in value.tensor_shape.dim)


def _recognises(glimpse: Glimpse) -> bool:
    found = _FIRST_NODE.match(glimpse.head)
    if found is None:
        return False
    name_length, name, operator_length, operator = found.groups()
    return len(name) >= name_length[0] and len(operator) >= operator_length[0]


FORMAT = Format(
    name="tensorflow_graph",
    title="frozen TensorFlow graph",
    extensions=(".pb",),
    recognises=_recognises,
    extra="tensorflow",
    runtime="tensorflow",
)
