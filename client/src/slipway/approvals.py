"""Approvals: who vouches for a version on a target."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

from slipway import refs
from slipway.records import Json, moment
from slipway.transport import Wire


@dataclass(frozen=True, kw_only=True)
class Approval:
    """One that was given; with `revoked_at` it counts no longer."""

    id: str
    version: str
    target: str
    approved_by: str
    comment: str = ""
    created_at: datetime | None = None
    revoked_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, data: Json) -> Approval:
        """Read it from an answer."""
        return cls(
            id=str(data["id"]),
            version=str(data.get("version") or ""),
            target=str(data.get("target") or ""),
            approved_by=str(data.get("approved_by") or ""),
            comment=str(data.get("comment") or ""),
            created_at=moment(data.get("created_at")),
            revoked_at=moment(data.get("revoked_at")),
            raw=data,
        )


class Approvals:
    """Who approves of which version."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def of(self, ref: str) -> list[Approval]:
        """Return all that there ever were for the version that `NAME[@REF]` means, newest first."""
        return [Approval.read(item) for item in self._wire.json("GET", _path(ref)).get("items") or ()]

    def approve(self, ref: str, target: str = "production", *, comment: str = "") -> Approval:
        """Approve a version that somebody else uploaded; raises NotAllowed (`own_upload`) for your own."""
        body = {"target": target, "comment": comment}
        return Approval.read(self._wire.json("POST", _path(ref), json=body))

    def revoke(self, ref: str, approval_id: str) -> Approval:
        """Take an approval back."""
        return Approval.read(self._wire.json("DELETE", f"{_path(ref)}/{quote(approval_id, safe='')}"))


def _path(ref: str) -> str:
    return refs.version_path(*refs.parse(ref)) + "/approvals"
