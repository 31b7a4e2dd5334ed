"""Aliases, and the moves they made."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.examples import LATER, MODEL, VERSION, example

_ALIAS = {
    "name": "production",
    "version": "1.1.0",
    "version_id": VERSION,
    "protected": True,
    "revision": 12,
    "moved_at": LATER,
    "moved_by": "ada",
    "reason": "0.4 % more accurate, same speed",
    "links": {
        "self": f"/api/v1/models/{MODEL}/aliases/production",
        "history": f"/api/v1/models/{MODEL}/aliases/production/history",
        "version": f"/api/v1/models/{MODEL}/versions/1.1.0",
    },
}
_MOVE = {
    "id": 12,
    "version": "1.1.0",
    "previous": "1.0.0",
    "at": LATER,
    "moved_by": "ada",
    "reason": "0.4 % more accurate, same speed",
}


class Alias(BaseModel):
    name: str
    version: str
    version_id: UUID
    protected: bool = Field(description="moving it takes models:deploy and passes the model's gates")
    revision: int = Field(description="its ETag: the number of the move that made it point here")
    moved_at: datetime
    moved_by: str | None = Field(description="null: Slipway itself")
    reason: str
    links: dict[str, str]

    model_config = example(**_ALIAS)


class Aliases(BaseModel):
    items: list[Alias]
    next: str | None = None

    model_config = example(items=[_ALIAS], next=None)


class AliasMove(BaseModel):
    id: int
    version: str | None = Field(description="null: it was taken away")
    previous: str | None = Field(description="null: it pointed nowhere before")
    at: datetime
    moved_by: str | None = Field(description="null: Slipway itself")
    reason: str

    model_config = example(**_MOVE)


class AliasHistory(BaseModel):
    items: list[AliasMove]
    next: int | None = Field(default=None, description="`before` of the next page")

    model_config = example(items=[_MOVE], next=None)


_REFERENCE: Any = Field(
    min_length=1,
    max_length=64,
    description="a SemVer, an ordinal, another alias, or `latest`; what it means now is kept",
)
_REASON: Any = Field(default="", max_length=2000, description="for those who read the history")
_EXPECTED: Any = Field(
    default=None,
    max_length=64,
    description="where you believe that it points, null for nowhere; 412 where it does not. Left out: wherever it is",
)


class NewPlace(BaseModel):
    version: str = _REFERENCE
    reason: str = _REASON
    expected: str | None = _EXPECTED

    model_config = example(version="1.1.0", reason=_ALIAS["reason"], expected="1.0.0")


class Rollback(BaseModel):
    reason: str = Field(min_length=1, max_length=2000, description="for those who read the history")

    model_config = example(reason="Wrong on rotated scans.")
