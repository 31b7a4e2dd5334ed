"""Deployments over HTTP: put a version live on a target, take it down, go back to what was before."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.deps import Parts, Principal, Services, Transaction, require
from api.errors import documented
from api.idempotency import IdempotentRoute
from api.paging import Cursor, Limit, decode, next_page
from api.schemas.deployments import (
    Deploy,
    Deployment,
    Deployments,
    DeploymentStatus,
    DeploymentSummary,
    Ending,
    NewDeployment,
    Target,
)
from pipeline import launching
from registry import deployments, lookup

router = APIRouter(tags=["deployments"], route_class=IdempotentRoute)

Reader = Annotated[Principal, Depends(require("models:read"))]
Deployer = Annotated[Principal, Depends(require("models:deploy"))]
OnTarget = Annotated[Target | None, Query()]
WithStatus = Annotated[DeploymentStatus | None, Query()]

DEPLOY = "models:deploy"
_ABOUT_MODEL = ("unauthenticated", "forbidden", "model_not_found")
_LISTS = ("invalid_cursor", "invalid_field")
_DEPLOYS = (*_ABOUT_MODEL, "not_granted", "version_not_found", "gate_failed", "already_live", "invalid_field")
_ENDS = (*_ABOUT_MODEL, "not_granted", "deployment_not_found", "not_live", "invalid_field")


@router.get(
    "/deployments",
    summary="List deployments of all models",
    responses=documented("unauthenticated", "forbidden", *_LISTS),
)
def list_all(
    request: Request,
    response: Response,
    asking: Reader,
    session: Transaction,
    *,
    target: OnTarget = None,
    status: WithStatus = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Deployments:
    """Of every model that you may see, newest first. `status=live` is what runs now."""
    rows = deployments.find_many(
        session, asking.viewer, target=target, status=status, after=decode(cursor), limit=limit + 1
    )
    following = next_page(request, response, rows, limit)
    return Deployments(items=[DeploymentSummary(**_summary(row)) for row in rows], next=following)


@router.get(
    "/models/{model}/deployments", summary="List a model's deployments", responses=documented(*_ABOUT_MODEL, *_LISTS)
)
def list_of_model(
    model: str,
    request: Request,
    response: Response,
    asking: Reader,
    session: Transaction,
    *,
    target: OnTarget = None,
    status: WithStatus = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> Deployments:
    """What is live and all that was: who, when, why, with which config. Newest first."""
    owner = lookup.find_model(session, asking.viewer, model)
    rows = deployments.find_many(
        session,
        asking.viewer,
        model_id=owner.id,
        target=target,
        status=status,
        after=decode(cursor),
        limit=limit + 1,
    )
    following = next_page(request, response, rows, limit)
    return Deployments(items=[DeploymentSummary(**_summary(row)) for row in rows], next=following)


@router.get(
    "/models/{model}/deployments/{deployment_id}",
    summary="Read a deployment",
    responses=documented(*_ABOUT_MODEL, "deployment_not_found"),
)
def read(model: str, deployment_id: UUID, asking: Reader, session: Transaction) -> Deployment:
    """With what each gate said at that time."""
    owner = lookup.find_model(session, asking.viewer, model)
    return _deployment(deployments.find(session, owner.id, deployment_id))


@router.post(
    "/models/{model}/deployments",
    summary="Deploy a version",
    status_code=HTTPStatus.CREATED,
    responses=documented(*_DEPLOYS, "storage_unavailable"),
)
def deploy(
    model: str, wish: NewDeployment, response: Response, asking: Deployer, session: Transaction, parts: Parts
) -> Deployment:
    """If every gate lets it: 409 `gate_failed` says which do not, and what would do. Takes the place of what is live."""
    return _deployed(session, parts, asking, response, model, wish)


@router.post(
    "/deploy",
    summary="Deploy a version by name",
    status_code=HTTPStatus.CREATED,
    responses=documented(*_DEPLOYS, "storage_unavailable"),
)
def deploy_by_name(
    wish: Deploy, response: Response, asking: Deployer, session: Transaction, parts: Parts
) -> Deployment:
    """The same as `POST /models/{model}/deployments`, under the names that scripts for other registries use."""
    same = NewDeployment(version=wish.version, target=wish.deployment_target, config=wish.deployment_config)
    return _deployed(session, parts, asking, response, wish.model_name, same, on_behalf_of=wish.deployed_by)


@router.post(
    "/models/{model}/deployments/{deployment_id}:rollback",
    summary="Roll a deployment back",
    status_code=HTTPStatus.CREATED,
    responses=documented(*_ENDS, "nothing_to_roll_back_to"),
)
def roll_back(
    model: str, deployment_id: UUID, wish: Ending, response: Response, asking: Deployer, session: Transaction
) -> Deployment:
    """To the version that was live before it and is still clean. 409 `not_live` where somebody was faster."""
    owner = lookup.find_model(session, asking.viewer, model, permission=DEPLOY, lock=True)
    target = deployments.require_live(session, owner.id, deployment_id).target
    return _created(response, deployments.roll_back(session, owner, target, reason=wish.reason, actor=asking.actor))


@router.post(
    "/models/{model}/targets/{target}:rollback",
    summary="Roll a target back",
    status_code=HTTPStatus.CREATED,
    responses=documented(*_ABOUT_MODEL, "not_granted", "nothing_to_roll_back_to", "invalid_field"),
)
def roll_back_target(
    model: str, target: Target, wish: Ending, response: Response, asking: Deployer, session: Transaction
) -> Deployment:
    """Whatever is live there, and also where what was live has been taken down. Twice leads twice as far back."""
    owner = lookup.find_model(session, asking.viewer, model, permission=DEPLOY, lock=True)
    return _created(response, deployments.roll_back(session, owner, target, reason=wish.reason, actor=asking.actor))


@router.post(
    "/models/{model}/deployments/{deployment_id}:end", summary="Take a deployment down", responses=documented(*_ENDS)
)
def end(model: str, deployment_id: UUID, wish: Ending, asking: Deployer, session: Transaction) -> Deployment:
    """Nothing takes its place."""
    owner = lookup.find_model(session, asking.viewer, model, permission=DEPLOY, lock=True)
    return _deployment(deployments.end(session, owner, deployment_id, reason=wish.reason, actor=asking.actor))


def _deployed(
    session: Session,
    parts: Services,
    asking: Principal,
    response: Response,
    model: str,
    wish: NewDeployment,
    *,
    on_behalf_of: str | None = None,
) -> Deployment:
    owner = lookup.find_model(session, asking.viewer, model, permission=DEPLOY, lock=True)
    version = lookup.find_version(session, owner.id, wish.version)
    row = launching.deploy(
        session,
        owner,
        version,
        wish.target,
        config=wish.config,
        note=wish.reason,
        actor=asking.actor,
        trust=parts.trust,
        on_behalf_of=on_behalf_of,
    )
    return _created(response, row)


def _created(response: Response, row: Row[Any]) -> Deployment:
    response.headers["Location"] = _links(row)["self"]
    return _deployment(row)


def _deployment(row: Row[Any]) -> Deployment:
    return Deployment(**_summary(row), gates=row.evidence)


def _summary(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "model": row.model,
        "owner": row.owner,
        "version": row.version,
        "target": row.target,
        "status": row.status,
        "config": row.config,
        "note": row.note,
        "deployed_by": row.deployer,
        "deployed_at": row.deployed_at,
        "ended_by": row.ender,
        "ended_at": row.ended_at,
        "reason": row.reason,
        "previous": row.previous_id,
        "links": _links(row),
    }


def _links(row: Row[Any]) -> Mapping[str, str]:
    model = f"/api/v1/models/{row.model_id}"
    return {
        "self": f"{model}/deployments/{row.id}",
        "version": f"{model}/versions/{quote(row.version, safe='')}",
    }
