"""Gates, the rules that they apply, and what they say of a version."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.examples import LATER, MODEL, example
from registry.gates import TARGET

GATE = "3c59dc04-8e8a-4f2d-9b0e-1f6a0f5e7d21"
_GATE = {
    "id": GATE,
    "scope": "model",
    "target": "production",
    "rule": "p99_below",
    "parameters": {"ms": 4.0, "variant": None, "device": "cpu"},
    "created_by": "ada",
    "created_at": LATER,
}
OUTCOME = {
    "rule": "p99_below",
    "parameters": {"ms": 4.0, "variant": None, "device": "cpu"},
    "target": "production",
    "scope": "model",
    "gate": GATE,
    "state": "failed",
    "reason": "p99 of onnx-fp32 on cpu: 5.3 ms, asked ≤ 4 ms",
    "found": 5.3,
    "needed": "p99 of onnx-fp32 on cpu: 5.3 ms → ≤ 4 ms",
}
_RULE = {
    "name": "approved",
    "about": "so many people who did not upload it approve of it for the target",
    "parameters": {
        "type": "object",
        "properties": {"count": {"type": "integer", "default": 1, "minimum": 1, "maximum": 20}},
        "additionalProperties": False,
    },
}


class NewGate(BaseModel):
    rule: str = Field(min_length=1, max_length=64, description="one of `GET /api/v1/gates/rules`")
    parameters: dict[str, Any] = Field(default_factory=dict, description="as the rule wants them")
    target: str = Field(
        default="*", pattern=TARGET, description="a deployment's target or an alias that it counts for; `*`: all"
    )

    model_config = example(rule="p99_below", parameters={"ms": 4}, target="production")


class Gate(BaseModel):
    id: UUID
    scope: Literal["global", "model"] = Field(description="of all models, or of this one")
    target: str
    rule: str
    parameters: dict[str, Any]
    created_by: str | None
    created_at: datetime

    model_config = example(**_GATE)


class Gates(BaseModel):
    items: list[Gate]

    model_config = example(items=[_GATE])


class Rule(BaseModel):
    name: str
    about: str = Field(description="what it asks")
    parameters: dict[str, Any] = Field(description="a JSON schema")

    model_config = example(**_RULE)


class Rules(BaseModel):
    items: list[Rule]
    always: list[str] = Field(description="rules that count for every version and every target, without a gate")

    model_config = example(items=[_RULE], always=["scan_clean", "published", "available"])


class Outcome(BaseModel):
    """What one gate said. Only `passed` lets a version pass; `unknown` is a gate that could not be judged."""

    rule: str
    parameters: dict[str, Any]
    target: str
    scope: Literal["always", "global", "model"]
    gate: UUID | None = Field(description="null: it always counts")
    state: Literal["passed", "failed", "unknown"]
    reason: str
    found: float | str | None
    needed: str | None = Field(description="the least that has to change; null where it passed")

    model_config = example(**OUTCOME)


class Promotability(BaseModel):
    model: str
    version: str
    target: str
    promotable: bool
    to_change: list[str] = Field(description="the smallest set of facts that would have to change; empty: none")
    gates: list[Outcome] = Field(description="all that count, passed or not")
    links: dict[str, str]

    model_config = example(
        model="digits",
        version="1.0.0",
        target="production",
        promotable=False,
        to_change=[
            "p99 of onnx-fp32 on cpu: 5.3 ms → ≤ 4 ms",
            "approvals for production by people other than ada: 0 → ≥ 1",
        ],
        gates=[OUTCOME],
        links={
            "version": f"/api/v1/models/{MODEL}/versions/1.0.0",
            "approvals": f"/api/v1/models/{MODEL}/versions/1.0.0/approvals",
            "gates": f"/api/v1/models/{MODEL}/gates",
        },
    )
