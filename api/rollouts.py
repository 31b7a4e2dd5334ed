"""Rollouts over HTTP: begin one, look at its figures, stop it, promote its candidate by hand."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.deps import Parts, Principal, Transaction, require
from api.errors import documented
from api.idempotency import IdempotentRoute
from api.paging import Cursor, Limit, decode, next_page
from api.schemas.deployments import Target
from api.schemas.rollouts import (
    ArmCounts,
    NewRollout,
    Range,
    Rollout,
    Rollouts,
    RolloutStatus,
    RolloutSummary,
    Stopping,
)
from pipeline import launching
from registry import lookup, rollouts
from registry.rollouts import Rules, Tally
from registry.sequential import Counts, interval

router = APIRouter(prefix="/models/{model}/rollouts", tags=["rollouts"], route_class=IdempotentRoute)

Reader = Annotated[Principal, Depends(require("models:read"))]
Deployer = Annotated[Principal, Depends(require("models:deploy"))]

DEPLOY = "models:deploy"
_ABOUT_MODEL = ("unauthenticated", "forbidden", "model_not_found")
_ENDS = (*_ABOUT_MODEL, "not_granted", "rollout_not_found", "rollout_ended", "invalid_field")


@router.post(
    "",
    summary="Begin a rollout",
    status_code=HTTPStatus.CREATED,
    responses=documented(
        *_ABOUT_MODEL,
        "not_granted",
        "version_not_found",
        "nothing_live",
        "already_live",
        "gate_failed",
        "rollout_running",
        "invalid_rollout",
        "invalid_field",
        "storage_unavailable",
    ),
)
def start(
    model: str, wish: NewRollout, response: Response, asking: Deployer, session: Transaction, parts: Parts
) -> Rollout:
    """Beside what is live on the target, if every gate lets the version go there. One at a time on each target.

    From then on serving counts what comes of both, and Slipway decides by the rules: the candidate takes the place of what
    is live, or is rolled back, or is stopped undecided. Whatever else becomes of the target stops it.
    """
    owner = lookup.find_model(session, asking.viewer, model, permission=DEPLOY, lock=True)
    row = launching.start(
        session,
        owner,
        lookup.find_version(session, owner.id, wish.version),
        wish.target,
        kind=wish.kind,
        weight=wish.weight,
        sticky=wish.sticky,
        rules=Rules.of(wish.rules.model_dump()),
        note=wish.note,
        actor=asking.actor,
        trust=parts.trust,
    )
    response.headers["Location"] = _links(row)["self"]
    return _rollout(session, row)


@router.get(
    "", summary="List a model's rollouts", responses=documented(*_ABOUT_MODEL, "invalid_cursor", "invalid_field")
)
def list_of_model(
    model: str,
    request: Request,
    response: Response,
    asking: Reader,
    session: Transaction,
    *,
    target: Annotated[Target | None, Query()] = None,
    status: Annotated[RolloutStatus | None, Query()] = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Rollouts:
    """Those that run and all that were, newest first."""
    owner = lookup.find_model(session, asking.viewer, model)
    rows = rollouts.find_many(
        session, model_id=owner.id, target=target, status=status, after=decode(cursor), limit=limit + 1
    )
    following = next_page(request, response, rows, limit)
    return Rollouts(items=[RolloutSummary(**_summary(row)) for row in rows], next=following)


@router.get("/{rollout_id}", summary="Read a rollout", responses=documented(*_ABOUT_MODEL, "rollout_not_found"))
def read(model: str, rollout_id: UUID, asking: Reader, session: Transaction) -> Rollout:
    """Both arms with their rates and how sure these are, latencies, and what the figures say so far."""
    owner = lookup.find_model(session, asking.viewer, model)
    return _rollout(session, rollouts.find(session, owner.id, rollout_id))


@router.post("/{rollout_id}:stop", summary="Stop a rollout", responses=documented(*_ENDS))
def stop(model: str, rollout_id: UUID, wish: Stopping, asking: Deployer, session: Transaction) -> Rollout:
    """What was live stays."""
    owner = lookup.find_model(session, asking.viewer, model, permission=DEPLOY, lock=True)
    return _rollout(session, launching.stop(session, owner, rollout_id, reason=wish.reason, actor=asking.actor))


@router.post(
    "/{rollout_id}:promote",
    summary="Promote a rollout's candidate",
    responses=documented(*_ENDS, "gate_failed", "storage_unavailable"),
)
def promote(
    model: str, rollout_id: UUID, wish: Stopping, asking: Deployer, session: Transaction, parts: Parts
) -> Rollout:
    """Without waiting for the figures. The gates count all the same."""
    owner = lookup.find_model(session, asking.viewer, model, permission=DEPLOY, lock=True)
    row = launching.promote(session, owner, rollout_id, reason=wish.reason, actor=asking.actor, trust=parts.trust)
    return _rollout(session, row)


def _rollout(session: Session, row: Row[Any]) -> Rollout:
    arms = rollouts.tally(session, row.id)
    if row.status == rollouts.RUNNING:
        said = launching.verdict(session, row)
        decision, verdict, metrics = said.decision, said.reason, said.figures()
    else:
        decision, verdict, metrics = None, row.reason, (row.decision or {}).get("metrics", [])
    candidate = arms["candidate"]
    return Rollout(
        **_summary(row),
        decision=decision,
        verdict=verdict,
        arms={arm: _arm(tally) for arm, tally in arms.items()},
        agreement=_agreement(candidate, Rules.of(row.rules).alpha),
        compared=candidate.compared,
        disagreed=candidate.disagreed,
        metrics=metrics,
    )


def _agreement(candidate: Tally, alpha: float) -> Range | None:
    if not candidate.compared:
        return None
    apart = interval(Counts(candidate.disagreed, candidate.compared), alpha)
    return Range(low=round(1 - apart.high, 6), high=round(1 - apart.low, 6))


def _arm(tally: Tally) -> ArmCounts:
    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else round(1000 * seconds, 3)

    return ArmCounts(
        requests=tally.requests,
        errors=tally.errors,
        slow=tally.slow,
        right=tally.right,
        wrong=tally.wrong,
        mean_ms=ms(tally.seconds / tally.requests if tally.requests else None),
        p50_ms=ms(tally.quantile(0.5)),
        p95_ms=ms(tally.quantile(0.95)),
        p99_ms=ms(tally.quantile(0.99)),
    )


def _summary(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "model": row.model,
        "owner": row.owner,
        "target": row.target,
        "control": row.control,
        "candidate": row.candidate,
        "kind": row.kind,
        "weight": row.weight,
        "sticky": row.sticky,
        "rules": row.rules,
        "status": row.status,
        "note": row.note,
        "reason": row.reason,
        "started_by": row.starter,
        "started_at": row.started_at,
        "ended_by": row.ender,
        "ended_at": row.ended_at,
        "links": _links(row),
    }


def _links(row: Row[Any]) -> dict[str, str]:
    model = f"/api/v1/models/{row.model_id}"
    return {"self": f"{model}/rollouts/{row.id}", "model": model}
