"""Lists of names taken from the frameworks, as plain text; benchmarks/lists holds what writes them."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def read(name: str) -> frozenset[str]:
    """The lines of a list without the comments in its head."""
    text = Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))
