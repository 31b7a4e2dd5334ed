"""Deployments: a version live on a target, what was before, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from slipway import refs
from slipway.errors import NotFound
from slipway.gates import Outcome
from slipway.records import Json, moment
from slipway.transport import Wire


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """`status` is `live superseded rolled_back ended`; `gates` is what each gate said then, where it was asked for."""

    id: str
    model: str
    owner: str
    version: str
    target: str
    status: str
    config: Json = field(default_factory=dict)
    note: str = ""
    deployed_by: str = ""
    deployed_at: datetime | None = None
    ended_by: str | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    gates: tuple[Outcome, ...] = ()
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Deployment:
        """Read it from an answer."""
        return cls(
            id=str(data["id"]),
            model=str(data.get("model") or ""),
            owner=str(data.get("owner") or ""),
            version=str(data.get("version") or ""),
            target=str(data.get("target") or ""),
            status=str(data.get("status") or ""),
            config=data.get("config") or {},
            note=str(data.get("note") or ""),
            deployed_by=str(data.get("deployed_by") or ""),
            deployed_at=moment(data.get("deployed_at")),
            ended_by=data.get("ended_by"),
            ended_at=moment(data.get("ended_at")),
            reason=data.get("reason"),
            gates=tuple(Outcome.read(item) for item in data.get("gates") or ()),
            raw=data,
        )


class Deployments:
    """What is live where."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def deploy(self, ref: str, target: str, *, config: Mapping[str, Any] | None = None, reason: str = "") -> Deployment:
        """Put the version that `NAME[@REF]` means live on a target, in the place of what is live there.

        Raises Refused (`gate_failed`) where a gate says no; its `details` are the gates, its `detail` what would do.
        """
        name, version = refs.parse(ref)
        body = {"version": version, "target": target, "config": dict(config or {}), "reason": reason}
        return Deployment.read(self._wire.json("POST", _path(name), json=body))

    def find(
        self,
        name: str | None = None,
        *,
        target: str | None = None,
        status: str | None = None,
        limit: int | None = 100,
    ) -> list[Deployment]:
        """Return a model's deployments, or those of all models you may see, newest first."""
        path = "/api/v1/deployments" if name is None else _path(name)
        return [Deployment.read(item) for item in self._wire.pages(path, {"target": target, "status": status}, limit)]

    def get(self, name: str, deployment_id: str) -> Deployment:
        """Return one deployment, with what each gate said."""
        return Deployment.read(self._wire.json("GET", _path(name, deployment_id)))

    def live(self, name: str, target: str) -> Deployment:
        """Return what is live on a target; raises NotFound where nothing is."""
        for found in self.find(name, target=target, status="live", limit=1):
            return found
        raise NotFound("nothing_live", f"Nothing of {name} is live on {target}.", hint=f"slipway deployments {name}")

    def end(self, name: str, deployment_id: str, *, reason: str) -> Deployment:
        """Take a live deployment down; nothing takes its place."""
        return Deployment.read(self._wire.json("POST", f"{_path(name, deployment_id)}:end", json={"reason": reason}))

    def rollback(self, name: str, target: str, *, reason: str) -> Deployment:
        """Make live again on a target what was live before and is still clean; raises Conflict where nothing is left."""
        path = f"{refs.model_path(name)}/targets/{quote(target, safe='')}:rollback"
        return Deployment.read(self._wire.json("POST", path, json={"reason": reason}))


def _path(name: str, deployment_id: str | None = None) -> str:
    path = f"{refs.model_path(name)}/deployments"
    return path if deployment_id is None else f"{path}/{quote(deployment_id, safe='')}"
