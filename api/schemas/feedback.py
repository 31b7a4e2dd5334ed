"""What turned out of predictions: right or wrong, with the receipts that came with their answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, model_validator

from api.schemas.examples import example

RECEIPT = "BzeBK4R4UEvchlJY3cX1eVoOPnHp2LJN6Yu6nXdp_K4p5BiuKW68ugTGHJKRUSIoeNrSvHAp_wBqeVgJeSWOvQyX8GnP"


class NewFeedback(BaseModel):
    """Of one prediction: whether it was right, or what would have been."""

    prediction: str = Field(
        min_length=1, max_length=1024, description="the header `Slipway-Prediction` of its answer, as it was"
    )
    correct: bool | None = None
    label: str | None = Field(
        default=None, max_length=1000, description="what is right; compared with what was answered, to the letter"
    )

    model_config = example(prediction=RECEIPT, label="seven")

    @model_validator(mode="after")
    def _one_of_both(self) -> NewFeedback:
        if (self.correct is None) == (self.label is None):
            raise ValueError("takes either correct or label, one of the two")
        return self


MANY = 1000
Batch = Annotated[list[NewFeedback], Field(min_length=1, max_length=MANY)]


class Unrecorded(BaseModel):
    index: int = Field(description="of the list that was sent, from 0")
    code: str
    detail: str


class Recorded(BaseModel):
    """What was taken down of what was sent, and what was not and why."""

    recorded: int
    right: int
    wrong: int
    refused: list[Unrecorded] = Field(description="of a list; one alone is refused as a problem")

    model_config = example(recorded=1, right=0, wrong=1, refused=[])
