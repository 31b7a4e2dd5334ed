"""What operators do to a whole installation."""

from __future__ import annotations

from pydantic import BaseModel, Field

from api.schemas.examples import example


class Emptied(BaseModel):
    """How many of each there were."""

    models: int
    versions: int
    users: int
    objects: int = Field(description="stored files")

    model_config = example(models=2, versions=5, users=3, objects=41)
