"""Stored files."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.schemas.examples import LATER, SHA, example

Verdict = Literal["pending", "clean", "malicious", "unknown"]


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


FILE = {
    "name": "onnx-fp32",
    "role": "canonical",
    "sha256": SHA,
    "size": 87412,
    "media_type": "application/octet-stream",
    "meta": {"variant": "onnx-fp32", "opset": 20},
}


class Artifacts(BaseModel):
    items: list[Artifact]
    next: str | None = None

    model_config = example(items=[FILE | {"created_at": LATER}], next=None)
