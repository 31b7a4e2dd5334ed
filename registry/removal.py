"""Models and versions that were deleted: gone for everybody, restorable for a while, then purged.

What is live or rolled out somewhere, and a version that an alias points at, is not deleted: somebody relies on it. How it
is purged is the business of `pipeline.purging`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, or_, select, update
from sqlalchemy.orm import Session

from registry import rollouts
from registry.errors import Conflict, Missing
from registry.lookup import Viewer, called, named, visible_models
from registry.tables import aliases, deployments, models, versions
from registry.versions import normalise


def delete_model(session: Session, row: Row[Any]) -> datetime:
    """Delete a model whose row is locked; when it was. Raises `Conflict` where a version of it is live."""
    refuse_where_deployed(session, row)
    when: datetime = session.execute(
        update(models).where(models.c.id == row.id).values(deleted_at=func.now()).returning(models.c.deleted_at)
    ).scalar_one()
    return when


def deleted_model(session: Session, viewer: Viewer, reference: str) -> Row[Any]:
    """A model that the viewer has deleted (an admin: anybody), locked. Raises `Missing`."""
    by, said = called(reference)
    query = visible_models(viewer, deleted=True).where(named(viewer, by))
    row = session.execute(query.with_for_update(of=models), said).one_or_none()
    if row is None:
        raise Missing("model_not_found", f"You have deleted no model {reference!r}.")
    return row


def restore_model(session: Session, row: Row[Any], retention: timedelta) -> None:
    """Bring a deleted model back. Raises `Conflict` once its time is over: its bytes may be gone."""
    _refuse_when_over(row.name, row.deleted_at, retention)
    values = {"deleted_at": None, "revision": models.c.revision + 1, "updated_at": func.now()}
    session.execute(update(models).where(models.c.id == row.id).values(values))


def delete_version(session: Session, row: Row[Any], by: UUID) -> datetime:
    """Delete a version of a model whose row is locked; when it was. Raises `Conflict` where it is relied upon."""
    refuse_where_relied_upon(session, row)
    targets = rollouts.of_version(session, row.id)
    if targets:
        detail = f"{row.version} is being rolled out on {', '.join(targets)}; stop that first."
        raise Conflict("version_in_rollout", detail, targets)
    when: datetime = session.execute(
        update(versions)
        .where(versions.c.id == row.id)
        .values(deleted_at=func.now(), deleted_by=by, revision=versions.c.revision + 1)
        .returning(versions.c.deleted_at)
    ).scalar_one()
    return when


def refuse_where_deployed(session: Session, row: Row[Any]) -> None:
    """Raises `Conflict` where a version of a model is live. The caller has locked it."""
    _refuse_where_live(session, deployments.c.model_id == row.id, row.name, "model_deployed")


def refuse_where_relied_upon(session: Session, row: Row[Any]) -> None:
    """Raises `Conflict` where a version is live or has an alias. The caller has locked it."""
    _refuse_where_live(session, deployments.c.version_id == row.id, row.version, "version_deployed")
    pointing = aliases.c.version_id == row.id
    found = list(session.execute(select(aliases.c.name).where(pointing).order_by(aliases.c.name)).scalars())
    if found:
        raise Conflict("version_has_alias", f"{row.version} is {', '.join(found)}; move that first.", found)


def deleted_version(session: Session, model_id: UUID, reference: str) -> Row[Any]:
    """A deleted version by SemVer or ordinal, locked. Raises `Missing`."""
    try:
        same = versions.c.version == normalise(reference)
    except ValueError as error:
        raise Missing("version_not_found", f"{error}.") from error
    by_ordinal = versions.c.ordinal == (int(reference) if reference.isdecimal() and len(reference) < 10 else 0)
    query = select(versions).where(
        versions.c.model_id == model_id, versions.c.deleted_at.is_not(None), or_(same, by_ordinal)
    )
    row = session.execute(query.order_by(by_ordinal.desc()).limit(1).with_for_update()).one_or_none()
    if row is None:
        raise Missing("version_not_found", f"This model has no deleted version {reference!r}.")
    return row


def restore_version(session: Session, row: Row[Any], retention: timedelta) -> None:
    """Bring a deleted version back. Raises `Conflict` once its time is over."""
    _refuse_when_over(row.version, row.deleted_at, retention)
    values = {"deleted_at": None, "deleted_by": None, "revision": versions.c.revision + 1}
    session.execute(update(versions).where(versions.c.id == row.id).values(values))


def _refuse_where_live(session: Session, of: Any, name: str, code: str) -> None:
    query = select(deployments.c.target).where(of, deployments.c.status == "live").order_by(deployments.c.target)
    targets = list(session.execute(query).scalars())
    if targets:
        raise Conflict(code, f"{name} is live in {', '.join(targets)}; end that first.", targets)


def _refuse_when_over(name: str, deleted_at: datetime, retention: timedelta) -> None:
    if datetime.now(UTC) - deleted_at > retention:
        raise Conflict(
            "retention_over", f"{name} was deleted more than {retention.days} days ago; its bytes may be gone."
        )
