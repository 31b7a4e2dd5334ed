"""Which of a version's files belong to which component of it, and what is not there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Component = Literal["weights", "config", "code", "datasets", "full"]
Kind = Literal["weights", "config", "code", "datasets", "evidence", "source"]

COMPONENTS: tuple[Component, ...] = get_args(Component)

SOURCE = "source"
"""The name and the role of the uploaded bytes."""

_OF_ROLE: dict[str, Kind] = {
    "canonical": "weights",
    "variant": "weights",
    "config": "config",
    "requirements": "config",
    "card": "config",
    "calibration": "datasets",
    "sample": "datasets",
    SOURCE: "source",
}
"""Whatever is not listed is evidence: manifests, measurements."""

_ABSENT: dict[str, str] = {
    "weights": "nothing that can be served was made of this version",
    "config": "no configuration, requirements or card came with it",
    "code": "no code came with it as a file of its own",
    "datasets": "no calibration data came with it, and no sample was made",
}
_PACKED = "the code of a package stays inside what was uploaded (`artifact=source`, for its owner)"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One file of a version."""

    name: str
    role: str

    @property
    def kind(self) -> Kind:
        return _OF_ROLE.get(self.role, "evidence")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What to hand out: names of pieces in their order, and component → why nothing of it is there."""

    names: tuple[str, ...]
    missing: Mapping[Component, str]


def choose(wanted: Collection[Component], pieces: Iterable[Piece], *, best: str | None, packed: bool) -> Choice:
    """The pieces of the wanted components. `weights` is the one form to prefer (`best`), `full` is all that there is.

    `packed`: the upload was a package, which may hold what no piece shows.
    """
    pieces = list(pieces)
    full = "full" in wanted
    names = tuple(
        piece.name
        for piece in pieces
        if full or (piece.kind in wanted and (piece.kind != "weights" or piece.name == best))
    )
    found = {piece.kind for piece in pieces if piece.name in names}
    asked = [each for each in COMPONENTS if each != "full" and (full or each in wanted)]
    missing: dict[Component, str] = {each: _ABSENT[each] for each in asked if each not in found}
    if packed and "code" in missing:
        missing["code"] = _PACKED
    return Choice(names=names, missing=missing)
