"""Versions, their variants and downloads."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.examples import LATER, MODEL, RUN, SHA, VERSION, WHEN, example
from api.schemas.files import FILE, Artifact, Verdict

_VERSION_BODY = {
    "id": VERSION,
    "model": "digits",
    "version": "1.0.0",
    "ordinal": 1,
    "format": "onnx",
    "framework": "pytorch",
    "servable": True,
    "verdict": "clean",
    "status": "approved",
    "published_at": LATER,
    "created_at": WHEN,
    "sha256": SHA,
    "size": 87412,
    "filename": "digits.onnx",
    "declared": {"classes": ["0", "1"]},
    "side_files": {"config": {"name": "digits.yaml", "sha256": SHA, "size": 120}},
    "run": RUN,
    "links": {
        "self": f"/api/v1/models/{MODEL}/versions/1.0.0",
        "model": f"/api/v1/models/{MODEL}",
        "artifacts": f"/api/v1/models/{MODEL}/versions/1.0.0/artifacts",
        "download": f"/api/v1/models/{MODEL}/versions/1.0.0/download",
        "variants": f"/api/v1/models/{MODEL}/versions/1.0.0/variants",
        "rebuild": f"/api/v1/models/{MODEL}/versions/1.0.0/rebuild",
        "run": f"/api/v1/runs/{RUN}",
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


class Version(VersionSummary):
    artifacts: list[Artifact]
    waivers: list[LeantOn] = Field(description="what reviewers have let pass in it")
    best_variant: str | None = Field(
        description="on a CPU: the pinned one, else the fastest verified one; null while nothing servable is published"
    )
    quality: Quality | None = Field(description="null before it is published and where it cannot be served")
    pinned: dict[str, str] = Field(description="device (`cpu`, `sm90`) → the variant that somebody wants there")

    model_config = example(
        **_VERSION_BODY,
        artifacts=[FILE | {"created_at": LATER}],
        waivers=[_LEANT_ON],
        best_variant="onnx-fp32",
        pinned={"cpu": "onnx-fp32"},
        quality=_QUALITY,
    )


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


class Download(BaseModel):
    """A short-lived address of one file. Check what comes against `sha256`."""

    url: str
    expires_in: int = Field(description="seconds")
    name: str
    filename: str
    sha256: str
    size: int
    media_type: str

    model_config = example(
        url="https://s3.example.org/slipway-registry/sha256/9f/…?X-Amz-Expires=300&X-Amz-Signature=…",
        expires_in=300,
        name="onnx-fp32",
        filename="digits-1.0.0-onnx-fp32.onnx",
        sha256=SHA,
        size=87412,
        media_type="application/octet-stream",
    )
