"""Rollouts: a candidate beside what is live until the figures decide between them; and feedback on predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from slipway import refs
from slipway.records import Json, moment
from slipway.transport import Wire


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """`status` is `running promoted rolled_back stopped`.

    `decision` (`promote roll_back keep_on stop`) and `verdict` are what the figures say; `arms` and `metrics` are the
    figures, as the server tells them, where one rollout was asked for.
    """

    id: str
    model: str
    owner: str
    target: str
    control: str
    candidate: str
    kind: str
    weight: float
    status: str
    sticky: str = "none"
    rules: Json = field(default_factory=dict)
    note: str = ""
    reason: str | None = None
    started_by: str = ""
    started_at: datetime | None = None
    ended_by: str | None = None
    ended_at: datetime | None = None
    decision: str | None = None
    verdict: str = ""
    arms: Mapping[str, Json] = field(default_factory=dict)
    metrics: tuple[Json, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Rollout:
        """Read it from an answer."""
        return cls(
            id=str(data["id"]),
            model=str(data.get("model") or ""),
            owner=str(data.get("owner") or ""),
            target=str(data.get("target") or ""),
            control=str(data.get("control") or ""),
            candidate=str(data.get("candidate") or ""),
            kind=str(data.get("kind") or ""),
            weight=float(data.get("weight") or 0),
            status=str(data.get("status") or ""),
            sticky=str(data.get("sticky") or "none"),
            rules=data.get("rules") or {},
            note=str(data.get("note") or ""),
            reason=data.get("reason"),
            started_by=str(data.get("started_by") or ""),
            started_at=moment(data.get("started_at")),
            ended_by=data.get("ended_by"),
            ended_at=moment(data.get("ended_at")),
            decision=data.get("decision"),
            verdict=str(data.get("verdict") or ""),
            arms=data.get("arms") or {},
            metrics=tuple(data.get("metrics") or ()),
            raw=data,
        )


class Rollouts:
    """What is being tried beside what is live."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def start(
        self,
        ref: str,
        target: str,
        *,
        kind: str = "canary",
        weight: float = 0.05,
        sticky: str = "none",
        rules: Mapping[str, Any] | None = None,
        note: str = "",
    ) -> Rollout:
        """Roll the version that `NAME[@REF]` means out beside what is live on a target.

        `weight` is its share of the requests, `rules` what decides (`alpha`, `max_error_increase`, `latency_ms`, …).
        Raises Refused (`gate_failed`) where a gate says no, Conflict where nothing is live or something runs already.
        """
        name, version = refs.parse(ref)
        body = {
            "version": version,
            "target": target,
            "kind": kind,
            "weight": weight,
            "sticky": sticky,
            "rules": dict(rules or {}),
            "note": note,
        }
        return Rollout.read(self._wire.json("POST", _path(name), json=body))

    def find(
        self, name: str, *, target: str | None = None, status: str | None = None, limit: int | None = 100
    ) -> list[Rollout]:
        """Return a model's rollouts, newest first."""
        wanted = {"target": target, "status": status}
        return [Rollout.read(item) for item in self._wire.pages(_path(name), wanted, limit)]

    def get(self, name: str, rollout_id: str) -> Rollout:
        """Return one rollout with the figures of both sides and what they say."""
        return Rollout.read(self._wire.json("GET", _path(name, rollout_id)))

    def stop(self, name: str, rollout_id: str, *, reason: str) -> Rollout:
        """End it undecided; what was live stays."""
        return Rollout.read(self._wire.json("POST", f"{_path(name, rollout_id)}:stop", json={"reason": reason}))

    def promote(self, name: str, rollout_id: str, *, reason: str) -> Rollout:
        """Make its candidate live now; raises Refused (`gate_failed`) where a gate says no."""
        return Rollout.read(self._wire.json("POST", f"{_path(name, rollout_id)}:promote", json={"reason": reason}))


class Feedback:
    """What became of predictions. A `prediction` is the header `Slipway-Prediction` of its answer; each is judged once."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __call__(self, prediction: str, *, correct: bool | None = None, label: str | None = None) -> Json:
        """Tell whether a prediction was right, or the label that is. Raises Conflict where that was told before."""
        return self._wire.json("POST", "/api/v1/feedback", json=_judged(prediction, correct, label))

    def many(self, judged: Iterable[tuple[str, bool | str]]) -> Json:
        """Tell of up to 1000 (prediction, whether it was right or the right label); `refused` names those not recorded."""
        body = [
            _judged(prediction, said if isinstance(said, bool) else None, said if isinstance(said, str) else None)
            for prediction, said in judged
        ]
        return self._wire.json("POST", "/api/v1/feedback", json=body)


def _judged(prediction: str, correct: bool | None, label: str | None) -> dict[str, Any]:
    told = {"prediction": prediction, "correct": correct, "label": label}
    return {name: value for name, value in told.items() if value is not None}


def _path(name: str, rollout_id: str | None = None) -> str:
    path = f"{refs.model_path(name)}/rollouts"
    return path if rollout_id is None else f"{path}/{quote(rollout_id, safe='')}"
