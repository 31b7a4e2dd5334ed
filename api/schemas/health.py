"""Whether it lives, and what it is."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from api.schemas.examples import example


class Component(BaseModel):
    status: Literal["ok", "degraded", "down", "off"]
    detail: str


class Health(BaseModel):
    status: Literal["ready", "degraded", "not_ready"] = Field(description="degraded: takes work, but not all is well")
    components: dict[str, Component] | None = None

    model_config = example(
        status="ready",
        components={
            "database": {"status": "ok", "detail": "answers"},
            "redis": {"status": "ok", "detail": "answers"},
            "storage": {"status": "ok", "detail": "answers"},
        },
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
