"""Gates over HTTP: set them for one model or for all, and ask what they say of a version."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Row

from api.deps import Parts, Principal, Transaction, require
from api.errors import documented
from api.idempotency import IdempotentRoute
from api.schemas.gates import Gate, Gates, NewGate, Outcome, Promotability, Rule, Rules
from api.versions import find
from pipeline import promotability
from registry import lookup, promotion
from registry.gates import ALWAYS, facts
from registry.rules import NAME, RULES

router = APIRouter(tags=["gates"], route_class=IdempotentRoute)

Reader = Annotated[Principal, Depends(require("models:read"))]
Deployer = Annotated[Principal, Depends(require("models:deploy"))]
Admin = Annotated[Principal, Depends(require("admin"))]

DEPLOY = "models:deploy"
_ABOUT_MODEL = ("unauthenticated", "forbidden", "model_not_found")


@router.get("/gates/rules", summary="List the rules", responses=documented("unauthenticated", "forbidden"))
def list_rules(_: Reader) -> Rules:
    """All that a gate can ask, with a JSON schema of what each rule wants to be told."""
    items = [
        Rule(name=rule.name, about=rule.about, parameters=rule.parameters.model_json_schema())
        for rule in RULES.values()
    ]
    return Rules(items=items, always=[gate.rule for gate in ALWAYS])


@router.get("/gates", summary="List the gates of all models", responses=documented("unauthenticated", "forbidden"))
def list_gates(_: Reader, session: Transaction) -> Gates:
    """What counts for every model, beside what always does."""
    return Gates(items=[_gate(row) for row in promotion.list_gates(session, None)])


@router.post(
    "/gates",
    summary="Set a gate for all models",
    status_code=HTTPStatus.CREATED,
    responses=documented("unauthenticated", "forbidden", "invalid_gate", "invalid_field"),
)
def add_gate(wish: NewGate, asking: Admin, session: Transaction) -> Gate:
    """For admins. It counts from now on, and takes nothing down that is live."""
    return _gate(_added(session, wish, asking, None))


@router.delete(
    "/gates/{gate_id}",
    summary="Remove a gate of all models",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented("unauthenticated", "forbidden", "gate_not_found"),
)
def remove_gate(gate_id: UUID, asking: Admin, session: Transaction) -> None:
    """For admins. It counts no longer from now on."""
    promotion.remove_gate(session, gate_id, model_id=None, actor=asking.actor)


@router.get("/models/{model}/gates", summary="List a model's gates", responses=documented(*_ABOUT_MODEL))
def list_model_gates(model: str, asking: Reader, session: Transaction) -> Gates:
    """Its own and those of all models."""
    row = lookup.find_model(session, asking.viewer, model)
    return Gates(items=[_gate(each) for each in promotion.list_gates(session, row.id)])


@router.post(
    "/models/{model}/gates",
    summary="Set a gate for a model",
    status_code=HTTPStatus.CREATED,
    responses=documented(*_ABOUT_MODEL, "not_granted", "invalid_gate", "invalid_field"),
)
def add_model_gate(model: str, wish: NewGate, asking: Deployer, session: Transaction) -> Gate:
    """For its owner, and for whom they gave `models:deploy` for it."""
    row = lookup.find_model(session, asking.viewer, model, permission=DEPLOY, lock=True)
    return _gate(_added(session, wish, asking, row.id))


@router.delete(
    "/models/{model}/gates/{gate_id}",
    summary="Remove a model's gate",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(*_ABOUT_MODEL, "not_granted", "gate_not_found"),
)
def remove_model_gate(model: str, gate_id: UUID, asking: Deployer, session: Transaction) -> None:
    """For its owner, and for whom they gave `models:deploy` for it. Gates of all models are for admins to remove."""
    row = lookup.find_model(session, asking.viewer, model, permission=DEPLOY, lock=True)
    promotion.remove_gate(session, gate_id, model_id=row.id, actor=asking.actor)


@router.get(
    "/models/{model}/versions/{version}/promotability",
    summary="Ask whether a version may go live",
    responses=documented(*_ABOUT_MODEL, "version_not_found", "invalid_field", "storage_unavailable"),
)
def read_promotability(
    model: str,
    version: str,
    asking: Reader,
    session: Transaction,
    parts: Parts,
    *,
    target: Annotated[
        str, Query(pattern=rf"^{NAME}$", description="a deployment's target, or an alias", examples=["production"])
    ] = "production",
) -> Promotability:
    """What each gate says, with what was found; if no, the smallest set of facts that would have to change."""
    owner, row = find(session, asking.viewer, model, version)
    judged = promotability.judge(session, owner, row, target, parts.trust)
    itself = f"/api/v1/models/{owner.id}/versions/{quote(row.version, safe='')}"
    return Promotability(
        model=owner.name,
        version=row.version,
        target=target,
        promotable=judged.promotable,
        to_change=list(judged.to_change),
        gates=[Outcome(**facts(outcome)) for outcome in judged.outcomes],
        links={"version": itself, "approvals": f"{itself}/approvals", "gates": f"/api/v1/models/{owner.id}/gates"},
    )


def _added(session: Transaction, wish: NewGate, asking: Principal, model_id: UUID | None) -> Row[Any]:
    return promotion.add_gate(
        session,
        model_id=model_id,
        target=wish.target,
        rule=wish.rule,
        parameters=wish.parameters,
        actor=asking.actor,
    )


def _gate(row: Row[Any]) -> Gate:
    return Gate(
        id=row.id,
        scope="global" if row.model_id is None else "model",
        target=row.target,
        rule=row.rule,
        parameters=row.parameters,
        created_by=row.creator,
        created_at=row.created_at,
    )
