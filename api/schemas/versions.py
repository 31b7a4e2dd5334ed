"""Versions, their variants and downloads."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.examples import LATER, MODEL, RUN, SHA, VERSION, WHEN, example
from api.schemas.files import FILE, Artifact, Verdict
from api.schemas.metrics import METRIC, Metric
from registry.statuses import Status

_VERSION_BODY = {
    "id": VERSION,
    "model": "digits",
    "owner": "ada",
    "version": "1.0.0",
    "ordinal": 1,
    "format": "onnx",
    "framework": "pytorch",
    "servable": True,
    "verdict": "clean",
    "status": "approved",
    "aliases": ["default", "production"],
    "is_default": True,
    "published_at": LATER,
    "created_at": WHEN,
    "sha256": SHA,
    "size": 87412,
    "filename": "digits.onnx",
    "declared": {"classes": ["0", "1"], "training_config": {"epochs": 20}, "accuracy": 0.95},
    "side_files": {"config": {"name": "digits.yaml", "sha256": SHA, "size": 120}},
    "run": RUN,
    "links": {
        "self": f"/api/v1/models/{MODEL}/versions/1.0.0",
        "model": f"/api/v1/models/{MODEL}",
        "artifacts": f"/api/v1/models/{MODEL}/versions/1.0.0/artifacts",
        "download": f"/api/v1/models/{MODEL}/versions/1.0.0/download",
        "variants": f"/api/v1/models/{MODEL}/versions/1.0.0/variants",
        "rebuild": f"/api/v1/models/{MODEL}/versions/1.0.0/rebuild",
        "metrics": f"/api/v1/models/{MODEL}/versions/1.0.0/metrics",
        "exports": f"/api/v1/models/{MODEL}/versions/1.0.0/exports",
        "run": f"/api/v1/runs/{RUN}",
    },
}


class VersionSummary(BaseModel):
    id: UUID
    model: str
    owner: str = Field(description="of the model")
    version: str
    ordinal: int = Field(description="1, 2, 3, … in the order of upload")
    format: str
    framework: str | None
    servable: bool
    verdict: Verdict
    status: Status
    aliases: list[str] = Field(description="that point at it now")
    is_default: bool
    published_at: datetime | None
    created_at: datetime
    sha256: str = Field(description="of the uploaded file")
    size: int
    filename: str
    declared: dict[str, Any] = Field(description="what the uploader said")
    side_files: dict[str, dict[str, Any]]
    run: UUID | None = Field(description="the newest run that you may see")
    links: dict[str, str]

    model_config = example(**_VERSION_BODY)


class LeantOn(BaseModel):
    """A waiver that the newest scan leant on: without it the version would not be clean."""

    rule: str
    sha256: str
    expires_at: datetime
    counts: bool = Field(description="false: expired or revoked since; the next re-scan takes the verdict back")


_LEANT_ON = {"rule": "pickle.global", "sha256": SHA, "expires_at": "2027-02-18T12:00:00Z", "counts": True}


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


class Port(BaseModel):
    """An input or output of the canonical form, or, where there is none, of the file."""

    name: str
    dtype: str = Field(description="numpy's name")
    shape: list[int | None] | None = Field(description="null in it where a size is free; null where it is unknown")


class Version(VersionSummary):
    uploaded_by: str = Field(description="the owner, or somebody who was granted models:upload")
    release_notes: str
    revision: int = Field(description="its ETag; goes up with every change of status or release notes")
    training_config: dict[str, Any] | None = Field(description="as declared")
    inputs: list[Port] | None = Field(description="as found; null before the version is published")
    outputs: list[Port] | None
    classes: list[str] | None = Field(description="names in the order of the scores: of the file, or as declared")
    metrics: list[Metric] = Field(description="the latest of each name and data set; the others are at `links.metrics`")
    artifacts: list[Artifact]
    waivers: list[LeantOn] = Field(description="what reviewers have let pass in it")
    best_variant: str | None = Field(
        description="on a CPU: the pinned one, else the fastest verified one; null while nothing servable is published"
    )
    quality: Quality | None = Field(description="null before it is published and where it cannot be served")
    pinned: dict[str, str] = Field(description="device (`cpu`, `sm90`) → the variant that somebody wants there")

    model_config = example(
        **_VERSION_BODY,
        uploaded_by="ada",
        release_notes="Trained on the second batch.",
        revision=1,
        training_config={"epochs": 20},
        inputs=[{"name": "image", "dtype": "float32", "shape": [None, 1, 8, 8]}],
        outputs=[{"name": "probabilities", "dtype": "float32", "shape": [None, 2]}],
        classes=["0", "1"],
        metrics=[METRIC],
        artifacts=[FILE | {"created_at": LATER}],
        waivers=[_LEANT_ON],
        best_variant="onnx-fp32",
        pinned={"cpu": "onnx-fp32"},
        quality=_QUALITY,
    )


class VersionChange(BaseModel):
    release_notes: str = Field(max_length=10_000)

    model_config = example(release_notes="Trained on the second batch; 1.0.0 mistook 3 for 8.")


class NewStatus(BaseModel):
    status: Status
    reason: str = Field(default="", max_length=2000, description="for those who read the audit trail")

    model_config = example(status="deprecated", reason="1.1.0 is better on every class.")


class NewVariants(BaseModel):
    variants: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        min_length=1, max_length=8, description="such as `onnx-int8-dynamic` or `tensorrt-fp16`"
    )

    model_config = example(variants=["onnx-int8-dynamic"])


class Pin(BaseModel):
    variant: str = Field(
        min_length=1, max_length=100, description="one of the version's canonical and variant artifacts"
    )

    model_config = example(variant="onnx-fp32")


class Versions(BaseModel):
    items: list[VersionSummary]
    next: str | None = None

    model_config = example(items=[_VERSION_BODY], next=None)
