"""Endpoints: where a model answers, who may ask, how often and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from slipway import refs
from slipway.records import Json
from slipway.transport import Wire


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """`requests_per_minute` is of each caller, None: as their plan says. `timeout` is in seconds.

    Without `auth_required` anybody may ask, also where the model is private. `etag` is what `change` takes as `expected`.
    """

    url: str
    predict_url: str
    schema_url: str
    auth_required: bool
    requests_per_minute: int | None
    timeout: float
    etag: str
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Endpoint:
        """Read it from an answer."""
        return cls(
            url=str(data["url"]),
            predict_url=str(data["predict_url"]),
            schema_url=str(data["schema_url"]),
            auth_required=bool(data["auth_required"]),
            requests_per_minute=data.get("requests_per_minute"),
            timeout=float(data["timeout"]),
            etag=f'"{data["revision"]}"',
            raw=data,
        )


class Endpoints:
    """The endpoints of models."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def get(self, name: str) -> Endpoint:
        """Return a model's endpoint."""
        return Endpoint.read(self._wire.json("GET", f"{refs.model_path(name)}/endpoint"))

    def change(self, name: str, *, expected: str | None = None, **rules: Any) -> Endpoint:
        """Change what is given: auth_required, requests_per_minute, timeout; None goes back to what counts for all models.

        With `expected`, an endpoint's `etag`, raises Conflict where somebody else was first.
        """
        headers = {"If-Match": expected} if expected else {}
        path = f"{refs.model_path(name)}/endpoint"
        return Endpoint.read(self._wire.json("PATCH", path, json=rules, headers=headers))
