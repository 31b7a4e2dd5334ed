"""One figure from 0 to 100 for a form of a version, from what was measured and verified alone. Pure.

`docs/measurements.md` has the formula for people. A term for which there is no evidence does not count: the score is
the points reached of those that could be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

AGREEMENT, ERROR, SPEED, SIZE, WARNINGS = 40, 20, 20, 10, 10
"""The most points of each term."""

_WORST_FLIPS = 0.1
_BEST_SPEEDUP = 8
_PER_WARNING = 2


def score(
    *,
    verification: Mapping[str, Any] | None,
    row: Mapping[str, Any],
    source: Mapping[str, Any],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The score and its terms, `{"term", "points", "of", "because"}` each.

    `verification` is the form's, `row` and `source` are the benchmark's rows of the form and of the source.
    """
    outputs = (verification or {}).get("outputs") or ()
    budget = (verification or {}).get("budget") or {}
    terms = [
        _agreement(outputs),
        _error(outputs, budget),
        _speed(row),
        _size(row.get("size"), source.get("size")),
        _term("warnings", WARNINGS, 1 - len(warnings) * _PER_WARNING / WARNINGS, _counted(len(warnings), "warning")),
    ]
    known = [one for one in terms if one is not None]
    points, most = sum(one["points"] for one in known), sum(one["of"] for one in known)
    return {"score": round(100 * points / most, 1), "terms": known}


def _agreement(outputs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    decisions = [one["decisions"] for one in outputs if one.get("decisions")]
    compared, flips = sum(one["compared"] for one in decisions), sum(one["flips"] for one in decisions)
    if not compared:
        return None
    because = f"{flips} of {_counted(compared, 'decision')} differ"
    return _term("agreement", AGREEMENT, 1 - flips / compared / _WORST_FLIPS, because)


def _error(outputs: Sequence[Mapping[str, Any]], budget: Mapping[str, Any]) -> dict[str, Any] | None:
    allowed = budget.get("rms_rel")
    worst = max((one["rms_rel"] for one in outputs if isinstance(one.get("rms_rel"), int | float)), default=None)
    if worst is None or not allowed:
        return None
    return _term("error", ERROR, 1 - worst / allowed, f"off by {worst:.2g} of the RMS, {allowed:g} allowed")


def _speed(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The bound of the interval that is nearer to 1 counts; 1 where it lies on both sides."""
    interval = row.get("speedup_ci")
    if not interval:
        return None
    low, high = interval
    sure = low if low > 1 else high if high < 1 else 1.0
    return _term(
        "speed",
        SPEED,
        (1 + math.log(sure, _BEST_SPEEDUP)) / 2,
        f"{sure:.2f} times as fast as the source, at the least"
        if sure >= 1
        else f"{sure:.2f} times as fast as the source, at the most",
    )


def _size(size: Any, source: Any) -> dict[str, Any] | None:
    if not (isinstance(size, int) and isinstance(source, int) and source > 0):
        return None
    return _term("size", SIZE, 1 - size / (2 * source), f"{size / source:.2f} of the source's bytes")


def _term(name: str, of: int, share: float, because: str) -> dict[str, Any]:
    return {"term": name, "points": round(of * min(1.0, max(0.0, share)), 2), "of": of, "because": because}


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
