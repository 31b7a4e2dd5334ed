"""Approvals over HTTP: vouch for a version on a target, or take that back."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends
from sqlalchemy import Row
from sqlalchemy.orm import Session

from api.deps import Asking, Principal, Problem, Transaction, require
from api.errors import documented
from api.idempotency import IdempotentRoute
from api.schemas.approvals import Approval, Approvals, NewApproval
from api.versions import find
from registry import lookup, promotion

router = APIRouter(prefix="/models/{model}/versions/{version}/approvals", tags=["gates"], route_class=IdempotentRoute)

Reader = Annotated[Principal, Depends(require("models:read"))]

REVIEW, DEPLOY = "models:review", "models:deploy"
_ABOUT_ONE = ("unauthenticated", "forbidden", "model_not_found", "version_not_found")


def approver(asking: Asking) -> Principal:
    """Somebody who may vouch for a version: with either of two rights."""
    if not (asking.may(REVIEW) or asking.may(DEPLOY)):
        detail = f"This needs the right {REVIEW} or {DEPLOY}, and you have neither."
        raise Problem(HTTPStatus.FORBIDDEN, "forbidden", detail)
    return asking


Approving = Annotated[Principal, Depends(approver)]


@router.get("", summary="List approvals", responses=documented(*_ABOUT_ONE))
def list_approvals(model: str, version: str, asking: Reader, session: Transaction) -> Approvals:
    """All that there ever were, newest first; one with `revoked_at` counts no longer."""
    _, row = find(session, asking.viewer, model, version)
    return Approvals(items=[_approval(each, row) for each in promotion.approvals_of(session, row.id)])


@router.post(
    "",
    summary="Approve a version",
    status_code=HTTPStatus.CREATED,
    responses=documented(*_ABOUT_ONE, "not_granted", "own_upload", "invalid_field"),
)
def approve(model: str, version: str, wish: NewApproval, asking: Approving, session: Transaction) -> Approval:
    """For a target, as somebody who did not upload it: nobody, not even an admin, approves their own.

    Takes `models:review` and a model that you may see, or `models:deploy` for the model. Twice is once.
    """
    row = _version(session, asking, model, version)
    done = promotion.approve(session, row, wish.target, comment=wish.comment, actor=asking.actor)
    return _approval(done, row)


@router.delete(
    "/{approval_id}",
    summary="Take an approval back",
    responses=documented(*_ABOUT_ONE, "not_granted", "not_your_approval", "approval_not_found"),
)
def revoke(model: str, version: str, approval_id: UUID, asking: Approving, session: Transaction) -> Approval:
    """Your own, or as an admin anybody's. It counts no longer; what is live stays."""
    row = _version(session, asking, model, version)
    done = promotion.revoke_approval(session, row, approval_id, actor=asking.actor, admin=asking.may("admin"))
    return _approval(done, row)


def _version(session: Session, asking: Principal, model: str, version: str) -> Row[Any]:
    permission = None if asking.may(REVIEW) else DEPLOY
    owner = lookup.find_model(session, asking.viewer, model, permission=permission)
    return lookup.find_version(session, owner.id, version)


def _approval(row: Row[Any], version: Row[Any]) -> Approval:
    return Approval(
        id=row.id,
        version=version.version,
        target=row.target,
        approved_by=row.approver,
        comment=row.comment,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
