"""Deleting, restoring and purging models and versions over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response
from sqlalchemy.orm import Session

from api import versions
from api.deps import Parts, Principal, Problem, Services, Transaction, require
from api.errors import documented
from api.idempotency import IdempotentRoute
from api.models import tagged
from api.schemas.models import Model, Removed
from api.schemas.versions import Version
from pipeline import purging
from registry import audit, lookup, models, quotas, removal, store
from registry.errors import Missing

router = APIRouter(prefix="/models/{model}", tags=["models"], route_class=IdempotentRoute)

Deleter = Annotated[Principal, Depends(require("models:delete"))]
_ABOUT_MODEL = ("unauthenticated", "forbidden", "not_granted", "model_not_found")
_ABOUT_VERSION = (*_ABOUT_MODEL, "version_not_found")


@router.delete(
    "",
    summary="Delete a model",
    responses=documented(*_ABOUT_MODEL, "model_deployed", "runs_under_way", "invalid_field"),
)
def delete_model(
    model: str,
    asking: Deleter,
    session: Transaction,
    parts: Parts,
    *,
    purge: Annotated[bool, Query(description="for admins: at once and for good")] = False,
) -> Removed:
    """It is gone for everybody, and can be restored for a while (`DELETE_RETENTION`). Refused while a version is live.

    With `purge` its rows go at once, deleted before or not; its bytes go with the next garbage collection. Runs that go
    on have to be cancelled first (409 `runs_under_way` names them).
    """
    if purge:
        return _purge(session, asking, model)
    row = lookup.find_model(session, asking.viewer, model, permission="models:delete", lock=True)
    when = removal.delete_model(session, row)
    audit.append(session, asking.actor, "model.deleted", str(row.id), {"name": row.name, "owner": row.owner})
    return _removed(row.id, row.name, when, parts)


@router.post(
    ":restore",
    summary="Restore a model",
    responses=documented("unauthenticated", "forbidden", "quota_exceeded", "model_not_found", "retention_over"),
)
def restore_model(model: str, response: Response, asking: Deleter, session: Transaction, parts: Parts) -> Model:
    """Everything is as it was, versions and aliases too."""
    row = removal.deleted_model(session, asking.viewer, model)
    quotas.admit_model(session, row.owner_id, parts.settings.plans)
    removal.restore_model(session, row, _retention(parts))
    audit.append(session, asking.actor, "model.restored", str(row.id), {"name": row.name, "owner": row.owner})
    return tagged(response, models.read(session, asking.viewer, str(row.id)), parts.settings)


@router.delete(
    "/versions/{version}",
    summary="Delete a version",
    responses=documented(*_ABOUT_VERSION, "version_deployed", "version_in_rollout", "version_has_alias"),
)
def delete_version(model: str, version: str, asking: Deleter, session: Transaction, parts: Parts) -> Removed:
    """Refused while it is live or rolled out somewhere or an alias, `default` too, points at it. Its number is never used again."""
    owner = lookup.find_model(session, asking.viewer, model, permission="models:delete", lock=True)
    row = lookup.find_version(session, owner.id, version)
    store.lock_version(session, row.id)
    when = removal.delete_version(session, row, asking.user_id)
    audit.append(session, asking.actor, "version.deleted", str(row.id), {"model": owner.name, "version": row.version})
    return _removed(row.id, row.version, when, parts)


@router.post(
    "/versions/{version}:restore",
    summary="Restore a version",
    responses=documented(*_ABOUT_VERSION, "retention_over"),
)
def restore_version(model: str, version: str, asking: Deleter, session: Transaction, parts: Parts) -> Version:
    """By SemVer or ordinal."""
    owner = lookup.find_model(session, asking.viewer, model, permission="models:delete", lock=True)
    row = removal.deleted_version(session, owner.id, version)
    removal.restore_version(session, row, _retention(parts))
    audit.append(session, asking.actor, "version.restored", str(row.id), {"model": owner.name, "version": row.version})
    return versions.described(session, asking.viewer, str(owner.id), row.version)


def _purge(session: Session, asking: Principal, model: str) -> Removed:
    if not asking.viewer.admin:
        raise Problem(HTTPStatus.FORBIDDEN, "forbidden", "Only admins purge.")
    try:
        row = lookup.find_model(session, asking.viewer, model, lock=True)
    except Missing:
        row = removal.deleted_model(session, asking.viewer, model)
    purging.purge_model(session, row, actor=asking.actor)
    return Removed(id=row.id, name=row.name, deleted_at=None, restorable_until=None)


def _removed(row_id: UUID, name: str, when: datetime, parts: Services) -> Removed:
    return Removed(id=row_id, name=name, deleted_at=when, restorable_until=when.astimezone(UTC) + _retention(parts))


def _retention(parts: Services) -> timedelta:
    return timedelta(seconds=parts.settings.delete_retention)
