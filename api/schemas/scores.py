"""The net score."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from api.schemas.examples import example

Share = Annotated[float, Field(ge=0, le=1)]


class SubScore(BaseModel):
    name: str = Field(description="such as `ramp_up`; docs/net-score.md explains each")
    weight: float
    value: Share | None = Field(description="null: there is no evidence, and it does not count")
    because: str
    parts: dict[str, float] = Field(description="what the value is made of, where it is made of parts")


class Score(BaseModel):
    """From evidence that Slipway holds alone. What nothing is known of does not count."""

    version: str
    net_score: Share = Field(description="the weighted mean of the sub-scores that are known")
    known: Share = Field(description="the share of the whole weight that there is evidence for")
    sub_scores: list[SubScore]

    model_config = example(
        version="1.0.0",
        net_score=0.81,
        known=0.8,
        sub_scores=[
            {
                "name": "licence",
                "weight": 0.15,
                "value": 1.0,
                "because": "Apache-2.0 is declared and known",
                "parts": {},
            },
            {
                "name": "performance_claims",
                "weight": 0.15,
                "value": None,
                "because": "no declared metric could be held against a measured one",
                "parts": {},
            },
        ],
    )
