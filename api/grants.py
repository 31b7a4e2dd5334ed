"""Grants over HTTP: what the owner of a model lets others do with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from sqlalchemy import Row

from api.deps import Manager, Principal, Transaction, require
from api.errors import documented
from api.schemas.people import Grant, Grantable, Grants, NewGrant
from registry import audit, grants

router = APIRouter(prefix="/models/{model}/grants", tags=["people"])


def sharer(asking: Manager, _: Annotated[Principal, Depends(require("models:upload"))]) -> Principal:
    """Somebody who brings models in, with a credential that may all that they may."""
    return asking


Sharer = Annotated[Principal, Depends(sharer)]
Reader = Annotated[Principal, Depends(require("models:read"))]

_ABOUT_ONE = ("unauthenticated", "forbidden", "model_not_found", "not_owner")


@router.get("", summary="List a model's grants", responses=documented(*_ABOUT_ONE))
def list_grants(model: str, asking: Reader, session: Transaction) -> Grants:
    """Those that count now, by user. For the model's owner and admins."""
    row = grants.model_of(session, asking.viewer, model)
    return Grants(items=[_grant(each) for each in grants.of_model(session, row.id)])


@router.put(
    "/{username}/{permission}",
    summary="Grant a permission for a model",
    responses=documented(*_ABOUT_ONE, "user_not_found", "grant_to_owner", "invalid_field"),
)
def give(
    model: str,
    username: str,
    permission: Grantable,
    asking: Sharer,
    session: Transaction,
    wish: NewGrant | None = None,
) -> Grant:
    """Whoever has any grant for a model sees it; what they do with it needs the grant and their own right to do so at all.

    Given again, the new end counts.
    """
    row = grants.model_of(session, asking.viewer, model, lock=True)
    days = wish and wish.expires_in_days
    end = datetime.now(UTC) + timedelta(days=days) if days else None
    given = grants.give(session, row, username, permission, by=asking.user_id, expires_at=end)
    audit.append(session, asking.actor, "grant.given", str(row.id), _told(given))
    return _grant(given)


@router.delete(
    "/{username}/{permission}",
    summary="Take a grant back",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented(*_ABOUT_ONE, "grant_not_found"),
)
def take(model: str, username: str, permission: Grantable, asking: Sharer, session: Transaction) -> None:
    """It counts no longer from the user's next request on."""
    row = grants.model_of(session, asking.viewer, model, lock=True)
    grants.take(session, row, username, permission)
    audit.append(session, asking.actor, "grant.revoked", str(row.id), {"username": username, "permission": permission})


def _told(row: Row[Any]) -> dict[str, Any]:
    end = row.expires_at and row.expires_at.isoformat()
    return {"username": row.username, "permission": row.permission, "expires_at": end}


def _grant(row: Row[Any]) -> Grant:
    return Grant(
        username=row.username,
        permission=row.permission,
        granted_by=row.giver,
        granted_at=row.created_at,
        expires_at=row.expires_at,
    )
