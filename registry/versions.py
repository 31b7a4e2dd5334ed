"""Version numbers: SemVer 2.0, with the short forms people write. Pure.

Source: https://semver.org/spec/v2.0.0.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from semver import Version

Bump = Literal["major", "minor", "patch"]

_SHORT = re.compile(r"^v?(0|[1-9]\d{0,8})(?:\.(0|[1-9]\d{0,8}))?(?:\.(0|[1-9]\d{0,8}))?$", re.ASCII)


def normalise(text: str) -> str:
    """`v2`, `2` and `v1.2` become `2.0.0`, `2.0.0` and `1.2.0`; full SemVer stays. Raises `ValueError` for the rest."""
    if len(text) > 64:
        raise ValueError("a version has at most 64 characters")
    short = _SHORT.match(text)
    if short:
        return ".".join(part or "0" for part in short.groups())
    try:
        return str(Version.parse(text.removeprefix("v")))
    except ValueError:
        raise ValueError(f"{text!r} is not a semantic version such as 1.2.0") from None


def following(existing: Iterable[str], bump: Bump = "minor") -> str:
    """The version after the highest one that exists; the first is 1.0.0."""
    released = [Version.parse(text).finalize_version() for text in existing]
    if not released:
        return "1.0.0"
    highest = max(released)
    match bump:
        case "major":
            return str(highest.bump_major())
        case "minor":
            return str(highest.bump_minor())
        case "patch":
            return str(highest.bump_patch())
