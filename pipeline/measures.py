"""Running sums over pairs of arrays, and the errors that follow from them. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.decisions import Count
from pipeline.stage import Json

_LARGEST = 1e300
_MOST_CHANNELS = 1 << 16
_FEWEST_VALUES = 16
_FLOOR = 1e-5
"""A channel below this share of the RMS of the whole output may be rounding noise in single precision."""

_GAP = 30.0
"""Channels are of different kinds where none lies between them in size for so many times."""

_SILENT = 0.1
"""A channel is silent where less than this is left of its RMS; noise alone never makes it so."""

_ONE_SIDED = 0.5
"""Noise is as often above zero as below; a channel whose mean is this share of its RMS is none, however small."""


@dataclass(kw_only=True)
class Sums:
    """Sums over the values of one output under one kind of input, and its decisions."""

    squares: float = 0.0
    errors: float = 0.0
    other: float = 0.0
    product: float = 0.0
    count: int = 0
    max_abs: float = 0.0
    choices: Count = field(default_factory=Count)
    sets: Count = field(default_factory=Count)
    orders: Count = field(default_factory=Count)
    singles: list[Any] = field(default_factory=list)

    def add(self, a: Any, b: Any) -> float:
        """Take in values of reference and candidate, one axis each; answers with the relative error of these alone."""
        import numpy as np

        squares, wrong = float(a @ a), float((a - b) @ (a - b))
        self.squares += squares
        self.other += float(b @ b)
        self.product += float(a @ b)
        self.errors += wrong
        self.count += a.size
        self.max_abs = max(self.max_abs, float(np.abs(a - b).max(initial=0.0)))
        return bounded(math.sqrt(wrong / squares)) if squares else float(wrong > 0)

    @property
    def rms(self) -> float:
        """Of the reference."""
        return bounded(math.sqrt(self.squares / self.count)) if self.count else 0.0

    def facts(self) -> dict[str, float]:
        """Errors relative to the RMS, absolute ones where that is zero."""
        scale = self.rms or 1.0
        cosine = 1.0
        if self.squares and self.other:
            cosine = self.product / math.sqrt(self.squares) / math.sqrt(self.other)
        elif self.errors:
            cosine = 0.0
        return {
            "rms_rel": bounded(math.sqrt(self.errors / self.count) / scale) if self.count else 0.0,
            "max_rel": bounded(self.max_abs / scale),
            "max_abs": bounded(self.max_abs),
            "cosine": max(-1.0, min(1.0, cosine)) if math.isfinite(cosine) else 0.0,
        }


@dataclass(kw_only=True)
class ChannelSums:
    """The same for each channel along one axis; given up where that axis changes its size."""

    axis: int
    totals: Any = 0.0
    squares: Any = 0.0
    other: Any = 0.0
    errors: Any = 0.0
    count: int = 0
    values: int = 0
    odd: bool = False

    def add(self, a: Any, b: Any) -> None:
        """Take in a pair of whole arrays."""
        size = a.shape[self.axis]
        if self.odd or size > _MOST_CHANNELS or self.count not in (0, size):
            self.odd = True
            return
        others = tuple(axis for axis in range(a.ndim) if axis != self.axis)
        self.count = size
        self.totals = self.totals + a.sum(axis=others)
        self.squares = self.squares + (a * a).sum(axis=others)
        self.other = self.other + (b * b).sum(axis=others)
        self.errors = self.errors + ((a - b) ** 2).sum(axis=others)
        self.values += a.size // size

    def relative(self) -> Any:
        """The error of each channel relative to the RMS of all channels of its kind; its own where it went silent.

        Channels of one kind are those without a gap in size between them. A small one among them may drown in what is
        allowed of the others without harm, but those of another kind may not.
        """
        import numpy as np

        found = np.zeros(self.count)
        loud = self.squares > _FLOOR**2 * self.squares.mean()
        loud |= self.totals**2 > _ONE_SIDED**2 * self.values * self.squares
        order = np.flatnonzero(loud)[np.argsort(-self.squares[loud], kind="stable")]
        if not order.size:
            return found
        gaps = self.squares[order[:-1]] > _GAP**2 * self.squares[order[1:]]
        for kind in np.split(order, np.flatnonzero(gaps) + 1):
            found[kind] = np.sqrt(self.errors[kind].sum() / self.squares[kind].sum())
        silent = order[self.other[order] < _SILENT**2 * self.squares[order]]
        found[silent] = np.maximum(found[silent], np.sqrt(self.errors[silent] / self.squares[silent]))
        return found


def worst_channel(found: Sequence[ChannelSums]) -> dict[str, Json] | None:
    """The channel that is furthest off; None where no channel holds enough values to tell."""
    worst: dict[str, Json] | None = None
    for one in found:
        if one.odd or one.values < _FEWEST_VALUES or one.count < 2:
            continue
        relative = one.relative()
        place = int(relative.argmax())
        error = bounded(float(relative[place]))
        if worst is None or error > worst["error"]:
            worst = {"axis": one.axis, "worst": place, "count": one.count, "error": error}
    return worst


def halves(left: Any, right: Any) -> tuple[Any, Any]:
    """Complex arrays with real and imaginary parts along a last axis of their own; others as they are."""
    import numpy as np

    if left.dtype.kind != "c":
        return left, right
    return np.stack([left.real, left.imag], axis=-1), np.stack([right.real, right.imag], axis=-1)


def bounded(value: float) -> float:
    """A number that JSON can carry."""
    return min(value, _LARGEST) if value == value else _LARGEST  # noqa: PLR0124 - only NaN differs from itself
