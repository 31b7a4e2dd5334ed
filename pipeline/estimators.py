"""What a fitted scikit-learn estimator takes, found in the estimator itself: columns, their types, the words it knows.

Imported by the format at its functions' call time, in sandbox children only.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from pipeline.errors import Rejected
from pipeline.signature import Tensor
from pipeline.trial import Arrays

_TEXTS = CountVectorizer, HashingVectorizer
_ENCODERS = OneHotEncoder, OrdinalEncoder, TargetEncoder
_INSIDE = "best_estimator_", "estimator_", "estimators_", "calibrated_classifiers_"
_OUTPUTS = "label", "probabilities", "scores", "distances", "prediction", "features"
"""Names that outputs have: a graph cannot call an input the same."""

_KNOWN = 50
_LONGEST = 200
_SENTENCES = 40
_NUMBERS = (
    *("coef_", "intercept_", "coefs_", "intercepts_", "support_vectors_", "dual_coef_", "cluster_centers_"),
    *("components_", "mean_", "scale_", "idf_", "means_", "covariances_", "theta_", "var_"),
)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One feature: numpy's dtype name, and the values to ask it with (`closed`: no others) where it knows some."""

    dtype: str = "float32"
    values: tuple[str, ...] = ()
    closed: bool = False
    text: bool = False

    @property
    def plain(self) -> bool:
        return self == _PLAIN

    def tensor(self, name: str) -> Tensor:
        return Tensor(
            name=name, dtype=self.dtype, shape=[None, 1], example=[1, 1], values=list(self.values), closed=self.closed
        )


_PLAIN = Column()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an estimator's one argument is spread over named tensors.

    Plain numbers are one tensor of (n, features); anything else is one tensor of (n, 1) for each column.
    """

    names: tuple[str, ...]
    columns: tuple[Column, ...]
    whole: bool = False
    """Whether the estimator takes a list of texts and no table."""

    def tensors(self) -> list[Tensor]:
        """The inputs as a model has them."""
        if self._matrix:
            width = len(self.columns)
            return [Tensor(name="X", dtype="float32", shape=[None, width], example=[1, width])]
        return [column.tensor(name) for column, name in zip(self.columns, self.names, strict=True)]

    def table(self, arrays: Arrays) -> Any:
        """What the estimator is asked with: numbers in double precision, mixed columns as objects, texts as a list."""
        if self._matrix:
            return arrays["X"].astype(np.float64)
        given = [arrays[name].reshape(-1) for name in self.names]
        if self.whole:
            return [str(one) for one in given[0]]
        if all(column.dtype == "float32" for column in self.columns):
            return np.stack(given, axis=1).astype(np.float64)
        table = np.empty((len(given[0]), len(given)), dtype=object)
        for index, one in enumerate(given):
            table[:, index] = one.tolist() if one.dtype.kind == "U" else one
        return table

    @property
    def _matrix(self) -> bool:
        return all(column.plain for column in self.columns)


def parts(estimator: Any) -> Iterator[Any]:
    """The estimator and every estimator inside it, fitted or not, each once."""
    seen: set[int] = set()
    waiting = [estimator]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, BaseEstimator):
            yield one
            waiting += vars(one).values()
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, (list, tuple)) or (isinstance(one, np.ndarray) and one.dtype == object):
            waiting += list(np.ravel(one)) if isinstance(one, np.ndarray) else one
        elif type(one).__name__ == "_CalibratedClassifier":
            waiting.append(one.estimator)


def prepare(estimator: Any) -> None:
    """Make a fitted estimator take arrays of doubles on one thread; what it answers stays the same.

    Column transformers pick their columns by number, so that nobody here needs a DataFrame, and centres of clusters are
    doubles, for their compiled code takes no others beside such inputs.
    """
    for one in parts(estimator):
        if getattr(one, "n_jobs", None) is not None:
            one.n_jobs = 1
        if isinstance(vars(one).get("cluster_centers_"), np.ndarray):
            one.cluster_centers_ = one.cluster_centers_.astype(np.float64)
        names = list(getattr(one, "feature_names_in_", ())) if isinstance(one, ColumnTransformer) else []
        if names:
            one.transformers_ = [(name, part, _numbered(picked, names)) for name, part, picked in one.transformers_]
            del one.feature_names_in_


def layout(estimator: Any, width: int | None) -> Layout:
    """The inputs of a fitted estimator; `width` is the declared number of features, used where it does not say its own.

    Call it before `prepare`, which forgets the names.
    """
    if isinstance(_front(estimator), _TEXTS):
        return Layout(names=("text",), columns=(_text(_front(estimator)),), whole=True)
    count = getattr(estimator, "n_features_in_", None) or width
    if not isinstance(count, (int, np.integer)) or not 0 < count <= 100_000:
        raise Rejected(
            "input_shape_required",
            "The estimator does not say how many features it takes. Declare input_shape, for example [-1, 20].",
        )
    columns = tuple(_columns(estimator, int(count)))
    if len(columns) > 1000 and not all(one.plain for one in columns):
        raise Rejected("unsupported_signature", f"The estimator takes {count} columns of several types; 1000 may be.")
    named = list(getattr(estimator, "feature_names_in_", getattr(_front(estimator), "feature_names_in_", ())))
    given = [str(one) for one in named] if len(named) == count else [f"x{one}" for one in range(int(count))]
    names = tuple(f"{one}_in" if one in _OUTPUTS else one for one in given)
    return Layout(names=names, columns=columns)


def parameters(estimator: Any) -> int:
    """How many numbers were learned: coefficients, centres, support vectors; of trees, their nodes."""
    total = 0
    for one in parts(estimator):
        held = vars(one)
        found = [held.get(name) for name in _NUMBERS]
        total += sum(
            array.size
            for item in found
            for array in (item if isinstance(item, list) else [item])
            if isinstance(array, np.ndarray)
        )
        tree = held.get("tree_")
        total += 0 if tree is None else int(tree.node_count)
    return total


def chain(estimator: Any) -> str:
    """The class names from input to output: `StandardScaler, LogisticRegression`."""
    steps = [one for _, one in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    return ", ".join(one if isinstance(one, str) else type(one).__name__ for one in steps)[:500]


def last(estimator: Any) -> Any:
    """The part that answers: a pipeline's last step."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def _front(estimator: Any) -> Any:
    """The part that meets the input first: through pipelines, searches and ensembles down to what looks at it."""
    for _ in range(20):
        if isinstance(estimator, Pipeline):
            steps = [one for _, one in estimator.steps if one not in (None, "passthrough")]
            inner = steps[0] if steps else None
        elif isinstance(estimator, FeatureUnion):
            inner = estimator.transformer_list[0][1]
        else:
            held = next((vars(estimator)[name] for name in _INSIDE if name in vars(estimator)), None)
            inner = held[0] if isinstance(held, list) and held else held
        if not isinstance(inner, BaseEstimator):
            return estimator
        estimator = inner
    return estimator


def _columns(estimator: Any, count: int) -> Sequence[Column]:
    front = _front(estimator)
    if isinstance(estimator, Pipeline) and isinstance(front, SimpleImputer):
        return _columns(Pipeline(estimator.steps[1:]), count) if len(estimator.steps) > 1 else [_PLAIN] * count
    if isinstance(front, _TEXTS):
        return [_text(front)] * count
    if isinstance(front, _ENCODERS) and len(front.categories_) == count:
        closed = getattr(front, "handle_unknown", "error") == "error"
        return [_category(one, closed=closed) for one in front.categories_]
    if isinstance(front, ColumnTransformer):
        found = [_PLAIN] * count
        named = list(getattr(front, "feature_names_in_", ()))
        for _, part, picked in front.transformers_:
            places = [int(one) for one in np.ravel(np.arange(count)[_numbered(picked, named)])]
            inner = _columns(part, len(places)) if isinstance(part, BaseEstimator) else [_PLAIN] * len(places)
            for place, column in zip(places, inner, strict=True):
                if found[place].plain:
                    found[place] = column
        return found
    return [_PLAIN] * count


def _numbered(picked: Any, names: list[str]) -> Any:
    """A choice of columns with names replaced by places."""
    if isinstance(picked, str):
        return names.index(picked)
    if isinstance(picked, (list, tuple, np.ndarray)):
        return [names.index(one) if isinstance(one, str) else one for one in picked]
    if isinstance(picked, slice) and isinstance(picked.start or picked.stop, str):
        start = None if picked.start is None else names.index(picked.start)
        stop = None if picked.stop is None else names.index(picked.stop) + 1
        return slice(start, stop, picked.step)
    return picked


def _category(known: Any, *, closed: bool) -> Column:
    """The column behind an encoder: what it was fitted on says of which type it is."""
    said = [one for one in np.ravel(known)[: 10 * _KNOWN].tolist() if one is not None and one == one]  # noqa: PLR0124 - NaN
    values = tuple(str(one) for one in said if len(str(one)) <= _LONGEST)[:_KNOWN]
    if all(isinstance(one, str) for one in said):
        return Column(dtype="str", values=values, closed=closed)
    if all(isinstance(one, int) for one in said):
        return Column(dtype="int64", values=values, closed=closed)
    return Column(dtype="float32", values=values, closed=closed)


def _text(vectorizer: Any) -> Column:
    """Sentences of words that the vectoriser knows, the same each time."""
    known = sorted(str(one) for one in getattr(vectorizer, "vocabulary_", ()) if len(str(one)) <= 20)
    rng = random.Random(len(known))  # noqa: S311 - sentences, not secrets
    count = _SENTENCES if known else 0
    values = tuple(" ".join(rng.choices(known, k=rng.randint(1, 8)))[:_LONGEST] for _ in range(count))
    return Column(dtype="str", values=values, text=True)
