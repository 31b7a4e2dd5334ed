"""Which inputs to ask the forms of a model with: seeded, at the edges, and the user's own samples with their labels.

Runs in a sandbox child, because the user's samples are a foreign file. The same description poses the same questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import Rejected
from pipeline.signature import Tensor, shown
from pipeline.stage import Json
from pipeline.trial import draw, read, write

LARGEST_BATCH = 32
"""Unless the model's config says for how many it is meant."""

ORDINARY = ("normal", "uniform", "sample")
"""Kinds of questions that a model is made for; the others are edges."""

_EDGES = ("zeros", "ones", "small", "large")
_EDGE_BATCH = 2
_BLOCKS = (8, 4, 2, 1)
"""How often to ask at the largest batch; the first number that stays within what a model may be asked."""

_VALUES = 1 << 25
_OPERATIONS = 1 << 38
"""Drawn values, and floating-point operations, in all questions together: less for large models."""

_SAMPLES = 512
_LABELS = "labels"


def pose(
    inputs: Json, folder: str, calibration: str | None = None, largest: int = LARGEST_BATCH, operations: int = 0
) -> Json:
    """Write the questions into `folder`/asked, one .npz each, and the user's labels into `folder`/labels.

    `largest` is the largest batch to ask at and `operations` what one sample costs, 0 where unknown. Answers with the
    list of cases.
    """
    tensors = [Tensor.of(one) for one in inputs]
    asked, known = Path(folder) / "asked", Path(folder) / "labels"
    asked.mkdir()
    known.mkdir()
    listed = []
    given = None if calibration is None else read(calibration)
    for number, (kind, batch, arrays, labels) in enumerate(_cases(tensors, given, largest, operations)):
        name = f"{number:03}-{kind}.npz"
        write(str(asked / name), arrays)
        if labels is not None:
            write(str(known / name), {_LABELS: labels})
        listed.append({"file": name, "kind": kind, "batch": batch})
    return listed


def labels_of(folder: str, name: str) -> Any:
    """The user's labels of one question, None where there are none."""
    path = Path(folder) / name
    return read(str(path))[_LABELS] if path.exists() else None


def _cases(
    tensors: Sequence[Tensor], given: Mapping[str, Any] | None, largest: int, operations: int
) -> Iterator[tuple[str, int, dict[str, Any], Any]]:
    free = any(one.batched for one in tensors)
    weight = sum(math.prod(one.sized(1)) for one in tensors)
    room = min(_VALUES // max(1, weight), _OPERATIONS // max(1, operations))
    batches, largest = _batches(room, largest) if free else ([1, 1, 1], 1)
    edge = min(_EDGE_BATCH, largest) if free else 1
    for kind in ("normal", "uniform"):
        for seed, batch in enumerate(batches):
            yield kind, batch, draw(tensors, batch=batch, kind=kind, seed=seed), None
    for kind in _EDGES:
        yield kind, edge, draw(tensors, batch=edge, kind=kind), None
    if given is not None:
        yield from _samples(tensors, dict(given), room, largest, free=free)


def _batches(room: int, largest: int) -> tuple[list[int], int]:
    """Batch sizes to ask at, twice over, so that all fit into `room` samples: one, two, and the largest, often."""
    small = [one for one in (1, 2) if one <= largest]
    spare = max(0, room - len(_EDGES) * _EDGE_BATCH) // 2 - sum(small)
    while largest > max(small) and largest > spare:
        largest //= 2
    if largest <= max(small):
        return small, max(small)
    blocks = next(one for one in _BLOCKS if one * largest <= spare)
    return [*small, *[largest] * blocks], largest


def _samples(
    tensors: Sequence[Tensor], given: dict[str, Any], room: int, largest: int, *, free: bool
) -> Iterator[tuple[str, int, dict[str, Any], Any]]:
    """The user's samples and labels in batches: the first alone, the next two, then as many as go together."""
    known = None if any(one.name == _LABELS for one in tensors) else given.pop(_LABELS, None)
    fitting = _fitting(tensors, given)
    total = min(len(one) for one in fitting.values())
    if known is not None and (known.dtype.kind not in "iubU" or len(known) != total):
        raise Rejected(
            "calibration_mismatch",
            f"The calibration file's labels must be {total} class names or numbers, one for each sample.",
            samples=total,
        )
    count = min(total, _SAMPLES, max(room // 2, largest))
    start = 0
    fixed = next((one.example[0] for one in tensors if one.example), 1)
    for size in _sizes(count, largest) if free else [fixed] * (count // fixed):
        part = slice(start, start + size)
        start += size
        arrays = {one.name: fitting[one.name][part].astype(one.dtype) for one in tensors}
        yield "sample", size, arrays, None if known is None else known[part]


def _sizes(count: int, largest: int) -> Iterator[int]:
    wanted = 1
    while count > 0:
        size = min(wanted, count, largest)
        yield size
        count -= size
        wanted = 2 if wanted == 1 else largest


def _fitting(tensors: Sequence[Tensor], given: dict[str, Any]) -> dict[str, Any]:
    """The array for each input; for an only input whatever array fits it, called what it may."""
    if len(tensors) == 1 and tensors[0].name not in given:
        fitting = [one for one in given.values() if _fits(tensors[0], one)]
        given = {tensors[0].name: fitting[0]} if fitting else {}
    if not all(one.name in given and _fits(one, given[one.name]) for one in tensors):
        raise Rejected(
            "calibration_mismatch",
            "The calibration file must hold an array for each input, samples along the first axis: "
            + ", ".join(f"{one.name} {shown(one.shape)}" for one in tensors)
            + ".",
        )
    return {one.name: given[one.name] for one in tensors}


def _fits(tensor: Tensor, array: Any) -> bool:
    wanted = (tensor.shape or [])[1:]
    return bool(
        array.ndim == len(wanted) + 1
        and len(array)
        and array.dtype.kind in ("U" if tensor.dtype == "str" else "fiub")
        and all(one in (None, size) for one, size in zip(wanted, array.shape[1:], strict=True))
    )
