"""How models are served."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.examples import example

_URL = "https://serving.example.org/v2/models/ada/digits"


class Endpoint(BaseModel):
    """Where a model answers, and by which rules."""

    model: str
    owner: str
    url: str = Field(description="of the Open Inference Protocol: `/infer` is below it")
    predict_url: str = Field(description="of the simple form: POST named inputs, or an image")
    schema_url: str = Field(description="what it takes and gives, as JSON Schema with an example")
    auth_required: bool = Field(
        description="false: anybody may ask for predictions and what the model takes and gives, also of a private model"
    )
    requests_per_minute: int | None = Field(description="of each caller to this model; null: as their plan says")
    timeout: float = Field(description="seconds that a prediction may last")
    own_timeout: bool = Field(description="false: the timeout is the one of all models")
    revision: int = Field(description="its ETag")

    model_config = example(
        model="digits",
        owner="ada",
        url=_URL,
        predict_url="https://serving.example.org/api/v1/models/ada/digits/predict",
        schema_url=f"{_URL}/schema",
        auth_required=True,
        requests_per_minute=120,
        timeout=30.0,
        own_timeout=False,
        revision=2,
    )


class EndpointChange(BaseModel):
    """What is to be different; what is left out stays, null goes back to what counts for all models."""

    auth_required: bool = True
    requests_per_minute: int | None = Field(default=None, ge=0, le=1_000_000, description="0: nobody may ask")
    timeout: float | None = Field(
        default=None, ge=0.001, le=86_400, description="seconds; never more than the server's own limit"
    )

    model_config = ConfigDict(**example(requests_per_minute=120), extra="forbid")
