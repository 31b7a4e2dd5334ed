"""Ratings of models."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.schemas.examples import WHEN, example
from pipeline import upload as form

_RATING = {
    "user": "grace",
    "score": 5,
    "review": "Right even on my handwriting.",
    "version": "1.0.0",
    "created_at": WHEN,
    "updated_at": WHEN,
}


class NewRating(BaseModel):
    score: int = Field(ge=1, le=5)
    review: Annotated[str, Field(max_length=4000), AfterValidator(form.FIELDS["description"].read)] = ""
    version: str | None = Field(default=None, max_length=64, description="the one that you have tried")

    model_config = ConfigDict(
        **example(score=5, review="Right even on my handwriting.", version="1.0.0"), extra="forbid"
    )


class Rating(BaseModel):
    user: str
    score: int
    review: str
    version: str | None
    created_at: datetime
    updated_at: datetime

    model_config = example(**_RATING)


class Ratings(BaseModel):
    items: list[Rating]
    next: str | None = Field(description="cursor of the next page")
    average: float | None
    count: int

    model_config = example(items=[_RATING], next=None, average=5.0, count=1)
