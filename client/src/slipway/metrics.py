"""Metrics of versions: what was measured, on which data, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from slipway import refs
from slipway.records import Json, moment
from slipway.transport import Wire, given


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number; `at` is when it was measured."""

    name: str
    value: float
    dataset: str | None = None
    at: datetime | None = None
    recorded_by: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Metric:
        """Read it from an answer."""
        return cls(
            name=str(data["name"]),
            value=float(data["value"]),
            dataset=data.get("dataset"),
            at=moment(data.get("at")),
            recorded_by=data.get("recorded_by"),
            raw=data,
        )


class Metrics:
    """The metrics of versions."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def record(
        self, ref: str, values: Mapping[str, float], *, dataset: str | None = None, at: datetime | None = None
    ) -> list[Metric]:
        """Add numbers to a version's history, all of one data set and one moment (with its zone; now by default)."""
        about = given({"dataset": dataset, "at": at and at.isoformat()})
        body = {"metrics": [{"name": name, "value": value} | about for name, value in values.items()]}
        said = self._wire.json("POST", _path(ref), json=body)
        return [Metric.read(item) for item in said["items"]]

    def history(
        self, ref: str, *, name: str | None = None, dataset: str | None = None, limit: int | None = 100
    ) -> list[Metric]:
        """Return what was recorded, newest first; `limit=None` for all of it."""
        wanted = {"name": name, "dataset": dataset}
        return [Metric.read(item) for item in self._wire.pages(_path(ref), wanted, limit, by="before")]


def _path(ref: str) -> str:
    return refs.version_path(*refs.parse(ref)) + "/metrics"
