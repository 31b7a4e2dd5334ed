"""What a model's outputs say: the predictions and how sure they are, one label, and a digest to compare two variants by."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline import detections
from pipeline.decisions import rows as scores_of
from serving.protocol.request import Request
from serving.protocol.signature import Signature
from serving.protocol.tensors import Array

_ROUNDING = 1e-3
_EVEN = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One prediction per row. `decided` where each is a class, a label or boxes, and not just a value.

    `confidence` works out, where that can be told, how sure each is: from 0 to 1.
    """

    predictions: Any
    confidence: Callable[[], Array] | None = None
    decided: bool = False


def answered(signature: Signature, request: Request, outputs: Mapping[str, Array]) -> Answer:
    """Boxes of a detector, labels where the model gives them, the best class, yes or no; else the first output as it is."""
    decided = None if signature.task == "values" else _decided(signature, _rows(request), outputs)
    if decided is not None:
        return decided
    first = next(iter(outputs.values()), np.empty(0))
    return Answer(predictions=first if first.ndim else first.reshape(1))


def _decided(signature: Signature, count: int, outputs: Mapping[str, Array]) -> Answer | None:
    arrays = list(outputs.values())
    layout = detections.find(outputs, signature.task, len(signature.classes))
    if layout is not None:
        return Answer(predictions=_boxes(signature, layout, outputs), decided=True)
    scores = _scores(signature, arrays, count)
    best = None if scores is None else lambda: _probabilities(signature, scores).max(axis=1)
    labels = next((one for one in arrays if _labelled(one, count)), None)
    if labels is not None:
        said = [_called(signature, one) for one in labels.reshape(-1).tolist()]
        return Answer(predictions=said, confidence=best, decided=True)
    if scores is not None:
        return Answer(predictions=_named(signature, scores.argmax(axis=1)), confidence=best, decided=True)
    several = next((one for one in arrays if _floats(one, count) > 1), None)
    if several is not None and signature.task == "multilabel":
        yes = _yes(signature, several) > _EVEN
        return Answer(predictions=[_named(signature, np.flatnonzero(one)) for one in yes], decided=True)
    single = next((one for one in arrays if _floats(one, count) == 1), None)
    if single is not None and (len(signature.classes) == 2 or signature.task == "classification"):
        sure = _yes(signature, single.reshape(-1))
        chosen = _named(signature, (sure > _EVEN).astype(int))
        return Answer(predictions=chosen, confidence=lambda: np.maximum(sure, 1 - sure), decided=True)
    return None


def label(signature: Signature, request: Request, outputs: Mapping[str, Array]) -> str | None:
    """The decision for a request of one row; None where there are more rows, or nothing is decided."""
    said = answered(signature, request, outputs)
    if not said.decided or len(said.predictions) != 1 or isinstance(said.predictions[0], list):
        return None
    return str(said.predictions[0])


def decision(signature: Signature, request: Request, outputs: Mapping[str, Array]) -> str:
    """16 hexadecimal digits, the same wherever all rows are decided alike, or all values agree in three digits."""
    said = answered(signature, request, outputs)
    digest = hashlib.blake2b(digest_size=8)
    if said.decided:
        for one in said.predictions:
            digest.update(f"{_gist(one)}\0".encode())
    else:
        for name, array in outputs.items():
            digest.update(f"{name} {array.shape}\0".encode())
            digest.update(_rounded(array))
    return digest.hexdigest()


def _rows(request: Request) -> int:
    if request.rows is not None:
        return request.rows
    first = next(iter(request.arrays.values()), None)
    return len(first) if first is not None and first.ndim > 1 else 1


def _scores(signature: Signature, arrays: list[Array], count: int) -> Array | None:
    """The output that chooses between classes, as (rows, classes): as wide as there are class names, if one is."""
    found = []
    width = len(signature.classes)
    for one in arrays:
        if one.dtype.kind != "f":
            continue
        array = one.reshape(1, -1) if one.ndim == 1 and count == 1 and one.size == width else one
        scores = scores_of(array, signature.task, width)
        if scores is not None and len(scores) == count:
            if scores.shape[1] == width:
                return np.asarray(scores)
            found.append(scores)
    return found[0] if found else None


def _labelled(array: Array, count: int) -> bool:
    kinds = array.dtype.kind in "OUS" or (array.dtype.kind in "iu" and array.dtype.itemsize > 1)
    return kinds and array.shape in ((count,), (count, 1))


def _floats(array: Array, count: int) -> int:
    """How many floats there are for each row, 0 where the output is no such table."""
    if array.dtype.kind != "f" or not 1 <= array.ndim <= 2 or len(array) != count:
        return 0
    return 1 if array.ndim == 1 else array.shape[1]


def _probabilities(signature: Signature, scores: Array) -> Array:
    """The scores as they are where they are probabilities, else their softmax."""
    scores = scores.astype(np.result_type(scores, np.float32), copy=False)
    said = signature.scores
    if said is None and scores.min(initial=0) >= 0:
        said = "probabilities" if np.abs(scores.sum(axis=1) - 1).max(initial=0) < _ROUNDING else None
    if said == "probabilities":
        return scores
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _yes(signature: Signature, scores: Array) -> Array:
    """How likely each yes is: the scores where they lie between 0 and 1, else their sigmoid."""
    said = signature.scores or (
        "probabilities" if scores.min(initial=0) >= 0 and scores.max(initial=1) <= 1 else "logits"
    )
    return scores if said == "probabilities" else _EVEN * (1 + np.tanh(scores / 2))


def _named(signature: Signature, places: Array) -> list[str | int]:
    names = signature.classes
    return [names[one] if 0 <= one < len(names) else one for one in places.tolist()]


def _called(signature: Signature, value: Any) -> str | int:
    """A label as it is; a number that is no class name itself is the place of one."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, int) and str(value) not in signature.classes and 0 <= value < len(signature.classes):
        return signature.classes[value]
    return value if isinstance(value, int) else str(value)


def _boxes(signature: Signature, layout: detections.Layout, outputs: Mapping[str, Array]) -> list[list[Any]]:
    """For each picture the boxes that are sure enough, best first, in the model's own pixels."""
    found = []
    for image in detections.boxes(layout, outputs):
        likely = image[image[:, 4] >= detections.CONFIDENT]
        kept = likely if layout.finished else detections.suppress(likely)
        names = _named(signature, kept[:, 5].astype(int))
        found.append(
            [
                {"box": box, "class": name, "confidence": sure}
                for box, name, sure in zip(kept[:, :4].tolist(), names, kept[:, 4].tolist(), strict=True)
            ]
        )
    return found


def _gist(prediction: Any) -> str:
    """A prediction as a text that says what is decided, and not how surely or where exactly."""
    if not isinstance(prediction, list):
        return str(prediction)
    counted = Counter(str(one["class"] if isinstance(one, dict) else one) for one in prediction)
    return ",".join(f"{name}×{number}" for name, number in sorted(counted.items()))


def _rounded(array: Array) -> bytes:
    """Values to three significant digits; what is no number counts as itself."""
    if array.dtype.kind in "OUS":
        return "\0".join(map(str, array.ravel().tolist())).encode()
    if array.dtype.kind != "f":
        return np.ascontiguousarray(array).astype(np.int64).tobytes()
    values = array.astype(np.float64).ravel()
    finite = np.isfinite(values) & (values != 0)
    exponents = np.zeros(values.shape)
    np.log10(np.abs(values), out=exponents, where=finite)
    power = 10.0 ** (np.floor(exponents) - 2)
    rounded = np.where(finite, np.rint(values / power) * power, np.where(values == 0, 0.0, values))
    return rounded.astype(np.float32).tobytes()
