"""scikit-learn estimators in a pickle or joblib file, XGBoost's and LightGBM's wrappers among them.

Opening one runs what it names: that is done in a sandbox child, after the scan has judged every name.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import Rejected
from pipeline.foreign import blame
from pipeline.formats import Format, Glimpse
from pipeline.signature import Inspection, Tensor, class_warnings, declared_shape, in_form, matched
from pipeline.stage import Json
from pipeline.trial import Arrays, Predictor, settle

if TYPE_CHECKING:
    from pipeline.estimators import Layout

_LABEL, _PROBABILITIES, _SCORES, _DISTANCES = "label", "probabilities", "scores", "distances"
_PREDICTION, _FEATURES = "prediction", "features"
_PROTOCOLS = range(2, 6)
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_BEGINNING = 64
"""Bytes of a pickle that are looked at."""


@in_form
def inspect(model: str, declared: Json) -> Json:
    """Open the estimator, read what it takes and decides from what it has learned, run it once."""
    from pipeline.estimators import chain, parameters

    estimator, notes, warnings = _open(model)
    layout = _layout(estimator, declared)
    inputs = layout.tensors()
    names = [one.name for one in inputs]
    for one in inputs:
        warnings += matched(one, declared_shape(declared, one.name, names))
    inputs, outputs, forward, learned = settle(_predictor(estimator, layout), inputs, [])
    with blame("not_loadable", "Describing the estimator"):
        classes = [str(one)[:1000] for one in getattr(estimator, "classes_", ())]
        learned_numbers, steps, exporters = parameters(estimator), chain(estimator), _exporters(estimator, inputs)
    return Inspection(
        inputs=inputs,
        outputs=outputs,
        parameters=learned_numbers or None,
        classes=classes,
        notes={**notes, "estimator": steps},
        producer=" ".join(("scikit-learn", notes["scikit-learn"])) if "scikit-learn" in notes else "scikit-learn API",
        warnings=[*warnings, *class_warnings(outputs, declared), *learned],
        forward=forward,
        exporters=exporters,
    ).model_dump()


def load(model: str, inputs: Json, declared: Json) -> Predictor:
    """Open the estimator for running on arrays; it answers in single precision, as ONNX will."""
    estimator, _, _ = _open(model)
    return _predictor(estimator, _layout(estimator, declared))


def export(model: str, destination: str, exporter: str, inputs: Json, outputs: Json, declared: Json) -> Json:
    """Write ONNX with skl2onnx. `double` computes in double precision between inputs and outputs in single.

    `votes` does so too and takes the label from the probabilities as scikit-learn does, the first of the largest: where
    the votes of trees tie, ONNX's own rule is another, and in single precision their sums are. `unicode` reads texts in
    every script, where the others know the letters of ASCII.
    """
    import onnx

    from pipeline.estimator_graphs import convert, dress

    estimator, _, _ = _open(model)
    layout = _layout(estimator, declared)
    classes = estimator.classes_.tolist() if exporter == "votes" else None
    with blame("conversion_failed", "Conversion by skl2onnx"):
        proto = convert(estimator, layout, double=exporter in ("double", "votes"), unicode=exporter == "unicode")
        given, wanted = ([Tensor.of(one) for one in described] for described in (inputs, outputs))
        onnx.save_model(dress(proto, given, wanted, estimator=estimator, classes=classes), destination)
    return {}


def _open(model: str) -> tuple[Any, dict[str, str], list[str]]:
    """The estimator, versions worth noting, and warnings about versions that differ."""
    import os
    import sys
    import warnings

    import joblib
    import sklearn
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
    from sklearn.utils.validation import check_is_fitted

    from pipeline.estimators import parts

    os.environ["OMP_NUM_THREADS"] = "1"  # XGBoost and LightGBM are imported by the pickle, and read it then
    with warnings.catch_warnings(record=True) as heard, blame("not_loadable", "Opening the pickle"):
        warnings.simplefilter("always")
        estimator = joblib.load(model)
    if not isinstance(estimator, BaseEstimator):
        raise Rejected(
            "no_estimator",
            f"The file holds {_named(estimator)}, not an estimator. Save the fitted estimator or pipeline itself: "
            "joblib.dump(pipeline, path).",
            found=type(estimator).__name__,
        )
    try:
        with blame("not_loadable", "Looking at what the estimator has learned"):
            check_is_fitted(estimator)
    except Rejected as refusal:
        if isinstance(refusal.__cause__, NotFittedError):
            raise Rejected("not_fitted", "The estimator was saved before it was fitted: it knows nothing.") from refusal
        raise
    with blame("not_loadable", "Looking at the parts of the estimator"):
        modules = {type(part).__module__.partition(".")[0] for part in parts(estimator)}
    notes: dict[str, str] = {
        name: str(sys.modules[name].__version__) for name in ("lightgbm", "xgboost") if name in modules
    }
    differing = [one.message for one in heard if isinstance(one.message, InconsistentVersionWarning)]
    if differing:
        saved, named = (str(one)[:100] for one in (differing[0].original_sklearn_version, differing[0].estimator_name))
        warning = f"Saved by scikit-learn {saved} and opened by {sklearn.__version__}: {named} may answer differently."
        return estimator, {**notes, "scikit-learn": saved}, [warning]
    return estimator, {**notes, **({"scikit-learn": sklearn.__version__} if "sklearn" in modules else {})}, []


def _layout(estimator: Any, declared: Mapping[str, Json]) -> Layout:
    """What the estimator takes; afterwards it is ready to be asked."""
    from pipeline.estimators import layout, prepare

    said = declared_shape(declared, "X", ["X"]) if isinstance(declared.get("input_shape"), list) else None
    with blame("no_signature", "Reading what the estimator takes"):
        found = layout(estimator, said[-1] if said else None)
        prepare(estimator)
    return found


def _predictor(estimator: Any, layout: Layout) -> Predictor:
    with blame("no_signature", "Looking for what the estimator can be asked"):
        answers = _answers(estimator)

    def predict(arrays: Arrays) -> dict[str, Any]:
        with blame("forward_failed", "Running the model"):
            table = layout.table(arrays)
            return {name: _plain(name, ask(table)) for name, ask in answers.items()}

    return predict


def _answers(estimator: Any) -> dict[str, Callable[[Any], Any]]:
    """What the estimator is asked for, by the name of the output."""
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector

    if is_classifier(estimator) or hasattr(estimator, "predict_proba"):
        scores = {_PROBABILITIES: "predict_proba", _SCORES: "decision_function"}
        name = next((one for one, method in scores.items() if hasattr(estimator, method)), None)
        return {_LABEL: estimator.predict} | ({} if name is None else {name: getattr(estimator, scores[name])})
    if is_outlier_detector(estimator) and hasattr(estimator, "predict"):
        return {_LABEL: estimator.predict, _SCORES: estimator.decision_function}
    if is_clusterer(estimator) and hasattr(estimator, "predict"):
        more = {_DISTANCES: estimator.transform} if hasattr(estimator, "transform") else {}
        return {_LABEL: estimator.predict} | more
    if hasattr(estimator, "predict"):
        return {_PREDICTION: estimator.predict}
    if hasattr(estimator, "transform"):
        return {_FEATURES: estimator.transform}
    raise Rejected("no_signature", f"{type(estimator).__name__} can neither predict nor transform.")


def _plain(name: str, found: Any) -> Any:
    """An answer as ONNX gives it: labels as texts or int64, numbers as float32 with an axis of their own."""
    import numpy as np

    if isinstance(found, list):
        raise Rejected("unsupported_signature", "Estimators that decide several things at once are not supported.")
    array = np.asarray(found.toarray() if hasattr(found, "toarray") else found)
    if name == _LABEL:
        if array.dtype.kind == "f" and (array != np.trunc(array)).any():
            raise Rejected("unsupported_signature", "The classes are fractions: use whole numbers or names.")
        return array.astype(str if array.dtype.kind in "OUS" else np.int64)
    return (array.reshape(-1, 1) if array.ndim == 1 else array).astype(np.float32)


def _exporters(estimator: Any, inputs: Sequence[Tensor]) -> list[str]:
    from sklearn.ensemble import BaggingClassifier, ExtraTreesClassifier, RandomForestClassifier, VotingClassifier
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.tree import DecisionTreeClassifier

    from pipeline.estimators import last, parts

    voting = BaggingClassifier, DecisionTreeClassifier, ExtraTreesClassifier, RandomForestClassifier, VotingClassifier
    numbers = any(one.dtype == "float32" for one in inputs)
    ways = {
        "unicode": any(isinstance(part, CountVectorizer) for part in parts(estimator)),
        "single": True,
        "double": numbers,
        "votes": numbers and isinstance(last(estimator), voting) and hasattr(estimator, "predict_proba"),
    }
    return [name for name, fits in ways.items() if fits]


def _named(found: Any) -> str:
    """What a pickle holds instead of an estimator, as a noun phrase."""
    if isinstance(found, (dict, list, tuple, set)):
        return f"a {type(found).__name__} of {len(found)}"
    return f"a {type(found).__module__.partition('.')[0]} {type(found).__name__}"[:200]


def _recognises(glimpse: Glimpse) -> bool:
    """A pickle of protocol 2 or later, as it is or in the zlib or gzip stream that joblib writes."""
    head = glimpse.head
    if head[:1] == b"\x78" or head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(wbits=47).decompress(head, _BEGINNING)
        except zlib.error:
            return False
    pickled = len(head) > 2 and head[0] == 0x80 and head[1] in _PROTOCOLS
    return pickled and not head.startswith(_TORCH_MAGIC, 2)


FORMAT = Format(
    name="sklearn",
    title="scikit-learn",
    extensions=(".joblib", ".pkl"),
    recognises=_recognises,
)
