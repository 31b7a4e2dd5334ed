"""Writes a fitted estimator as an ONNX graph: by skl2onnx, with converters for XGBoost and LightGBM, and ends of our own.

Imported by the format at its functions' call time, in sandbox children only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from onnx import ModelProto, NodeProto, TensorProto, compose, helper
from skl2onnx import convert_sklearn, update_registered_converter
from skl2onnx._supported_operators import sklearn_operator_name_map
from skl2onnx.common import shape_calculator
from skl2onnx.common._registration import get_converter
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.ensemble import VotingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, NuSVC

from pipeline.errors import Rejected
from pipeline.estimators import Layout, last, parts
from pipeline.signature import Tensor

_OPSETS = {"": 18, "ai.onnx.ml": 3}
"""The second is the first with thresholds in double precision; what came later, no converter writes yet."""

_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "str": TensorProto.STRING}
_SCORES = "scores"
_FLAT, _COLUMN, _CLASSES = "inner/flat", "inner/column", "inner/classes"


_WORDS = r"[\p{L}\p{N}_]{2,}"
"""What scikit-learn's own pattern of a word means, for a tokenizer whose \\w knows ASCII only."""


def convert(estimator: Any, layout: Layout, *, double: bool, unicode: bool) -> ModelProto:
    """The graph as skl2onnx writes it. With `double`, inputs of numbers are doubles with names of their own.

    With `unicode` texts are cut and folded in every script, which needs the locale C.UTF-8 where the graph runs.
    """
    numbers = DoubleTensorType if double else FloatTensorType
    types = {"float32": numbers, "int64": Int64TensorType, "str": StringTensorType}
    options: dict[int, dict[str, Any]] = {}
    _teach(estimator)
    for part in parts(estimator):
        if isinstance(part, VotingClassifier):
            part.flatten_transform = False  # the only form that skl2onnx knows; predictions do not depend on it
        options |= _options(part, unicode=unicode)
    proto: ModelProto = convert_sklearn(
        estimator,
        name="model",
        initial_types=[(_inner(one, double=double), types[one.dtype](one.shape)) for one in layout.tensors()],
        options=options,
        target_opset=_OPSETS,
    )
    return proto


def dress(
    proto: ModelProto,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    *,
    estimator: Any,
    classes: Sequence[Any] | None,
) -> ModelProto:
    """The graph with our inputs and outputs: one batch axis, single precision, labels without an axis of their own.

    With `classes` the first output is the class of the largest value in the second, the first of several.
    """
    proto = compose.add_prefix(
        proto,
        "inner/",
        rename_nodes=False,
        rename_edges=False,
        rename_inputs=False,
        rename_outputs=True,
        rename_initializers=False,
        rename_value_infos=False,
        rename_functions=False,
    )
    graph = proto.graph
    if len(graph.output) < len(outputs):
        raise Rejected("conversion_failed", f"The converter writes {len(graph.output)} outputs of {len(outputs)}.")
    given = {one.name for one in graph.input}
    nodes = [
        helper.make_node("Cast", [one.name], [_inner(one, double=True)], to=TensorProto.DOUBLE)
        for one in inputs
        if one.name not in given
    ]
    nodes += graph.node
    constants = [
        helper.make_tensor(_FLAT, TensorProto.INT64, [1], [-1]),
        helper.make_tensor(_COLUMN, TensorProto.INT64, [1], [_score_column(estimator)]),
    ]
    answers = list(zip(outputs, graph.output, strict=False))
    if classes is not None:
        (label, _), (_, scores) = answers[:2]
        named: list[Any] = [one.encode() if isinstance(one, str) else int(one) for one in classes]
        constants.append(helper.make_tensor(_CLASSES, _TYPES[label.dtype], [len(named)], named))
        nodes.append(helper.make_node("ArgMax", [scores.name], ["inner/chosen"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Gather", [_CLASSES, "inner/chosen"], [label.name]))
        answers = answers[1:]
    for one, inner in answers:
        nodes += _finish(one, inner.name, cast=inner.type.tensor_type.elem_type != _TYPES[one.dtype])
    used = {name for node in nodes for name in node.input}
    dressed = helper.make_graph(
        nodes,
        "model",
        [_described(one) for one in inputs],
        [_described(one) for one in outputs],
        initializer=[*graph.initializer, *(one for one in constants if one.name in used)],
    )
    return helper.make_model(dressed, opset_imports=proto.opset_import, ir_version=proto.ir_version)


def _finish(output: Tensor, inner: str, *, cast: bool) -> list[NodeProto]:
    """The nodes from what the converter writes to what the estimator answers.

    Labels come flat, and a single score is picked from its column.
    """
    reached, nodes = inner, []
    if cast:
        reached = f"{inner}/cast"
        nodes = [helper.make_node("Cast", [inner], [reached], to=_TYPES[output.dtype])]
    if output.shape is not None and len(output.shape) == 1:
        return [*nodes, helper.make_node("Reshape", [reached, _FLAT], [output.name])]
    if output.name == _SCORES and output.shape is not None and output.shape[-1] == 1:
        return [*nodes, helper.make_node("Gather", [reached, _COLUMN], [output.name], axis=1)]
    return [*nodes, helper.make_node("Identity", [reached], [output.name])]


def _described(tensor: Tensor) -> Any:
    shape = ["batch" if size is None else size for size in tensor.shape or ()]
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], shape)


def _score_column(estimator: Any) -> int:
    """Where a converter writes the one score of a choice between two, which it writes beside its negative."""
    return 0 if isinstance(last(estimator), (SVC, NuSVC)) else -1


def _inner(tensor: Tensor, *, double: bool) -> str:
    return f"{tensor.name}_double" if double and tensor.dtype == "float32" else tensor.name


def _options(part: Any, *, unicode: bool) -> dict[int, dict[str, Any]]:
    """Plain arrays instead of lists of dictionaries, and texts folded by a locale that machines have."""
    alias = sklearn_operator_name_map.get(type(part))
    if alias is None or isinstance(part, Pipeline):  # a pipeline's would be handed on to its last step
        return {}
    allowed: Collection[str] = getattr(get_converter(alias), "get_allowed_options", dict)() or {}
    wanted: dict[str, Any] = {"zipmap": False, "locale": "C.UTF-8" if unicode else "C"}
    if unicode and isinstance(part, CountVectorizer) and part.token_pattern == CountVectorizer().token_pattern:
        wanted["tokenexp"] = _WORDS
    return {id(part): {name: value for name, value in wanted.items() if name in allowed}}


def _teach(estimator: Any) -> None:
    """Register the converters of XGBoost and LightGBM where the estimator holds one of theirs."""
    modules = {type(part).__module__.partition(".")[0] for part in parts(estimator)}
    if "xgboost" in modules:
        import xgboost
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost

        _register(xgboost.XGBClassifier, "XGBoostXGBClassifier", convert_xgboost, classifier=True)
        _register(xgboost.XGBRegressor, "XGBoostXGBRegressor", convert_xgboost, classifier=False)
    if "lightgbm" in modules:
        import lightgbm
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

        _register(lightgbm.LGBMClassifier, "LightGbmLGBMClassifier", convert_lightgbm, classifier=True)
        _register(lightgbm.LGBMRegressor, "LightGbmLGBMRegressor", convert_lightgbm, classifier=False)


def _register(kind: type, alias: str, function: Callable[..., Any], *, classifier: bool) -> None:
    shapes = (
        shape_calculator.calculate_linear_classifier_output_shapes
        if classifier
        else shape_calculator.calculate_linear_regressor_output_shapes
    )
    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]} if classifier else {"split": None}
    update_registered_converter(kind, alias, shapes, function, options=options)
