"""How much is used, and how much one may have."""

from __future__ import annotations

import datetime as dt

from pydantic import BaseModel, Field

from api.schemas.examples import LATER, example

_USED = {"downloads": 3, "predictions": 120, "bytes": 262236, "last_used": LATER}


class Used(BaseModel):
    downloads: int
    predictions: int
    bytes: int = Field(description="that downloads were for")
    last_used: dt.datetime | None


class Day(Used):
    day: dt.date = Field(description="UTC")


class OfVersion(Used):
    version: str
    right: int = Field(description="predictions that feedback found right")
    wrong: int
    accuracy: float | None = Field(description="by feedback; null before there is any")


class Usage(Used):
    """What was counted of a model in the last days: as a whole, by day and by version."""

    days: int
    by_day: list[Day]
    by_version: list[OfVersion]

    model_config = example(
        **_USED,
        days=30,
        by_day=[_USED | {"day": "2026-11-20"}],
        by_version=[_USED | {"version": "1.0.0", "right": 19, "wrong": 1, "accuracy": 0.95}],
    )


class Amount(BaseModel):
    used: int
    allowed: int | None = Field(description="null: as many as one likes")


class Account(BaseModel):
    """What a user has and may have. Every content counts once, also of deleted versions until they are purged."""

    plan: str
    models: Amount
    bytes: Amount

    model_config = example(
        plan="free", models={"used": 2, "allowed": 20}, bytes={"used": 183204, "allowed": 10737418240}
    )


class Quota(BaseModel):
    """Replaces what was set before: what is left out is as the plan says."""

    plan: str = Field(default="free", max_length=64, description="one of the setting PLANS")
    max_models: int | None = Field(default=None, ge=0, le=2**31 - 1)
    max_bytes: int | None = Field(default=None, ge=0, le=2**62)

    model_config = example(plan="premium", max_models=None, max_bytes=107374182400)
