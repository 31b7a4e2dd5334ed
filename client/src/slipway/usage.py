"""How much a model is used, how much a user has and may have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from slipway import refs
from slipway.records import moment
from slipway.transport import Wire


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What was counted of a model in the last `days` days. `by_day` and `by_version` are as the server tells them."""

    days: int
    downloads: int = 0
    predictions: int = 0
    bytes: int = 0
    last_used: datetime | None = None
    by_day: tuple[Mapping[str, Any], ...] = ()
    by_version: tuple[Mapping[str, Any], ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Usage:
        """Read it from an answer."""
        return cls(
            days=int(data["days"]),
            downloads=int(data.get("downloads") or 0),
            predictions=int(data.get("predictions") or 0),
            bytes=int(data.get("bytes") or 0),
            last_used=moment(data.get("last_used")),
            by_day=tuple(data.get("by_day") or ()),
            by_version=tuple(data.get("by_version") or ()),
            raw=data,
        )


@dataclass(frozen=True, kw_only=True)
class Amount:
    """`allowed` is None where one may have as many as one likes."""

    used: int
    allowed: int | None

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Amount:
        """Read it from an answer."""
        return cls(used=int(data["used"]), allowed=None if data.get("allowed") is None else int(data["allowed"]))


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What a user has and may have."""

    plan: str
    models: Amount
    bytes: Amount
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Quota:
        """Read it from an answer."""
        return cls(
            plan=str(data.get("plan") or ""),
            models=Amount.read(data["models"]),
            bytes=Amount.read(data["bytes"]),
            raw=data,
        )


class Usages:
    """Usage and quotas."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def of(self, name: str, *, days: int = 30) -> Usage:
        """Return what was counted of a model in the last days, today among them."""
        return Usage.read(self._wire.json("GET", f"{refs.model_path(name)}/usage", params={"days": days}))

    def mine(self) -> Quota:
        """Return what you have and may have."""
        return Quota.read(self._wire.json("GET", "/api/v1/me/usage"))

    def set_quota(
        self, user_id: str, *, plan: str = "free", max_models: int | None = None, max_bytes: int | None = None
    ) -> Quota:
        """Give a user a plan, and limits of their own where not None. Admins only."""
        body = {"plan": plan, "max_models": max_models, "max_bytes": max_bytes}
        return Quota.read(self._wire.json("PUT", f"/api/v1/users/{quote(user_id, safe='')}/quota", json=body))
