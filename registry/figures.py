"""What a metric may be called and what it may be. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from registry.errors import Invalid

SHARES = ("accuracy", "precision", "recall", "f1", "mAP")
"""Metrics that are shares of one."""

SPELLINGS: Mapping[str, str] = {name.lower(): name for name in SHARES} | {"f1_score": "f1", "f1-score": "f1"}
"""How these are written by others, in lower case."""

DECLARED: Mapping[str, str] = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1_score": "f1",
    "mAP": "mAP",
}
"""Fields of an upload that are metrics, and the names that these go by."""

_FREE = re.compile(r"[a-z0-9_.@-]{1,64}", re.ASCII)


def checked(name: str, value: float) -> tuple[str, float]:
    """The metric under the name that it goes by here. Raises `Invalid("invalid_metric")`."""
    known = SPELLINGS.get(name.lower(), name)
    if known not in SHARES and not _FREE.fullmatch(known):
        raise Invalid(
            "invalid_metric",
            f"{name!r} names no metric: {', '.join(SHARES)}, or 1 to 64 of a-z, 0-9, _ . @ and -.",
        )
    if not math.isfinite(value):
        raise Invalid("invalid_metric", f"{known} must be a finite number.")
    if known in SHARES and not 0 <= value <= 1:
        raise Invalid("invalid_metric", f"{known} is a share between 0 and 1, not {value:g}.")
    return known, value
