"""Grants: what the owner of a model lets others do with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

from slipway import refs
from slipway.records import Json, moment
from slipway.transport import Wire, given


@dataclass(frozen=True, kw_only=True)
class Grant:
    """That `username` may do what `permission` is for with one model, until `expires_at` where there is an end."""

    username: str
    permission: str
    granted_by: str = ""
    granted_at: datetime | None = None
    expires_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Grant:
        """Read it from an answer."""
        return cls(
            username=str(data["username"]),
            permission=str(data["permission"]),
            granted_by=str(data.get("granted_by") or ""),
            granted_at=moment(data.get("granted_at")),
            expires_at=moment(data.get("expires_at")),
            raw=data,
        )


class Grants:
    """Grants of models that you own."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def list(self, model: str) -> Sequence[Grant]:
        """Return a model's grants that count now."""
        return [Grant.read(item) for item in self._wire.pages(f"{refs.model_path(model)}/grants")]

    def give(self, model: str, username: str, permission: str, *, expires_in_days: int | None = None) -> Grant:
        """Let somebody do something with a model; given again, the new end counts."""
        body = given({"expires_in_days": expires_in_days})
        return Grant.read(self._wire.json("PUT", _path(model, username, permission), json=body))

    def revoke(self, model: str, username: str, permission: str) -> None:
        """Take a grant back; it counts no longer from now on."""
        self._wire.send("DELETE", _path(model, username, permission))


def _path(model: str, username: str, permission: str) -> str:
    return f"{refs.model_path(model)}/grants/{quote(username, safe='')}/{quote(permission, safe='')}"
