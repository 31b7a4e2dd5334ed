"""The net score of a version and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slipway import refs
from slipway.transport import Wire

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SubScore:
    """`value` from 0 to 1; None where there is no evidence, and then it does not count."""

    name: str
    weight: float
    value: float | None
    because: str
    parts: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, data: Json) -> SubScore:
        """Read it from an answer."""
        value = data.get("value")
        return cls(
            name=str(data["name"]),
            weight=float(data.get("weight") or 0),
            value=None if value is None else float(value),
            because=str(data.get("because") or ""),
            parts=data.get("parts") or {},
        )


@dataclass(frozen=True, kw_only=True)
class Score:
    """`net_score` from 0 to 1; `known` is the share of its weight that there is evidence for."""

    version: str
    net_score: float
    known: float
    sub_scores: tuple[SubScore, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Score:
        """Read it from an answer."""
        return cls(
            version=str(data.get("version") or ""),
            net_score=float(data["net_score"]),
            known=float(data.get("known") or 0),
            sub_scores=tuple(SubScore.read(item) for item in data.get("sub_scores") or ()),
            raw=data,
        )


class Scores:
    """What `Client.scores` can do."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def read(self, ref: str) -> Score:
        """Return the net score of the version that `NAME[@REF]` means."""
        return Score.read(self._wire.json("GET", refs.version_path(*refs.parse(ref)) + "/score"))
