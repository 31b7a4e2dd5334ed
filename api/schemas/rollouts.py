"""Rollouts: a candidate beside what is live, and the rules and figures that decide between them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.deployments import Reason, Target
from api.schemas.examples import LATER, MODEL, example

Kind = Literal["canary", "ab", "shadow"]
Sticky = Literal["none", "user", "key"]
RolloutStatus = Literal["running", "promoted", "rolled_back", "stopped"]
Share = Annotated[float, Field(ge=0, lt=1, description="a share, such as 0.01 for 1 %")]


class RolloutRules(BaseModel):
    """What decides. Whoever looks at the figures, and however often, changes nothing about how sure a decision is."""

    alpha: float = Field(
        default=0.05,
        gt=0,
        le=0.5,
        description="how often, at most, a candidate is wrongly promoted, or wrongly rolled back",
    )
    max_error_increase: Share = 0.01
    latency_ms: float | None = Field(
        default=None, gt=0, le=600_000, description="what makes an answer slow; null: none is"
    )
    max_slow_increase: Share = 0.01
    use_feedback: bool = Field(default=False, description="whether wrong labels count, as `POST /feedback` tells them")
    max_wrong_increase: Share = 0.01
    error_limit: float | None = Field(
        default=0.5, gt=0, lt=1, description="errors that are too many whatever the control does; null: any share"
    )
    min_requests: int = Field(default=500, ge=1, le=10**12, description="of the candidate, before it is promoted")
    max_requests: int | None = Field(
        default=None, ge=1, le=10**12, description="of both together, after which it is stopped undecided"
    )
    max_hours: float | None = Field(default=336, gt=0, le=87_600, description="after which it is stopped undecided")
    auto_promote: bool = Field(
        default=True, description="false: a candidate that is fit waits for somebody to promote it"
    )


_RULES = RolloutRules(latency_ms=250).model_dump()
_ID = "6f4922f4-5568-4a3e-9d1b-8a0f7a5c2b1e"
_ROLLOUT = {
    "id": _ID,
    "model": "digits",
    "owner": "ada",
    "target": "production",
    "control": "1.0.0",
    "candidate": "1.1.0",
    "kind": "canary",
    "weight": 0.05,
    "sticky": "none",
    "rules": _RULES,
    "status": "running",
    "note": "Trained on the new cameras.",
    "reason": None,
    "started_by": "grace",
    "started_at": LATER,
    "ended_by": None,
    "ended_at": None,
    "links": {"self": f"/api/v1/models/{MODEL}/rollouts/{_ID}", "model": f"/api/v1/models/{MODEL}"},
}


class NewRollout(BaseModel):
    version: str = Field(
        min_length=1, max_length=64, description="the candidate, as everywhere: `1.1.0`, `3`, `latest`"
    )
    target: Target
    kind: Kind = Field(default="canary", description="`shadow`: it is sent copies, and nobody sees its answers")
    weight: float = Field(
        default=0.05, gt=0, le=1, description="the candidate's share of the requests; 1 only for the copies of a shadow"
    )
    sticky: Sticky = Field(
        default="none", description="whether the same user, or the same key, always meets the same one"
    )
    rules: RolloutRules = Field(default_factory=RolloutRules)
    note: str = Field(default="", max_length=2000, description="why")

    model_config = example(
        version="1.1.0",
        target="production",
        kind="canary",
        weight=0.05,
        rules={"latency_ms": 250},
        note="Trained on the new cameras.",
    )


class Stopping(BaseModel):
    reason: Reason

    model_config = example(reason="The new cameras are late.")


class RolloutSummary(BaseModel):
    id: UUID
    model: str
    owner: str
    target: Target
    control: str = Field(description="the version that was live when it began")
    candidate: str
    kind: Kind
    weight: float
    sticky: Sticky
    rules: RolloutRules
    status: RolloutStatus
    note: str = Field(description="why it was begun")
    reason: str | None = Field(description="why it ended")
    started_by: str
    started_at: datetime
    ended_by: str | None = Field(description="null while it runs, and where Slipway itself has decided")
    ended_at: datetime | None
    links: dict[str, str]

    model_config = example(**_ROLLOUT)


class Rollouts(BaseModel):
    items: list[RolloutSummary]
    next: str | None = Field(description="cursor of the next page")

    model_config = example(items=[_ROLLOUT], next=None)


class ArmCounts(BaseModel):
    """What came of one arm. Latencies are read from a histogram whose buckets are 1.63 times as wide each."""

    requests: int
    errors: int = Field(description="answers that were the service's fault")
    slow: int
    right: int = Field(description="by feedback")
    wrong: int
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class Rate(BaseModel):
    bad: int
    of: int
    rate: float | None = Field(description="null before there is anything to count")
    low: float = Field(
        description="the rate is between `low` and `high` with probability 1 - alpha, at all times together"
    )
    high: float


class Range(BaseModel):
    low: float
    high: float


class Evidence(BaseModel):
    """An e-value: where it is not so, it reaches `needed` with probability 1/needed at most, however often one looks."""

    evidence: float
    needed: float


class MetricFigures(BaseModel):
    metric: Literal["errors", "slow", "wrong"]
    what: str
    control: Rate
    candidate: Rate
    difference: Range = Field(description="of the candidate's rate less the control's, in the same sense")
    margin: float = Field(description="how much more of the control's rate is allowed")
    worse: Evidence = Field(description="that the candidate's rate is higher")
    not_worse: Evidence = Field(description="that it is not higher by the margin")


class Rollout(RolloutSummary):
    decision: Literal["promote", "roll_back", "keep_on", "stop"] | None = Field(
        description="what the figures say now; null once it has ended"
    )
    verdict: str = Field(description="why, in a sentence; once it has ended, the same as `reason`")
    arms: dict[Literal["control", "candidate"], ArmCounts]
    agreement: Range | None = Field(
        description="the share of shadow copies that were answered alike, as a range; null where none was compared"
    )
    compared: int
    disagreed: int
    metrics: list[MetricFigures] = Field(description="of the end, once it has ended by its figures or by hand")

    model_config = example(
        **_ROLLOUT,
        decision="keep_on",
        verdict="Undecided: errors 1.59 % (8 of 503) against 0.991 % (95 of 9,590); answers above 250 ms 0 % (0 of 503) against 0.0104 % (1 of 9,590).",
        arms={
            "control": {
                "requests": 9590,
                "errors": 95,
                "slow": 1,
                "right": 0,
                "wrong": 0,
                "mean_ms": 4.2,
                "p50_ms": 3.9,
                "p95_ms": 8.8,
                "p99_ms": 14.1,
            },
            "candidate": {
                "requests": 503,
                "errors": 8,
                "slow": 0,
                "right": 0,
                "wrong": 0,
                "mean_ms": 4.4,
                "p50_ms": 4.0,
                "p95_ms": 9.1,
                "p99_ms": 15.0,
            },
        },
        agreement=None,
        compared=0,
        disagreed=0,
        metrics=[
            {
                "metric": "errors",
                "what": "errors",
                "control": {"bad": 95, "of": 9590, "rate": 0.009906, "low": 0.006863, "high": 0.013719},
                "candidate": {"bad": 8, "of": 503, "rate": 0.015905, "low": 0.003572, "high": 0.042406},
                "difference": {"low": -0.00809, "high": 0.035122},
                "margin": 0.01,
                "worse": {"evidence": 0.4457, "needed": 44.44},
                "not_worse": {"evidence": 0.2334, "needed": 20.0},
            }
        ],
    )
