"""How long what was deleted can be restored: after that its rows go, and with them the claim on its bytes.

Whoever deletes rows deletes no bytes: those that no row names any longer are found and removed by `pipeline.garbage`.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, delete, func, select
from sqlalchemy.orm import Session

from registry import audit
from registry.tables import deployments, models, versions


def overdue_models(session: Session, retention: float, limit: int) -> list[Row[Any]]:
    """Models that were deleted more than `retention` seconds ago, locked: a restore waits, or was first."""
    return list(
        session.execute(
            select(models.c.id, models.c.name)
            .where(_older(models.c.deleted_at, retention))
            .order_by(models.c.deleted_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
    )


def overdue_versions(session: Session, retention: float, limit: int) -> list[Row[Any]]:
    """Versions that were deleted by themselves so long ago, those that are deployed left out. Locked."""
    live = select(deployments.c.id).where(deployments.c.version_id == versions.c.id, deployments.c.status == "live")
    return list(
        session.execute(
            select(versions.c.id, versions.c.version, versions.c.sha256, models.c.name.label("model"))
            .join(models, models.c.id == versions.c.model_id)
            .where(_older(versions.c.deleted_at, retention), ~live.exists())
            .order_by(versions.c.deleted_at)
            .limit(limit)
            .with_for_update(skip_locked=True, of=versions)
        )
    )


def purge_model(session: Session, model_id: UUID, *, name: str, actor: audit.Actor = audit.SLIPWAY) -> None:
    """Take a model and its versions away for good; the audit trail keeps that they were there."""
    session.execute(delete(models).where(models.c.id == model_id))
    audit.append(session, actor, "model.purged", str(model_id), {"model": name})


def purge_version(
    session: Session, version_id: UUID, *, model: str, version: str, sha256: str, actor: audit.Actor = audit.SLIPWAY
) -> None:
    """Take a version away for good, with the history of where it was deployed."""
    session.execute(delete(deployments).where(deployments.c.version_id == version_id))
    session.execute(delete(versions).where(versions.c.id == version_id))
    details = {"model": model, "version": version, "sha256": sha256}
    audit.append(session, actor, "version.purged", str(version_id), details)


def _older(moment: ColumnElement[Any], seconds: float) -> ColumnElement[bool]:
    return func.extract("epoch", func.clock_timestamp() - moment) > seconds
