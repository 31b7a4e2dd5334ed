"""Approvals: who vouches for a version on a target."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.examples import LATER, example
from registry.gates import TARGET

_APPROVAL = {
    "id": "37693cfc-7480-49e4-9d87-b8c7d8b9aacd",
    "version": "1.0.0",
    "target": "production",
    "approved_by": "grace",
    "comment": "Looked at the confusion matrix of the hold-out set.",
    "created_at": LATER,
    "revoked_at": None,
}


class NewApproval(BaseModel):
    target: str = Field(default="production", pattern=TARGET, description="where to; `*`: everywhere")
    comment: str = Field(default="", max_length=2000)

    model_config = example(target="production", comment=_APPROVAL["comment"])


class Approval(BaseModel):
    id: UUID
    version: str
    target: str
    approved_by: str
    comment: str
    created_at: datetime
    revoked_at: datetime | None = Field(description="since when it counts no longer")

    model_config = example(**_APPROVAL)


class Approvals(BaseModel):
    items: list[Approval]

    model_config = example(items=[_APPROVAL])
