"""Versions side by side."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.examples import LATER, MODEL, SHA, VERSION, WHEN, example
from api.schemas.files import Verdict
from api.schemas.versions import Port, Quality
from registry.statuses import Status


class Promises(BaseModel):
    inputs: list[Port]
    outputs: list[Port]
    classes: list[str]


class Form(BaseModel):
    name: str
    size: int = Field(description="bytes")
    sha256: str


class Compared(BaseModel):
    """One of the versions. `benchmarks` are rows as the benchmark reported them, each of a form on a device."""

    label: str = Field(description="owner/name@version")
    id: UUID
    model_id: UUID
    model: str
    owner: str
    version: str
    ordinal: int
    format: str
    framework: str | None
    size: int = Field(description="of the uploaded file, bytes")
    sha256: str
    licence: str | None
    status: Status
    verdict: Verdict
    servable: bool
    created_at: datetime
    published_at: datetime | None
    toolchain: dict[str, str] = Field(description="what its canonical form was made with")
    best_variant: str | None
    variants: list[Form]
    device: dict[str, Any] | None = Field(description="what its benchmarks ran on: compare only what ran on the same")
    benchmarks: list[dict[str, Any]]
    quality: Quality | None
    contract: Promises | None = Field(description="null before it is published")


class ComparedMetric(BaseModel):
    name: str
    dataset: str | None
    values: list[float | None] = Field(description="in the order of `versions`; null where it was not measured")


class ContractChange(BaseModel):
    bump: Literal["minor", "major"] = Field(description="the number that must go up for it")
    subject: str
    what: str


class ContractStep(BaseModel):
    """From the first version to another one; between versions of one model in the direction of their numbers."""

    before: str
    after: str
    changes: list[ContractChange] | None = Field(description="null where one of the contracts is unknown")
    needed: Literal["patch", "minor", "major"] | None
    fits: bool | None = Field(
        description="whether the number says as much as the change; null for versions of different models"
    )


_COMPARED = {
    "label": "ada/digits@1.0.0",
    "id": VERSION,
    "model_id": MODEL,
    "model": "digits",
    "owner": "ada",
    "version": "1.0.0",
    "ordinal": 1,
    "format": "onnx",
    "framework": "onnx",
    "size": 87412,
    "sha256": SHA,
    "licence": "Apache-2.0",
    "status": "approved",
    "verdict": "clean",
    "servable": True,
    "created_at": WHEN,
    "published_at": LATER,
    "toolchain": {"onnx": "1.20.0", "onnxruntime": "1.24.0"},
    "best_variant": "onnx-fp32",
    "variants": [{"name": "onnx-fp32", "size": 87412, "sha256": SHA}],
    "device": {"cpu": "AMD EPYC 7B13", "cores": 2, "threads": 2},
    "benchmarks": [{"name": "onnx-fp32", "role": "canonical", "p50_ms": 0.22, "speedup": 1.8, "verdict": "faster"}],
    "quality": None,
    "contract": {
        "inputs": [{"name": "image", "dtype": "float32", "shape": [None, 1, 8, 8]}],
        "outputs": [{"name": "probabilities", "dtype": "float32", "shape": [None, 10]}],
        "classes": [],
    },
}


class Comparison(BaseModel):
    versions: list[Compared]
    metrics: list[ComparedMetric]
    contracts: list[ContractStep]
    differs: list[str] = Field(description="facts of `versions` in which they are not all alike")

    model_config = example(
        versions=[
            _COMPARED,
            _COMPARED | {"label": "ada/digits@2.0.0", "version": "2.0.0", "ordinal": 2, "size": 90112},
        ],
        metrics=[{"name": "accuracy", "dataset": "sklearn digits", "values": [0.95, 0.97]}],
        contracts=[
            {
                "before": "ada/digits@1.0.0",
                "after": "ada/digits@2.0.0",
                "changes": [
                    {
                        "bump": "major",
                        "subject": "output probabilities",
                        "what": "output probabilities is called scores now",
                    }
                ],
                "needed": "major",
                "fits": True,
            }
        ],
        differs=["size"],
    )
