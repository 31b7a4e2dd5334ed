"""What a model decides, read off its outputs: classes, their ranks, labels, yes or no. Pure arithmetic on arrays.

A comparison answers with one *lead* per decision: negative where both agree, else how far the reference prefers its own
decision to the other's. What counts as a tie is up to whoever knows the scale of the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_AGREED = -1.0
_TOP = 5

_TASKS = {
    "classification": ("classify", "imageclassification", "textclassification", "multiclass", "binary"),
    "multilabel": ("multilabelclassification",),
    "detection": ("detect", "objectdetection", "segment", "instancesegmentation", "pose", "obb"),
    "segmentation": ("semanticsegmentation", "imagesegmentation"),
    "tokens": ("tokenclassification", "ner", "textgeneration", "languagemodeling", "fillmask"),
    "values": ("regression", "embedding", "featureextraction", "sentencesimilarity", "transformer", "imagetoimage"),
}
"""What is decided, by the names that people and frameworks have for it (letters only). `values` decide nothing."""


def task_of(said: object) -> str | None:
    """The task that a config or a file names, None where it names none that is known here."""
    if not isinstance(said, str):
        return None
    word = "".join(one for one in said.lower() if one.isalpha())
    return next((task for task, names in _TASKS.items() if word in (task, *names)), None)


@dataclass(kw_only=True)
class Count:
    """Decisions counted as they come."""

    compared: int = 0
    leads: list[Any] = field(default_factory=list)

    def add(self, leads: Any) -> None:
        """Take in one lead per decision."""
        self.compared += leads.size
        self.leads.append(leads[leads >= 0])

    def told(self, margin: float) -> dict[str, int]:
        """The counts, where a difference is a tie if the reference's own decision leads by no more than `margin`."""
        differ = sum(one.size for one in self.leads)
        ties = sum(int((one <= margin).sum()) for one in self.leads)
        return {
            "compared": self.compared,
            "agreed": self.compared - differ,
            "ties": ties,
            "flips": differ - ties,
        }


def decide(reference: Any, candidate: Any, *, margin: float) -> dict[str, int]:
    """Compare decisions: the largest of each row of scores, or each value where there are no scores (one axis)."""
    count = Count()
    count.add(labels(reference, candidate) if reference.ndim == 1 else choices(reference, candidate))
    return count.told(margin)


def labels(reference: Any, candidate: Any) -> Any:
    """Leads of labels, one per value: labels that differ are never a tie."""
    import numpy as np

    return np.where(reference == candidate, _AGREED, np.inf).reshape(-1)


def choices(reference: Any, candidate: Any) -> Any:
    """Leads of the largest score in each row of (n, classes)."""
    import numpy as np

    rows = np.arange(len(reference))
    chosen, other = reference.argmax(axis=1), candidate.argmax(axis=1)
    return np.where(chosen == other, _AGREED, reference[rows, chosen] - reference[rows, other])


def signs(reference: Any, candidate: Any, threshold: float) -> Any:
    """Leads of yes or no, one per value: yes is above `threshold`."""
    import numpy as np

    agreed = (reference > threshold) == (candidate > threshold)
    return np.where(agreed, _AGREED, np.abs(reference - threshold)).reshape(-1)


def ranks(reference: Any, candidate: Any) -> tuple[int, Any, Any]:
    """How many best classes are looked at in each row of (n, classes), and the leads of their set and of their order.

    A class out of place leads by what the reference gives the one that belongs there over the one that is there.
    """
    import numpy as np

    width = reference.shape[1]
    top = min(_TOP, width // 2)
    best, other = (np.argsort(-one, axis=1, kind="stable")[:, :top] for one in (reference, candidate))
    mine, theirs = (np.take_along_axis(reference, one, axis=1) for one in (best, other))
    same = (np.sort(best, axis=1) == np.sort(other, axis=1)).all(axis=1)
    short = (mine - -np.sort(-theirs, axis=1)).max(axis=1, initial=0.0)
    moved = np.abs(mine - theirs).max(axis=1, initial=0.0)
    ordered = (best == other).all(axis=1)
    return top, np.where(same, _AGREED, short), np.where(ordered, _AGREED, moved)


def rows(array: Any, task: str | None, classes: int) -> Any:
    """The array as rows of scores (n, classes), or None where it holds no choice between classes.

    With more than two axes the classes must be known by their number or by the task.
    """
    import numpy as np

    if task in ("values", "detection", "multilabel"):
        return None
    if array.ndim == 2:
        return array if array.shape[1] > 1 else None
    if array.ndim < 2:
        return None
    if task == "tokens" or (classes > 1 and array.shape[-1] == classes):
        return array.reshape(-1, array.shape[-1])
    if (task == "segmentation" and array.shape[1] > 1) or (classes > 1 and array.shape[1] == classes):
        return np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])
    return None


def single(array: Any, task: str | None) -> bool:
    """Whether every value is a yes or no of its own: one score per sample, or several that do not exclude each other."""
    if task in ("values", "detection", "segmentation", "tokens"):
        return False
    if task == "multilabel":
        return bool(array.ndim == 2)
    return bool(array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1))


def correct(outputs: Mapping[str, Any], known: Any, classes: list[str], task: str | None) -> int | None:
    """How many predictions are those of the user's labels `known`, None where no output can be compared with them."""
    if task in ("values", "detection", "multilabel"):
        return None
    for one in outputs.values():
        if one.dtype.kind in "iuUb" and one.dtype.itemsize > 1 and one.size == known.size:
            return int((one.reshape(-1).astype(str) == known.reshape(-1).astype(str)).sum())
    for one in outputs.values():
        if one.dtype.kind not in "fiu":
            continue
        found = _predicted(one, task, len(classes))
        if found is not None and found.size == known.size:
            return int((found == _indices(known, classes)).sum())
    return None


def _predicted(array: Any, task: str | None, classes: int) -> Any:
    scores = rows(array, task, classes)
    if scores is not None:
        return scores.argmax(axis=1)
    if single(array, task):
        threshold = 0.5 if array.size and array.min() >= 0 and array.max() <= 1 else 0.0
        return (array.reshape(-1) > threshold).astype(int)
    return None


def _indices(known: Any, classes: list[str]) -> Any:
    """Labels as places among the classes: names are looked up, whole numbers are places unless they are names."""
    import numpy as np

    flat = known.reshape(-1)
    if flat.dtype.kind in "iub":
        return flat.astype(int)
    places = {name: place for place, name in enumerate(classes)}
    return np.array([places.get(str(one), -1) for one in flat.tolist()], dtype=int)
