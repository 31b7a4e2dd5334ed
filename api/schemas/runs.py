"""Runs and their steps."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.examples import LATER, MODEL, RUN, WHEN, example
from api.schemas.files import FILE, File

RunStatus = Literal["queued", "running", "succeeded", "rejected", "failed", "cancelled"]
StepStatus = Literal["pending", "queued", "running", "passed", "refused", "broke", "skipped"]
Purpose = Literal["intake", "rescan", "variant", "rebuild"]


class Step(BaseModel):
    stage: str
    queue: str
    status: StepStatus
    attempt: int
    max_attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    code: str | None
    detail: str | None
    report: dict[str, Any] | None = Field(description="what the stage learned")


_RUN_LINKS = {
    "self": f"/api/v1/runs/{RUN}",
    "events": f"/api/v1/runs/{RUN}/events",
    "model": f"/api/v1/models/{MODEL}",
    "version": f"/api/v1/models/{MODEL}/versions/1.0.0",
}
_SUMMARY = {
    "id": RUN,
    "purpose": "intake",
    "status": "running",
    "stage": "convert",
    "waiting": None,
    "model": "digits",
    "version": "1.0.0",
    "code": None,
    "detail": None,
    "created_at": WHEN,
    "updated_at": LATER,
    "finished_at": None,
    "links": _RUN_LINKS,
}
_STEP = {
    "stage": "scan",
    "queue": "scan",
    "status": "passed",
    "attempt": 1,
    "max_attempts": 5,
    "started_at": WHEN,
    "finished_at": LATER,
    "code": None,
    "detail": None,
    "report": {"verdict": "clean", "findings": []},
}


class RunSummary(BaseModel):
    id: UUID
    purpose: Purpose = Field(
        description="intake: to let the version in; rescan: another look at what was let in; variant: to add variants to "
        "it; rebuild: to make its artifacts again and compare"
    )
    status: RunStatus
    stage: str | None = Field(description="where the run is or stopped; null once it has succeeded")
    waiting: str | None = Field(
        description="while queued: for which worker, where none that could take the step is online"
    )
    model: str
    version: str
    code: str | None = Field(description="why it was rejected, failed, cancelled, or why the last attempt broke")
    detail: str | None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None
    links: dict[str, str]

    model_config = example(**_SUMMARY)


class Run(RunSummary):
    steps: list[Step]
    artifacts: list[File]

    model_config = example(**_SUMMARY, steps=[_STEP], artifacts=[FILE])


class Runs(BaseModel):
    items: list[RunSummary]
    next: str | None = Field(description="cursor of the next page")

    model_config = example(items=[_SUMMARY], next=None)


class RetryFrom(BaseModel):
    from_: str | None = Field(
        default=None, alias="from", max_length=64, description="a stage; default: where it stopped"
    )

    model_config = example(**{"from": "convert"})
