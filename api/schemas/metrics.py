"""What was measured of versions, on which data, and when."""

from __future__ import annotations

from datetime import datetime

from pydantic import AwareDatetime, BaseModel, Field, FiniteFloat

from api.schemas.examples import LATER, example

METRIC = {
    "id": 7,
    "name": "accuracy",
    "value": 0.95,
    "dataset": "sklearn digits",
    "at": LATER,
    "recorded_by": "ada",
}


class Metric(BaseModel):
    id: int
    name: str
    value: float
    dataset: str | None
    at: datetime = Field(description="when it was measured")
    recorded_by: str | None = Field(description="null: Slipway itself, or somebody who has left")

    model_config = example(**METRIC)


class NewMetric(BaseModel):
    name: str = Field(
        min_length=1,
        max_length=64,
        description="accuracy, precision, recall, f1 or mAP (0 to 1), or a name of your own: a-z, 0-9, _ . @ -",
    )
    value: FiniteFloat
    dataset: str | None = Field(default=None, min_length=1, max_length=512)
    at: AwareDatetime | None = Field(default=None, description="when it was measured; default: now")

    model_config = example(name="accuracy", value=0.95, dataset="sklearn digits", at=LATER)


class NewMetrics(BaseModel):
    metrics: list[NewMetric] = Field(min_length=1, max_length=100)

    model_config = example(
        metrics=[
            {"name": "accuracy", "value": 0.95, "dataset": "sklearn digits"},
            {"name": "loss@epoch-20", "value": 0.11},
        ]
    )


class Metrics(BaseModel):
    items: list[Metric]
    next: int | None = Field(default=None, description="`before` of the next page")

    model_config = example(items=[METRIC], next=None)
