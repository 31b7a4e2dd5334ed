"""Whether it lives, and what it is."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from api.schemas.examples import WHEN, example


class Component(BaseModel):
    status: Literal["ok", "degraded", "down", "off"]
    detail: str


class Metrics(BaseModel):
    """Of the process that answers, since it began; CPU, memory and disk of its machine."""

    uptime_seconds: float
    total_requests: int
    successful_requests: int = Field(description="answered with a status below 400")
    failed_requests: int
    error_rate_percent: float
    avg_response_time_ms: float
    p95_response_time_ms: float = Field(description="right to 10 %")
    p99_response_time_ms: float = Field(description="right to 10 %")
    cpu_percent: float = Field(description="since it was last asked")
    memory_percent: float
    disk_percent: float


class Endpoint(BaseModel):
    endpoint: str
    count: int
    errors: int
    avg_response_ms: float


class Health(BaseModel):
    status: Literal["ready", "degraded", "not_ready"] = Field(description="degraded: takes work, but not all is well")
    timestamp: datetime
    components: dict[str, Component] | None = None
    metrics: Metrics | None = Field(default=None, description="for admins, with `detailed=true`")
    top_endpoints: list[Endpoint] | None = Field(default=None, description="the five with the most requests")

    model_config = example(
        status="ready",
        timestamp=WHEN,
        components={
            "database": {"status": "ok", "detail": "answers"},
            "redis": {"status": "ok", "detail": "answers"},
            "storage": {"status": "ok", "detail": "answers"},
        },
        metrics={
            "uptime_seconds": 86400.0,
            "total_requests": 150,
            "successful_requests": 142,
            "failed_requests": 8,
            "error_rate_percent": 5.33,
            "avg_response_time_ms": 12.5,
            "p95_response_time_ms": 45.2,
            "p99_response_time_ms": 89.1,
            "cpu_percent": 12.3,
            "memory_percent": 45.8,
            "disk_percent": 23.1,
        },
        top_endpoints=[
            {"endpoint": "GET /api/v1/models/{model}", "count": 45, "errors": 2, "avg_response_ms": 4.5},
        ],
    )


class Alive(BaseModel):
    status: Literal["ok"] = "ok"

    model_config = example(status="ok")


class About(BaseModel):
    name: str
    version: str
    api: str
    formats: list[str]
    stages: list[str]

    model_config = example(
        name="slipway",
        version="0.1.0",
        api="v1",
        formats=["onnx", "torchscript"],
        stages=["scan", "validate", "convert", "optimize", "benchmark", "promote"],
    )
