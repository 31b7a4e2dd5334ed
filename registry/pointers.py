"""Movable names of versions: what one may be called, and where it pointed before. Pure."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from typing import TypeVar

from registry.errors import Invalid
from registry.versions import normalise

DEFAULT = "default"
"""The alias of the version to use unless one knows better; the first that is published gets it by itself."""
LATEST = "latest"
"""Computed, never moved: the version that was uploaded last."""

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,62}", re.ASCII)

Place = TypeVar("Place", bound=Hashable)


def is_name(text: str) -> bool:
    """Whether an alias may be called this: never what could be taken for a version's number, and never `latest`."""
    if text == LATEST or not _NAME.fullmatch(text):
        return False
    try:
        normalise(text)
    except ValueError:
        return True
    return False


def refuse_unless_name(text: str) -> None:
    """Raises `Invalid("invalid_alias")`."""
    if not is_name(text):
        raise Invalid(
            "invalid_alias",
            f"{text!r} cannot be an alias: 1 to 63 of a-z, 0-9, . _ and -, a letter first; no version number, not latest.",
        )


def behind(moves: Iterable[Place | None]) -> list[Place]:
    """Where to roll back to, nearest first, by all moves of one alias in order; None is its removal.

    Going back to an earlier place undoes what came after it: after A, B, C and back to B, what lies behind is A and not
    C, so that rolling back twice goes back two steps. An alias that was removed goes back to where it pointed last.
    """
    trail: list[Place] = []
    removed = False
    for place in moves:
        removed = place is None
        if place is None:
            continue
        if place in trail:
            del trail[trail.index(place) :]
        trail.append(place)
    return (trail if removed else trail[:-1])[::-1]
