"""Boxes in a detector's answer: where they are in its outputs, what is left of them after NMS, and which are the same.

Known are YOLO's layouts (n, 4 + classes, anchors) and (n, anchors, 5 + classes), finished boxes (n, boxes, 6) of corners,
score and class, and boxes, scores and labels in outputs of their own (SSD, torchvision, TensorFlow). Pure arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONFIDENT = 0.25
"""The score at which a box is shown to people, in ultralytics and elsewhere."""

_SAME = 0.5
_SUPPRESSED = 0.6
_BORDERLINE = 0.05
_ITSELF = 0.75
_SHOWN = 300
_KEPT = 1000
"""How many boxes of an image are paired, and how many are known, because ranks near the end of the list mean little."""

_FINISHED = 6
_CORNERS = 4
_MOST_FINISHED = 1000


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the boxes are. `names` are the outputs that hold them; `axis` is that of the channels in a raw output.

    `groups` are spans of channels of one kind within that axis. `finished` boxes have been through NMS: their number and
    order may change without any decision changing. `flat` ones are those of a single image, without an axis for it.
    """

    names: tuple[str, ...]
    axis: int | None = None
    groups: tuple[tuple[str, int, int], ...] = ()
    objectness: bool = False
    finished: bool = False
    flat: bool = False


def find(outputs: Mapping[str, Any], task: str | None, classes: int) -> Layout | None:
    """The layout of a detector's outputs, None where they are not known to be any.

    Without the task being said, boxes are recognised by the outputs' names, or by a channel axis that fits the number
    of classes.
    """
    if task not in ("detection", None):
        return None
    apart = _apart(outputs, sure=task is not None)
    if apart is not None:
        return apart
    for name, one in outputs.items():
        if one.dtype.kind != "f" or one.ndim != 3:
            continue
        raw = _raw(name, one.shape, classes, sure=task is not None)
        if raw is not None:
            return raw
    return None


def boxes(layout: Layout, outputs: Mapping[str, Any]) -> list[Any]:
    """For each image the likeliest boxes, best first, in rows of x1, y1, x2, y2, score, class."""
    import numpy as np

    main = outputs[layout.names[0]].astype(np.float64)
    if layout.axis is None:
        return _joined(layout, main, outputs)
    rows = np.moveaxis(main, layout.axis, -1)
    if layout.finished:
        return [_best(one[:, :4], one[:, 4:5], one[:, 5]) for one in rows]
    first, last = next((start, end) for name, start, end in layout.groups if name == "scores")
    scores = rows[..., first:last]
    if layout.objectness:
        scores = scores[..., 1:] * scores[..., :1]
    half = rows[..., 2:4] / 2
    corners = np.concatenate([rows[..., :2] - half, rows[..., :2] + half], axis=-1)
    return [_best(one, score) for one, score in zip(corners, scores, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Match:
    """What became of the boxes of one image: one lead per decision, as in `decisions`, and the pairs that match."""

    leads: Any
    reference: Any
    candidate: Any


def threshold(found: Sequence[Any]) -> float:
    """The score from which boxes count: that at which they are shown, or half the best where none gets so far."""
    best = max((float(one[0, 4]) for one in found if len(one)), default=0.0)
    return CONFIDENT if best >= CONFIDENT else best / 2


def match(reference: Any, candidate: Any, least: float) -> Match:
    """Pair the boxes of one image that score at least `least`, after NMS, by class and overlap.

    A box that is missing or too many leads by how far its score is above `least`; by nothing where the other side has it
    too and only suppression or the length of the list left it out. An image in which neither sees anything is one decision
    they agree on.
    """
    import numpy as np

    likely = [one[one[:, 4] >= least] for one in (reference, candidate)]
    mine, theirs = (suppress(one[:_SHOWN]) for one in likely)
    pairs = _pairs(mine, theirs)
    left, right = [one for one, _ in pairs], [one for _, one in pairs]
    missed = np.delete(mine, left, axis=0)
    extra = np.delete(theirs, right, axis=0)
    leads = [-1.0] * len(pairs)
    leads += [0.0 if _left_out(one, theirs, likely[1]) else float(one[4]) - least for one in missed]
    for one in extra:
        seen = reference[(reference[:, 5] == one[5]) & (overlap(one[None], reference)[0] >= _SAME)]
        unsure = least - float(seen[:, 4].max(initial=-np.inf))  # how far the reference is from seeing it as well
        lead = min(float(one[4]) - least, max(0.0, unsure))
        leads.append(0.0 if _left_out(one, mine, likely[0]) else lead)
    return Match(leads=np.array(leads or [-1.0]), reference=mine[left], candidate=theirs[right])


def suppress(found: Any) -> Any:
    """Greedy NMS, class by class, of rows that come best first."""
    import numpy as np

    rest, kept = found, []
    while len(rest):
        kept.append(rest[0])
        beaten = (overlap(rest[:1], rest)[0] > _SUPPRESSED) & (rest[:, 5] == rest[0, 5])
        beaten[0] = True
        rest = rest[~beaten]
    return np.array(kept).reshape(-1, 6)


def overlap(one: Any, other: Any) -> Any:
    """Intersection over union of each of `one` with each of `other`; boxes without area overlap with nothing."""
    import numpy as np

    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:4], other[None, :, 2:4])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(np.clip(each[:, 2:4] - each[:, :2], 0, None), axis=-1) for each in (one, other)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _pairs(mine: Any, theirs: Any) -> list[tuple[int, int]]:
    """Places in both, each box with the one that overlaps it most of those of its class that are still free."""
    shared = overlap(mine, theirs)
    shared[mine[:, None, 5] != theirs[None, :, 5]] = 0
    found = []
    for place in range(len(mine) if len(theirs) else 0):
        best = int(shared[place].argmax())
        if shared[place, best] >= _SAME:
            found.append((place, best))
            shared[:, best] = 0
    return found


def _left_out(one: Any, kept: Any, likely: Any) -> bool:
    """Whether a box that is not among `kept` is there all the same: hardly suppressed by one of them, or further down."""
    suppressor = overlap(one[None], kept)[0] >= _SUPPRESSED - _BORDERLINE
    itself = overlap(one[None], likely)[0] >= _ITSELF
    return bool((suppressor & (kept[:, 5] == one[5])).any() or (itself & (likely[:, 5] == one[5])).any())


def _best(corners: Any, scores: Any, classes: Any = None) -> Any:
    """The best of all pairs of box (k, 4) and class (k, classes), as rows; `classes` (k) names the class of each box."""
    import numpy as np

    scores = np.nan_to_num(scores, nan=0.0)
    order = np.argsort(-scores, axis=None, kind="stable")[:_KEPT]
    place, column = np.unravel_index(order, scores.shape)
    kind = column if classes is None else classes[place]
    return np.column_stack([corners[place], scores[place, column], kind]).astype(np.float64)


def _raw(name: str, shape: tuple[int, ...], classes: int, *, sure: bool) -> Layout | None:
    _, second, last = shape
    if sure and last == _FINISHED and second <= _MOST_FINISHED and classes not in (1, 2):
        return Layout(names=(name,), axis=2, finished=True)
    for axis, channels, anchors in ((1, second, last), (2, last, second)):
        fits = classes > 0 and channels in (4 + classes, 5 + classes) and anchors > channels
        if fits or (classes > 0 and sure and channels > 4 + classes and anchors > channels):
            objectness = channels == 5 + classes and axis == 2
            return _channels(name, axis, channels, 4 + classes + objectness, objectness=objectness)
    if not sure or min(second, last) <= _CORNERS:
        return None
    axis = 1 if second < last else 2
    channels = shape[axis]
    return _channels(name, axis, channels, channels, objectness=axis == 2 and channels > 5)


def _channels(name: str, axis: int, channels: int, end: int, *, objectness: bool) -> Layout:
    groups = [("boxes", 0, 4), ("scores", 4, end)]
    if end < channels:
        groups.append(("rest", end, channels))  # coefficients of masks, key points, angles
    return Layout(names=(name,), axis=axis, groups=tuple(groups), objectness=objectness)


def _apart(outputs: Mapping[str, Any], *, sure: bool) -> Layout | None:
    """Boxes (…, k, 4) in one output, their scores (…, k) or (…, k, classes) in another, labels (…, k) perhaps in a third."""
    for name, corners in outputs.items():
        if corners.dtype.kind != "f" or corners.ndim not in (2, 3) or corners.shape[-1] != _CORNERS:
            continue
        others = {key: one for key, one in outputs.items() if key != name}
        flat = {key: one for key, one in others.items() if one.shape == corners.shape[:-1]}
        wide = [
            key
            for key, one in others.items()
            if one.ndim == corners.ndim and one.shape[:-1] == corners.shape[:-1] and one.dtype.kind == "f"
        ]
        kinds = [key for key, one in flat.items() if one.dtype.kind in "iu" or _speaks(key, "class", "label")]
        scores = [key for key, one in flat.items() if one.dtype.kind == "f" and key not in kinds]
        scores.sort(key=lambda key: not _speaks(key, "score", "conf", "prob"))
        if not (wide or scores) or not (sure or (_speaks(name, "box") and _speaks((wide or scores)[0], "score"))):
            continue
        if scores:
            return Layout(names=(name, scores[0], *kinds[:1]), finished=True, flat=corners.ndim == 2)
        return Layout(names=(name, wide[0]), flat=corners.ndim == 2)
    return None


def _speaks(name: str, *words: str) -> bool:
    return any(word in name.lower() for word in words)


def _joined(layout: Layout, main: Any, outputs: Mapping[str, Any]) -> list[Any]:
    import numpy as np

    names = layout.names
    scores = outputs[names[1]].astype(np.float64)
    kinds = outputs[names[2]].astype(np.float64) if len(names) > 2 else None
    if layout.flat:
        main, scores = main[None], scores[None]
        kinds = None if kinds is None else kinds[None]
    if scores.ndim == 2:
        scores = scores[..., None]
    if scores.size and (scores.min() < 0 or scores.max() > 1):
        scores = 0.5 * (1 + np.tanh(scores / 2))
    if main.size and (main[..., 2:] < main[..., :2]).any(axis=-1).mean() > 0.05:  # centres and sizes, not corners
        half = np.abs(main[..., 2:]) / 2
        main = np.concatenate([main[..., :2] - half, main[..., :2] + half], axis=-1)
    return [_best(main[at], scores[at], None if kinds is None else kinds[at]) for at in range(len(main))]
