"""Deployments: a version live on a target, and what was before."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from api.schemas.examples import LATER, MODEL, example
from api.schemas.gates import OUTCOME, Outcome

Target = Literal["development", "staging", "production"]
DeploymentStatus = Literal["live", "superseded", "rolled_back", "ended"]
Reason = Annotated[str, Field(min_length=1, max_length=2000, description="for those who read the history")]
MAX_CONFIG = 16 << 10


def _short(config: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(config)) > MAX_CONFIG:
        raise ValueError(f"may have {MAX_CONFIG >> 10} KiB as JSON, no more")
    return config


Config = Annotated[
    dict[str, Any], AfterValidator(_short), Field(description="whatever serving it there needs to know; up to 16 KiB")
]

_ID = "1679091c-5a88-4faf-afb5-e6087eb1b2dc"
_DEPLOYMENT = {
    "id": _ID,
    "model": "digits",
    "owner": "ada",
    "version": "1.0.0",
    "target": "production",
    "status": "live",
    "config": {"replicas": 2},
    "note": "Better on the hold-out set than 0.9.0.",
    "deployed_by": "grace",
    "deployed_at": LATER,
    "ended_by": None,
    "ended_at": None,
    "reason": None,
    "previous": None,
    "links": {
        "self": f"/api/v1/models/{MODEL}/deployments/{_ID}",
        "version": f"/api/v1/models/{MODEL}/versions/1.0.0",
    },
}


class NewDeployment(BaseModel):
    version: str = Field(min_length=1, max_length=64, description="which one, as everywhere: `1.0.0`, `3`, `latest`")
    target: Target
    config: Config = Field(default_factory=dict)
    reason: str = Field(default="", max_length=2000, description="why; the deployment's `note`")

    model_config = example(
        version="1.0.0", target="production", config={"replicas": 2}, reason="Better on the hold-out set than 0.9.0."
    )


class Deploy(BaseModel):
    """`NewDeployment`, with the model in the body and the field names that many scripts use."""

    model_name: str = Field(min_length=1, max_length=200, description="a name of yours, `owner/name`, or an id")
    version: str = Field(min_length=1, max_length=64)
    deployment_target: Target
    deployment_config: Config = Field(default_factory=dict)
    deployed_by: str | None = Field(
        default=None, max_length=200, description="kept in the audit trail; who deploys is who is signed in"
    )

    model_config = example(model_name="digits", version="v1", deployment_target="production", deployed_by="ci")


class Ending(BaseModel):
    reason: Reason

    model_config = example(reason="It confuses 3 and 8 on the new cameras.")


class DeploymentSummary(BaseModel):
    id: UUID
    model: str
    owner: str
    version: str
    target: Target
    status: DeploymentStatus
    config: dict[str, Any]
    note: str = Field(description="why it was deployed")
    deployed_by: str
    deployed_at: datetime
    ended_by: str | None = Field(description="null while it is live, and where Slipway itself took it down")
    ended_at: datetime | None
    reason: str | None = Field(description="why it ended")
    previous: UUID | None = Field(description="the deployment that it took the place of")
    links: dict[str, str]

    model_config = example(**_DEPLOYMENT)


class Deployment(DeploymentSummary):
    gates: list[Outcome] = Field(description="what each gate said when it was deployed")

    model_config = example(**_DEPLOYMENT, gates=[OUTCOME | {"state": "passed", "found": 3.2, "needed": None}])


class Deployments(BaseModel):
    items: list[DeploymentSummary]
    next: str | None = Field(description="cursor of the next page")

    model_config = example(items=[_DEPLOYMENT], next=None)
