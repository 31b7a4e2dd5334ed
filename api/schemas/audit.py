"""The audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.examples import LATER, SHA, USER, VERSION, example

_ENTRY = {
    "id": 42,
    "at": LATER,
    "actor": "grace",
    "actor_id": USER,
    "action": "waiver.granted",
    "subject": VERSION,
    "details": {"rule": "pickle.global", "sha256": SHA},
    "previous": "0" * 64,
    "hash": SHA,
}


class AuditEntry(BaseModel):
    id: int = Field(description="1, 2, 3, … without gaps")
    at: datetime
    actor: str
    actor_id: UUID | None = Field(description="null: Slipway itself")
    action: str
    subject: str = Field(description="id of what it is about: a version, a model, a user, a key, …")
    details: dict[str, Any]
    previous: str
    hash: str = Field(description="SHA-256 of `previous` and this entry")

    model_config = example(**_ENTRY)


class AuditTrail(BaseModel):
    items: list[AuditEntry]
    next: int | None = Field(description="`before` of the next page")

    model_config = example(items=[_ENTRY], next=None)


class AuditFault(BaseModel):
    what: Literal["changed", "removed", "rewritten", "unsigned"] = Field(
        description="changed: not what was written; removed: gone; rewritten: not what was signed at `last`; unsigned: no "
        "trusted key made the checkpoint at it"
    )
    first: int
    last: int

    model_config = example(what="changed", first=17, last=17)


class AuditCheck(BaseModel):
    intact: bool
    entries: int = Field(description="that fit, from the first on")
    head: str = Field(description="the last hash of those; note it elsewhere to notice when the end is cut off")
    broken_at: int | None = Field(description="the first entry with which something is wrong")
    signed: int | None = Field(description="the last entry with a checkpoint that holds")
    faults: list[AuditFault]

    model_config = example(intact=True, entries=42, head=SHA, broken_at=None, signed=40, faults=[])
