"""How long what was deleted can be restored: after that its rows go, and with them the claim on its bytes.

Whether they may go now is decided by `pipeline.purging`. Whoever deletes rows deletes no bytes: those that no row names
any longer are found and removed by `pipeline.garbage`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, func, select
from sqlalchemy.orm import Session

from registry import audit
from registry.tables import deployments, models, users, versions


def overdue_models(session: Session, retention: float, limit: int, *, besides: Collection[UUID] = ()) -> list[Row[Any]]:
    """Models that were deleted more than `retention` seconds ago, locked: a restore waits, or was first."""
    return list(
        session.execute(
            select(models.c.id, models.c.name, users.c.username.label("owner"))
            .join(users, users.c.id == models.c.owner_id)
            .where(_older(models.c.deleted_at, retention), models.c.id.not_in(besides))
            .order_by(models.c.deleted_at)
            .limit(limit)
            .with_for_update(skip_locked=True, of=models)
        )
    )


def overdue_versions(
    session: Session, retention: float, limit: int, *, besides: Collection[UUID] = ()
) -> list[Row[Any]]:
    """Versions that were deleted by themselves so long ago, those that are deployed left out. Locked."""
    live = select(deployments.c.id).where(deployments.c.version_id == versions.c.id, deployments.c.status == "live")
    return list(
        session.execute(
            select(versions.c.id, versions.c.version, versions.c.sha256, models.c.name.label("model"))
            .join(models, models.c.id == versions.c.model_id)
            .where(_older(versions.c.deleted_at, retention), ~live.exists(), versions.c.id.not_in(besides))
            .order_by(versions.c.deleted_at)
            .limit(limit)
            .with_for_update(skip_locked=True, of=versions)
        )
    )


def versions_of(session: Session, model_ids: Collection[UUID]) -> dict[UUID, list[UUID]]:
    """All versions of each model, deleted ones too, locked: until the transaction ends no run begins for one of them."""
    query = select(versions.c.model_id, versions.c.id).where(versions.c.model_id.in_(model_ids)).order_by(versions.c.id)
    held: dict[UUID, list[UUID]] = {model_id: [] for model_id in model_ids}
    for row in session.execute(query.with_for_update()):
        held[row.model_id].append(row.id)
    return held


def drop_model(session: Session, row: Row[Any], *, held: int, actor: audit.Actor) -> None:
    """Take a model and the `held` versions it has away for good; the audit trail keeps that they were there."""
    session.execute(delete(models).where(models.c.id == row.id))
    told = {"name": row.name, "owner": row.owner, "versions": held}
    audit.append(session, actor, "model.purged", str(row.id), told)


def drop_version(session: Session, row: Row[Any], *, actor: audit.Actor) -> None:
    """Take a version away for good, with the history of where it was deployed."""
    session.execute(delete(deployments).where(deployments.c.version_id == row.id))
    session.execute(delete(versions).where(versions.c.id == row.id))
    told = {"model": row.model, "version": row.version, "sha256": row.sha256}
    audit.append(session, actor, "version.purged", str(row.id), told)


def _older(moment: ColumnElement[Any], seconds: float) -> ColumnElement[bool]:
    return func.extract("epoch", func.clock_timestamp() - moment) > seconds
