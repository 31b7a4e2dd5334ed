"""The shapes that cross HTTP, each with an example. Knows no row and no handler.

The example of a shape is also the example of every operation that answers with it (`api.reference` sees to that).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

Permission = Literal[
    "models:read",
    "models:download",
    "models:upload",
    "models:delete",
    "models:deploy",
    "models:predict",
    "models:review",
    "admin",
]
RunStatus = Literal["queued", "running", "succeeded", "rejected", "failed", "cancelled"]
StepStatus = Literal["pending", "queued", "running", "passed", "refused", "broke", "skipped"]
Verdict = Literal["pending", "clean", "malicious", "unknown"]
Purpose = Literal["intake", "rescan", "variant", "rebuild"]
ReviewState = Literal["waiting", "scanning", "condemned"]

_WHEN = "2026-11-20T12:00:00Z"
_LATER = "2026-11-20T12:00:21Z"
_RUN = "0d9d7e3c-6a0f-4b61-8d43-6a1cf1e0f7a2"
_USER = "5b0c2c1e-52fb-4f2b-9f0e-2d6f1f6f8f11"
_MODEL = "8f14e45f-ceea-467f-a0e6-3b7d9b1c2a55"
_VERSION = "c9f0f895-fb98-4b91-9a1e-7c1f2b3d4e66"
_SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [fields]})


class Login(BaseModel):
    username: str = Field(min_length=1, max_length=128)
    password: str = Field(min_length=1, max_length=1024)

    model_config = _example(username="ada", password="correct horse battery staple")  # noqa: S106 - an example


class Token(BaseModel):
    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a kind, no secret
    expires_in: int = Field(description="seconds")

    model_config = _example(
        access_token="eyJhbGciOiJIUzI1NiJ9.e30.c2ln",  # noqa: S106 - an example
        token_type="bearer",  # noqa: S106 - a kind, no secret
        expires_in=3600,
    )


class NewUser(BaseModel):
    username: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="lower case, so that no two look alike")
    password: str = Field(min_length=12, max_length=256)
    permissions: list[Permission] | None = Field(default=None, description="default: read, download, upload, predict")

    model_config = _example(
        username="grace",
        password="correct horse battery staple",  # noqa: S106 - an example
        permissions=["models:read"],
    )


class User(BaseModel):
    id: UUID
    username: str
    permissions: list[str]

    model_config = _example(id=_USER, username="grace", permissions=["models:read"])


class Me(User):
    via: Literal["jwt", "key"]

    model_config = _example(id=_USER, username="ada", permissions=["models:read", "models:upload"], via="key")


class NewKey(BaseModel):
    name: str = Field(min_length=1, max_length=100)
    scopes: list[Permission] | None = Field(default=None, min_length=1, description="default: all that you may now")
    expires_in_days: int | None = Field(default=None, ge=1, le=3650)

    model_config = _example(name="laptop", scopes=["models:read", "models:upload"], expires_in_days=90)


_KEY = {
    "id": "1679091c-5a88-4faf-8fb5-e6087eb1b2dc",
    "name": "laptop",
    "prefix": "slw_Zk3v9Q",
    "scopes": ["models:read", "models:upload"],
    "created_at": _WHEN,
    "expires_at": "2027-02-18T12:00:00Z",
}


class Key(BaseModel):
    id: UUID
    name: str
    prefix: str = Field(description="the key's first characters, to recognise it by")
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = None

    model_config = _example(**_KEY, last_used_at=_LATER)


class ShownKey(Key):
    key: str = Field(description="the key itself; this is the only time it is shown")

    model_config = _example(**_KEY, last_used_at=None, key="slw_Zk3v9QmTn0bE4yXw1sHdU8rJfLcPaVgOiBqKtR7eM2x")


class Keys(BaseModel):
    items: list[Key]
    next: str | None = None

    model_config = _example(items=[_KEY | {"last_used_at": _LATER}], next=None)


class File(BaseModel):
    """One stored file. `meta` is what the stage that made it says about it."""

    name: str
    role: str = Field(description="source, canonical, variant, manifest, sample, evidence")
    sha256: str
    size: int = Field(description="bytes")
    media_type: str
    meta: dict[str, Any]


class Artifact(File):
    created_at: datetime | None


_FILE = {
    "name": "onnx-fp32",
    "role": "canonical",
    "sha256": _SHA,
    "size": 87412,
    "media_type": "application/octet-stream",
    "meta": {"variant": "onnx-fp32", "opset": 20},
}


class Artifacts(BaseModel):
    items: list[Artifact]
    next: str | None = None

    model_config = _example(items=[_FILE | {"created_at": _LATER}], next=None)


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
    "self": f"/api/v1/runs/{_RUN}",
    "events": f"/api/v1/runs/{_RUN}/events",
    "model": f"/api/v1/models/{_MODEL}",
    "version": f"/api/v1/models/{_MODEL}/versions/1.0.0",
}
_SUMMARY = {
    "id": _RUN,
    "purpose": "intake",
    "status": "running",
    "stage": "convert",
    "waiting": None,
    "model": "digits",
    "version": "1.0.0",
    "code": None,
    "detail": None,
    "created_at": _WHEN,
    "updated_at": _LATER,
    "finished_at": None,
    "links": _RUN_LINKS,
}
_STEP = {
    "stage": "scan",
    "queue": "scan",
    "status": "passed",
    "attempt": 1,
    "max_attempts": 5,
    "started_at": _WHEN,
    "finished_at": _LATER,
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

    model_config = _example(**_SUMMARY)


class Run(RunSummary):
    steps: list[Step]
    artifacts: list[File]

    model_config = _example(**_SUMMARY, steps=[_STEP], artifacts=[_FILE])


class Runs(BaseModel):
    items: list[RunSummary]
    next: str | None = Field(description="cursor of the next page")

    model_config = _example(items=[_SUMMARY], next=None)


class RetryFrom(BaseModel):
    from_: str | None = Field(
        default=None, alias="from", max_length=64, description="a stage; default: where it stopped"
    )

    model_config = _example(**{"from": "convert"})


class Latest(BaseModel):
    version: str
    ordinal: int
    format: str
    verdict: Verdict
    status: str
    published_at: datetime | None
    created_at: datetime


_LATEST = {
    "version": "1.0.0",
    "ordinal": 1,
    "format": "onnx",
    "verdict": "clean",
    "status": "approved",
    "published_at": _LATER,
    "created_at": _WHEN,
}
_MODEL_BODY = {
    "id": _MODEL,
    "name": "digits",
    "owner": "ada",
    "description": "Handwritten digits, 8 x 8",
    "model_type": "classification",
    "framework": "pytorch",
    "licence": "Apache-2.0",
    "tags": ["demo"],
    "visibility": "private",
    "created_at": _WHEN,
    "updated_at": _LATER,
    "latest": _LATEST,
    "links": {"self": f"/api/v1/models/{_MODEL}", "versions": f"/api/v1/models/{_MODEL}/versions"},
}


class Model(BaseModel):
    id: UUID
    name: str
    owner: str
    description: str
    model_type: str | None
    framework: str | None
    licence: str | None
    tags: list[str]
    visibility: Literal["private", "public"]
    created_at: datetime
    updated_at: datetime
    latest: Latest | None
    links: dict[str, str]

    model_config = _example(**_MODEL_BODY)


class Models(BaseModel):
    items: list[Model]
    next: str | None = Field(description="cursor of the next page")
    total: int | None = Field(default=None, description="with page, size, skip: how many there are")

    model_config = _example(items=[_MODEL_BODY], next=None, total=None)


_VERSION_BODY = {
    "id": _VERSION,
    "model": "digits",
    "version": "1.0.0",
    "ordinal": 1,
    "format": "onnx",
    "framework": "pytorch",
    "servable": True,
    "verdict": "clean",
    "status": "approved",
    "published_at": _LATER,
    "created_at": _WHEN,
    "sha256": _SHA,
    "size": 87412,
    "filename": "digits.onnx",
    "declared": {"classes": ["0", "1"]},
    "side_files": {"config": {"name": "digits.yaml", "sha256": _SHA, "size": 120}},
    "run": _RUN,
    "links": {
        "self": f"/api/v1/models/{_MODEL}/versions/1.0.0",
        "model": f"/api/v1/models/{_MODEL}",
        "artifacts": f"/api/v1/models/{_MODEL}/versions/1.0.0/artifacts",
        "download": f"/api/v1/models/{_MODEL}/versions/1.0.0/download",
        "variants": f"/api/v1/models/{_MODEL}/versions/1.0.0/variants",
        "rebuild": f"/api/v1/models/{_MODEL}/versions/1.0.0/rebuild",
        "run": f"/api/v1/runs/{_RUN}",
    },
}


class VersionSummary(BaseModel):
    id: UUID
    model: str
    version: str
    ordinal: int = Field(description="1, 2, 3, … in the order of upload")
    format: str
    framework: str | None
    servable: bool
    verdict: Verdict
    status: str
    published_at: datetime | None
    created_at: datetime
    sha256: str = Field(description="of the uploaded file")
    size: int
    filename: str
    declared: dict[str, Any] = Field(description="what the uploader said")
    side_files: dict[str, dict[str, Any]]
    run: UUID | None = Field(description="the newest run that you may see")
    links: dict[str, str]

    model_config = _example(**_VERSION_BODY)


class LeantOn(BaseModel):
    """A waiver that the newest scan leant on: without it the version would not be clean."""

    rule: str
    sha256: str
    expires_at: datetime
    counts: bool = Field(description="false: expired or revoked since; the next re-scan takes the verdict back")


_LEANT_ON = {"rule": "pickle.global", "sha256": _SHA, "expires_at": "2027-02-18T12:00:00Z", "counts": True}


class QualityTerm(BaseModel):
    term: str = Field(description="`agreement`, `error`, `speed`, `size` or `warnings`")
    points: float
    of: int = Field(description="the most points that it can bring")
    because: str


class Quality(BaseModel):
    """From the evidence alone, by the formula in docs/measurements.md. What nothing is known of does not count."""

    score: float = Field(ge=0, le=100)
    of: str = Field(description="the variant that it is the score of")
    terms: list[QualityTerm]


_QUALITY = {
    "score": 93.4,
    "of": "onnx-fp32",
    "terms": [{"term": "agreement", "points": 40.0, "of": 40, "because": "0 of 310 decisions differ"}],
}


class Version(VersionSummary):
    artifacts: list[Artifact]
    waivers: list[LeantOn] = Field(description="what reviewers have let pass in it")
    best_variant: str | None = Field(
        description="on a CPU: the pinned one, else the fastest verified one; null while nothing servable is published"
    )
    quality: Quality | None = Field(description="null before it is published and where it cannot be served")
    pinned: dict[str, str] = Field(description="device (`cpu`, `sm90`) → the variant that somebody wants there")

    model_config = _example(
        **_VERSION_BODY,
        artifacts=[_FILE | {"created_at": _LATER}],
        waivers=[_LEANT_ON],
        best_variant="onnx-fp32",
        pinned={"cpu": "onnx-fp32"},
        quality=_QUALITY,
    )


class NewVariants(BaseModel):
    variants: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        min_length=1, max_length=8, description="such as `onnx-int8-dynamic` or `tensorrt-fp16`"
    )

    model_config = _example(variants=["onnx-int8-dynamic"])


class Pin(BaseModel):
    variant: str = Field(
        min_length=1, max_length=100, description="one of the version's canonical and variant artifacts"
    )

    model_config = _example(variant="onnx-fp32")


class Versions(BaseModel):
    items: list[VersionSummary]
    next: str | None = None

    model_config = _example(items=[_VERSION_BODY], next=None)


class Download(BaseModel):
    """A short-lived address of one file. Check what comes against `sha256`."""

    url: str
    expires_in: int = Field(description="seconds")
    name: str
    filename: str
    sha256: str
    size: int
    media_type: str

    model_config = _example(
        url="https://s3.example.org/slipway-registry/sha256/9f/…?X-Amz-Expires=300&X-Amz-Signature=…",
        expires_in=300,
        name="onnx-fp32",
        filename="digits-1.0.0-onnx-fp32.onnx",
        sha256=_SHA,
        size=87412,
        media_type="application/octet-stream",
    )


_DIGEST = Field(
    default=None,
    pattern=r"^[0-9a-f]{64}$",
    description="of one of the version's files; default: the only one it can be",
)
_STOP = {"sha256": _SHA, "rule": "pickle.global", "severity": "unknown", "waived": None}
_FINDING = {
    "rule": "pickle.global",
    "severity": "unknown",
    "path": "digits.pt!digits/data.pkl",
    "offset": 412,
    "message": "The pickle names acme.layers.Gate, which is not on the list.",
    "advice": "Export the model again with a current version of its framework, or have a reviewer look at the file.",
    "sha256": _SHA,
}
_QUARANTINED = {
    "id": _VERSION,
    "model": "digits",
    "owner": "ada",
    "version": "1.0.0",
    "format": "torchscript",
    "filename": "digits.pt",
    "size": 87412,
    "sha256": _SHA,
    "verdict": "unknown",
    "status": "waiting",
    "created_at": _WHEN,
    "ruleset": "archive/1 pickle/1",
    "counts": {"unknown": 1},
    "stops": [_STOP],
    "run": _RUN,
    "links": {
        "self": f"/api/v1/quarantine/{_VERSION}",
        "download": f"/api/v1/quarantine/{_VERSION}/download",
        "run": f"/api/v1/runs/{_RUN}",
    },
}
_WAIVER = {
    "id": "45c48cce-2e2d-4fbd-aa1a-fc51c7c6ad26",
    "sha256": _SHA,
    "rule": "pickle.global",
    "reason": "acme.layers.Gate is our own layer; its source was read.",
    "granted_by": "grace",
    "granted_at": _LATER,
    "expires_at": "2027-02-18T12:00:00Z",
    "revoked_at": None,
    "counts": True,
}
_CONDEMNED = {
    "sha256": _SHA,
    "reason": "Opens a shell when it is loaded.",
    "condemned_by": "grace",
    "condemned_at": _LATER,
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

    model_config = _example(**_QUARANTINED)


class Quarantine(BaseModel):
    items: list[QuarantineSummary]
    next: str | None = Field(description="cursor of the next page")

    model_config = _example(items=[_QUARANTINED], next=None)


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

    model_config = _example(**_WAIVER)


class Condemned(BaseModel):
    sha256: str
    reason: str
    condemned_by: str
    condemned_at: datetime

    model_config = _example(**_CONDEMNED)


class QuarantinedVersion(QuarantineSummary):
    findings: list[dict[str, Any]] = Field(description="what stopped it first; `offset` is in the member of `path`")
    files: list[dict[str, Any]]
    waivers: list[Waiver]
    condemned: list[Condemned]

    model_config = _example(
        **_QUARANTINED,
        findings=[_FINDING],
        files=[{"role": "model", "name": "digits.pt", "sha256": _SHA, "size": 87412}],
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

    model_config = _example(rule="pickle.global", reason=_WAIVER["reason"], days=90)

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

    model_config = _example(
        waiver=_WAIVER,
        run=_RUN,
        resumed=True,
        remaining=[],
        links={"run": f"/api/v1/runs/{_RUN}", "version": f"/api/v1/quarantine/{_VERSION}"},
    )


class RevokedWaiver(BaseModel):
    waiver: Waiver
    runs: list[UUID] = Field(description="of the versions that are scanned again")

    model_config = _example(waiver=_WAIVER | {"revoked_at": _LATER, "counts": False}, runs=[_RUN])


class Condemnation(BaseModel):
    reason: _Reason
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="default: the model's")

    model_config = _example(reason=_CONDEMNED["reason"])


_ENTRY = {
    "id": 42,
    "at": _LATER,
    "actor": "grace",
    "actor_id": _USER,
    "action": "waiver.granted",
    "subject": _VERSION,
    "details": {"rule": "pickle.global", "sha256": _SHA},
    "previous": "0" * 64,
    "hash": _SHA,
}


class AuditEntry(BaseModel):
    id: int = Field(description="1, 2, 3, … without gaps")
    at: datetime
    actor: str
    actor_id: UUID | None = Field(description="null: Slipway itself")
    action: str
    subject: str = Field(description="id of the version or waiver that it is about")
    details: dict[str, Any]
    previous: str
    hash: str = Field(description="SHA-256 of `previous` and this entry")

    model_config = _example(**_ENTRY)


class AuditTrail(BaseModel):
    items: list[AuditEntry]
    next: int | None = Field(description="`before` of the next page")

    model_config = _example(items=[_ENTRY], next=None)


class AuditCheck(BaseModel):
    intact: bool
    entries: int = Field(description="that fit")
    head: str = Field(description="the last hash that fits; note it elsewhere to notice when the end is cut off")
    broken_at: int | None = Field(description="the first entry that does not fit")

    model_config = _example(intact=True, entries=42, head=_SHA, broken_at=None)


class Component(BaseModel):
    status: Literal["ok", "degraded", "down", "off"]
    detail: str


class Health(BaseModel):
    status: Literal["ready", "degraded", "not_ready"] = Field(description="degraded: takes work, but not all is well")
    components: dict[str, Component] | None = None

    model_config = _example(
        status="ready",
        components={
            "database": {"status": "ok", "detail": "answers"},
            "redis": {"status": "ok", "detail": "answers"},
            "storage": {"status": "ok", "detail": "answers"},
        },
    )


class Alive(BaseModel):
    status: Literal["ok"] = "ok"

    model_config = _example(status="ok")


class About(BaseModel):
    name: str
    version: str
    api: str
    formats: list[str]
    stages: list[str]

    model_config = _example(
        name="slipway",
        version="0.1.0",
        api="v1",
        formats=["onnx", "torchscript"],
        stages=["scan", "validate", "convert", "optimize", "benchmark", "promote"],
    )
