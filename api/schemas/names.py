"""What was found about names of models."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from api.schemas.examples import WHEN, example

Outcome = Literal["fine", "warn", "block"]
_SIMILAR = {"name": "digits", "owner": "ada", "relation": "looks_the_same"}


class SimilarName(BaseModel):
    name: str
    owner: str
    relation: Literal["looks_the_same", "one_typo_away", "two_typos_away", "same_name"]


class NameCheck(BaseModel):
    """`block`: it would be taken for a model that is there. `warn`: it may be a mistake for one, and wants to be confirmed."""

    name: str
    outcome: Outcome
    similar: list[SimilarName]

    model_config = example(name="d1gits", outcome="block", similar=[_SIMILAR])


class RememberedCheck(NameCheck):
    id: int
    asked_by: str | None = Field(description="null: the user is gone")
    confirmed: bool = Field(description="whoever asked wanted the name although it may be a mistake")
    at: datetime

    model_config = example(
        id=7, name="d1gits", outcome="block", similar=[_SIMILAR], asked_by="mallory", confirmed=False, at=WHEN
    )


class NameChecks(BaseModel):
    items: list[RememberedCheck]
    next: int | None = Field(description="`before` of the next page")

    model_config = example(
        items=[
            {
                "id": 7,
                "name": "d1gits",
                "outcome": "block",
                "similar": [_SIMILAR],
                "asked_by": "mallory",
                "confirmed": False,
                "at": WHEN,
            }
        ],
        next=None,
    )
