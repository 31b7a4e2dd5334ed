"""Models and lists of them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field

from api.schemas.examples import LATER, MODEL, VERSION, WHEN, example
from api.schemas.files import Verdict
from pipeline import upload as form

Target = Literal["development", "staging", "production"]


def _field(name: str) -> AfterValidator:
    """Checked as the upload form's field of that name is."""
    return AfterValidator(form.FIELDS[name].read)


def _tags(words: list[str]) -> list[str]:
    read: list[str] = form.FIELDS["tags"].read(json.dumps(words))
    return read


Name = Annotated[str, Field(min_length=1, max_length=128), _field("name")]
Prose = Annotated[str, Field(max_length=10_000), _field("description")]
Slug = Annotated[str, Field(min_length=1, max_length=64), _field("model_type")]
Licence = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        description="an SPDX expression; `LicenseRef-…` for one of your own",
    ),
    _field("licence"),
]
Tags = Annotated[list[str], Field(max_length=50), AfterValidator(_tags)]
Card = Annotated[str, Field(description="Markdown, at most 256 KiB"), AfterValidator(form.card)]
Alias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9._-]{0,62}$")]


def _licence() -> Any:
    return Field(default=None, validation_alias=AliasChoices("licence", "license"))


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
    "is_active": True,
    "protected_aliases": ["production"],
    "has_card": True,
    "revision": 3,
    "created_at": WHEN,
    "updated_at": LATER,
    "deleted_at": None,
    "latest": _LATEST,
    "request_count": 123,
    "last_used": LATER,
    "stages": ["staging"],
    "rating": 4.5,
    "ratings": 2,
    "downloads": 17,
    "endpoint_url": "https://serving.example.org/v2/models/ada/digits",
    "links": {
        "self": f"/api/v1/models/{MODEL}",
        "versions": f"/api/v1/models/{MODEL}/versions",
        "card": f"/api/v1/models/{MODEL}/card",
        "ratings": f"/api/v1/models/{MODEL}/ratings",
        "usage": f"/api/v1/models/{MODEL}/usage",
        "endpoint": f"/api/v1/models/{MODEL}/endpoint",
    },
}


class Model(BaseModel):
    id: UUID
    name: str
    owner: str
    description: str
    model_type: str | None
    framework: str | None
    licence: str | None = Field(description="an SPDX expression")
    tags: list[str]
    visibility: Literal["private", "public"]
    is_active: bool = Field(description="whether its owner still stands by it")
    protected_aliases: list[str] = Field(description="aliases that only move where every gate says yes")
    has_card: bool
    revision: int = Field(description="goes up with every change; the ETag begins with it")
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = Field(description="in lists of what was deleted")
    latest: Latest | None
    stages: list[str] = Field(description="where a version of it is live: development, staging, production")
    rating: float | None = Field(description="the average, 1 to 5; null: nobody has rated it")
    ratings: int = Field(description="how many there are")
    downloads: int
    request_count: int = Field(description="downloads and predictions, ever")
    last_used: datetime | None
    endpoint_url: str = Field(description="where it answers, by the Open Inference Protocol, once something is live")
    links: dict[str, str]

    model_config = example(**_MODEL_BODY)


class Models(BaseModel):
    items: list[Model]
    next: str | None = Field(description="cursor of the next page")
    total: int | None = Field(default=None, description="with page, size, skip: how many there are")

    model_config = example(items=[_MODEL_BODY], next=None, total=None)


def _strict(**fields: Any) -> ConfigDict:
    return ConfigDict(**example(**fields), extra="forbid", populate_by_name=True)


class NewModel(BaseModel):
    """A model without a version yet."""

    name: Name
    description: Prose = ""
    model_type: Slug | None = None
    framework: Slug | None = None
    licence: Licence | None = _licence()
    tags: Tags = []
    visibility: Literal["private", "public"] = "private"
    card: Card | None = None
    confirm_name: bool = Field(default=False, description="the name is no mistake for the one that it is near")

    model_config = _strict(
        name="digits", description="Handwritten digits, 8 x 8", model_type="classification", licence="Apache-2.0"
    )


class ModelChange(BaseModel):
    """What is to be different; what is left out stays. null empties what may be empty."""

    description: Prose = ""
    model_type: Slug | None = None
    framework: Slug | None = None
    licence: Licence | None = _licence()
    tags: Tags = []
    visibility: Literal["private", "public"] = "private"
    is_active: bool = True
    card: Card | None = None
    protected_aliases: Annotated[list[Alias], Field(max_length=20)] = []

    model_config = _strict(description="Handwritten digits, 28 x 28", tags=["demo", "edge"])


class Removed(BaseModel):
    """What was deleted, and until when it can be restored."""

    id: UUID
    name: str = Field(description="the model's name, or the version")
    deleted_at: datetime | None = Field(description="null: purged, it does not come back")
    restorable_until: datetime | None

    model_config = example(id=MODEL, name="digits", deleted_at=WHEN, restorable_until="2026-12-20T12:00:00Z")


QUERIED = {"name": "digits", "version": "1.0.0", "regex": "^dig"}


class VersionQuery(BaseModel):
    """All that is given must fit."""

    name: str | None = Field(default=None, min_length=1, max_length=200, description="`name` or `owner/name`")
    version: Annotated[str, Field(max_length=64), _field("version")] | None = None
    regex: str | None = Field(default=None, min_length=1, max_length=200, description="for names, POSIX")

    model_config = _strict(**QUERIED)


class FoundVersion(BaseModel):
    id: UUID
    model_id: UUID
    name: str
    owner: str
    version: str
    ordinal: int
    description: str
    model_type: str | None
    framework: str | None
    licence: str | None
    format: str
    size: int = Field(description="bytes")
    sha256: str
    verdict: Verdict
    status: str
    published_at: datetime | None
    created_at: datetime
    links: dict[str, str]


class FoundVersions(BaseModel):
    items: list[FoundVersion]
    total: int
    offset: int
    limit: int

    model_config = example(
        items=[
            {
                "id": VERSION,
                "model_id": MODEL,
                "name": "digits",
                "owner": "ada",
                "version": "1.0.0",
                "ordinal": 1,
                "description": "Handwritten digits, 8 x 8",
                "model_type": "classification",
                "framework": "pytorch",
                "licence": "Apache-2.0",
                "format": "onnx",
                "size": 48230,
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "verdict": "clean",
                "status": "approved",
                "published_at": LATER,
                "created_at": WHEN,
                "links": {
                    "self": f"/api/v1/models/{MODEL}/versions/1.0.0",
                    "model": f"/api/v1/models/{MODEL}",
                },
            }
        ],
        total=1,
        offset=0,
        limit=50,
    )
