"""Models and lists of them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.examples import LATER, MODEL, WHEN, example
from api.schemas.files import Verdict


class Latest(BaseModel):
    version: str
    ordinal: int
    format: str
    verdict: Verdict
    status: str
    published_at: datetime | None
    created_at: datetime


_LATEST = {
    "version": "1.0.0",
    "ordinal": 1,
    "format": "onnx",
    "verdict": "clean",
    "status": "approved",
    "published_at": LATER,
    "created_at": WHEN,
}
_MODEL_BODY = {
    "id": MODEL,
    "name": "digits",
    "owner": "ada",
    "description": "Handwritten digits, 8 x 8",
    "model_type": "classification",
    "framework": "pytorch",
    "licence": "Apache-2.0",
    "tags": ["demo"],
    "visibility": "private",
    "created_at": WHEN,
    "updated_at": LATER,
    "latest": _LATEST,
    "links": {"self": f"/api/v1/models/{MODEL}", "versions": f"/api/v1/models/{MODEL}/versions"},
}


class Model(BaseModel):
    id: UUID
    name: str
    owner: str
    description: str
    model_type: str | None
    framework: str | None
    licence: str | None
    tags: list[str]
    visibility: Literal["private", "public"]
    created_at: datetime
    updated_at: datetime
    latest: Latest | None
    links: dict[str, str]

    model_config = example(**_MODEL_BODY)


class Models(BaseModel):
    items: list[Model]
    next: str | None = Field(description="cursor of the next page")
    total: int | None = Field(default=None, description="with page, size, skip: how many there are")

    model_config = example(items=[_MODEL_BODY], next=None, total=None)
