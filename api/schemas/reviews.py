"""Quarantine, waivers, condemnations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field, model_validator

from api.schemas.examples import LATER, RUN, SHA, VERSION, WHEN, example
from api.schemas.files import Verdict

ReviewState = Literal["waiting", "scanning", "condemned"]

_DIGEST = Field(
    default=None,
    pattern=r"^[0-9a-f]{64}$",
    description="of one of the version's files; default: the only one it can be",
)
_STOP = {"sha256": SHA, "rule": "pickle.global", "severity": "unknown", "waived": None}
_FINDING = {
    "rule": "pickle.global",
    "severity": "unknown",
    "path": "digits.pt!digits/data.pkl",
    "offset": 412,
    "message": "The pickle names acme.layers.Gate, which is not on the list.",
    "advice": "Export the model again with a current version of its framework, or have a reviewer look at the file.",
    "sha256": SHA,
}
_QUARANTINED = {
    "id": VERSION,
    "model": "digits",
    "owner": "ada",
    "version": "1.0.0",
    "format": "torchscript",
    "filename": "digits.pt",
    "size": 87412,
    "sha256": SHA,
    "verdict": "unknown",
    "status": "waiting",
    "created_at": WHEN,
    "ruleset": "archive/1 pickle/1",
    "counts": {"unknown": 1},
    "stops": [_STOP],
    "run": RUN,
    "links": {
        "self": f"/api/v1/quarantine/{VERSION}",
        "download": f"/api/v1/quarantine/{VERSION}/download",
        "run": f"/api/v1/runs/{RUN}",
    },
}
_WAIVER = {
    "id": "45c48cce-2e2d-4fbd-aa1a-fc51c7c6ad26",
    "sha256": SHA,
    "rule": "pickle.global",
    "reason": "acme.layers.Gate is our own layer; its source was read.",
    "granted_by": "grace",
    "granted_at": LATER,
    "expires_at": "2027-02-18T12:00:00Z",
    "revoked_at": None,
    "counts": True,
}
_CONDEMNED = {
    "sha256": SHA,
    "reason": "Opens a shell when it is loaded.",
    "condemned_by": "grace",
    "condemned_at": LATER,
}


class Stop(BaseModel):
    """A rule that keeps a file from passing."""

    sha256: str = Field(description="of the file")
    rule: str
    severity: Literal["unknown", "malicious"]
    waived: UUID | None = Field(description="the waiver that let it pass")


class QuarantineSummary(BaseModel):
    id: UUID = Field(description="of the version")
    model: str
    owner: str
    version: str
    format: str
    filename: str
    size: int
    sha256: str
    verdict: Verdict
    status: ReviewState
    created_at: datetime
    ruleset: str | None = Field(description="the rules that it was judged by")
    counts: dict[str, int] = Field(description="findings by severity")
    stops: list[Stop] = Field(description="all that keeps it from passing; empty while its run goes on")
    run: UUID | None
    links: dict[str, str]

    model_config = example(**_QUARANTINED)


class Quarantine(BaseModel):
    items: list[QuarantineSummary]
    next: str | None = Field(description="cursor of the next page")

    model_config = example(items=[_QUARANTINED], next=None)


class Waiver(BaseModel):
    id: UUID
    sha256: str = Field(description="of the one file that it is for")
    rule: str
    reason: str
    granted_by: str
    granted_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    counts: bool

    model_config = example(**_WAIVER)


class Condemned(BaseModel):
    sha256: str
    reason: str
    condemned_by: str
    condemned_at: datetime

    model_config = example(**_CONDEMNED)


class QuarantinedVersion(QuarantineSummary):
    findings: list[dict[str, Any]] = Field(description="what stopped it first; `offset` is in the member of `path`")
    files: list[dict[str, Any]]
    waivers: list[Waiver]
    condemned: list[Condemned]

    model_config = example(
        **_QUARANTINED,
        findings=[_FINDING],
        files=[{"role": "model", "name": "digits.pt", "sha256": SHA, "size": 87412}],
        waivers=[_WAIVER],
        condemned=[],
    )


_Reason = Annotated[str, Field(min_length=10, max_length=2000, description="for those who read the audit trail")]


class NewWaiver(BaseModel):
    rule: str = Field(min_length=1, max_length=200, description="exactly as the finding names it")
    reason: _Reason
    sha256: str | None = _DIGEST
    days: int | None = Field(default=None, ge=1, le=366)
    expires_at: AwareDatetime | None = None

    model_config = example(rule="pickle.global", reason=_WAIVER["reason"], days=90)

    @model_validator(mode="after")
    def _ends(self) -> NewWaiver:
        if (self.days is None) == (self.expires_at is None):
            raise ValueError("say either days or expires_at")
        return self


class Waived(BaseModel):
    waiver: Waiver
    run: UUID
    resumed: bool = Field(description="false: other rules still stop the version")
    remaining: list[Stop]
    links: dict[str, str]

    model_config = example(
        waiver=_WAIVER,
        run=RUN,
        resumed=True,
        remaining=[],
        links={"run": f"/api/v1/runs/{RUN}", "version": f"/api/v1/quarantine/{VERSION}"},
    )


class RevokedWaiver(BaseModel):
    waiver: Waiver
    runs: list[UUID] = Field(description="of the versions that are scanned again")

    model_config = example(waiver=_WAIVER | {"revoked_at": LATER, "counts": False}, runs=[RUN])


class Condemnation(BaseModel):
    reason: _Reason
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="default: the model's")

    model_config = example(reason=_CONDEMNED["reason"])
