"""Which version answers for a model now, and a mark that changes whenever that may have changed. For whoever serves models."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, String, and_, cast, func, literal, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from registry import lookup, pointers
from registry.errors import Conflict, Missing
from registry.lookup import Viewer
from registry.rules import TARGETS
from registry.tables import aliases, artifacts, deployments, endpoints, grants, models, rollouts, users, versions

PRODUCTION = "production"


def find(session: Session, model_id: UUID, reference: str | None) -> tuple[Row[Any], str | None]:
    """The version that a reference means to those who ask a model, and the target where it is live, if that was meant.

    A target (`production`, `staging`, `development`) means what is live there; everything else is read as elsewhere: SemVer,
    ordinal, alias, `latest`. None: what is live on production, else the default version. Raises `Missing`.
    """
    target = PRODUCTION if reference is None else reference
    if target in TARGETS:
        query = (
            select(versions)
            .join(deployments, deployments.c.version_id == versions.c.id)
            .where(deployments.c.model_id == model_id, deployments.c.target == target, deployments.c.status == "live")
        )
        row = session.execute(query).one_or_none()
        if row is not None:
            return row, target
    return lookup.find_version(session, model_id, reference or pointers.DEFAULT), None


def refuse_unless_servable(model: Row[Any], version: Row[Any]) -> None:
    """Raises `Conflict`: `quarantined`, `not_published`, `not_servable`, `model_inactive`, or `Missing` where it is deleted."""
    if version.deleted_at is not None:
        raise Missing("version_not_found", "This version has been deleted.")
    if version.verdict != "clean":
        raise Conflict("quarantined", f"{version.version} is held back: its verdict is {version.verdict}.")
    if version.published_at is None:
        raise Conflict("not_published", f"{version.version} has not been published (yet).")
    if not version.servable:
        raise Conflict("not_servable", f"{version.version} is kept and not served: its format has no servable form.")
    if not model.is_active:
        raise Conflict("model_inactive", f"{model.name} has been switched off by its owner.")


def model(session: Session, model_id: UUID) -> Row[Any] | None:
    """A model's row with its `owner`'s name and its endpoint's settings; None where it is gone or deleted."""
    query = (
        select(
            models.c.id,
            models.c.name,
            models.c.owner_id,
            models.c.is_active,
            models.c.visibility,
            users.c.username.label("owner"),
            func.coalesce(endpoints.c.auth_required, True).label("auth_required"),
            endpoints.c.requests_per_minute,
            endpoints.c.timeout_ms,
        )
        .join(users, users.c.id == models.c.owner_id)
        .outerjoin(endpoints, endpoints.c.model_id == models.c.id)
        .where(models.c.id == model_id, models.c.deleted_at.is_(None))
    )
    found: list[Row[Any]] = list(session.execute(query))
    return found[0] if found else None


def version(session: Session, version_id: UUID) -> Row[Any] | None:
    """A version's row, whatever has become of it."""
    return session.execute(select(versions).where(versions.c.id == version_id)).one_or_none()


def open_to_all(session: Session, owner: str, name: str) -> UUID | None:
    """A model whose endpoint asks nobody who they are."""
    query = (
        select(models.c.id)
        .join(users, users.c.id == models.c.owner_id)
        .join(endpoints, endpoints.c.model_id == models.c.id)
        .where(
            users.c.username == owner,
            models.c.name == name,
            models.c.deleted_at.is_(None),
            endpoints.c.auth_required.is_(False),
        )
    )
    return session.execute(query).scalar_one_or_none()


def named(session: Session, viewer: Viewer) -> dict[UUID, str]:
    """`owner/name` of the models that the viewer may see."""
    rows = session.execute(lookup.visible_models(viewer))
    return {row.id: f"{row.owner}/{row.name}" for row in rows}


def answering(session: Session, viewer: Viewer) -> list[tuple[str, str, UUID]]:
    """`owner/name`, version and its id of each model that the viewer may see and that answers when it is asked by its name."""
    seen = lookup.visible_models(viewer).subquery()
    production = and_(
        deployments.c.model_id == seen.c.id, deployments.c.target == PRODUCTION, deployments.c.status == "live"
    )
    default = and_(aliases.c.model_id == seen.c.id, aliases.c.name == pointers.DEFAULT)
    query = (
        select(seen.c.owner, seen.c.name, versions.c.version, versions.c.id)
        .select_from(seen)
        .outerjoin(deployments, production)
        .outerjoin(aliases, default)
        .join(versions, versions.c.id == func.coalesce(deployments.c.version_id, aliases.c.version_id))
        .where(
            *(seen.c.is_active, versions.c.servable, versions.c.verdict == "clean"),
            *(versions.c.published_at.is_not(None), versions.c.deleted_at.is_(None)),
        )
        .order_by(seen.c.owner, seen.c.name)
    )
    return [(f"{row.owner}/{row.name}", row.version, row.id) for row in session.execute(query)]


def in_production(session: Session) -> list[UUID]:
    """The models that have something live on production, newest first: what to have ready before anybody asks."""
    query = (
        select(deployments.c.model_id)
        .join(models, models.c.id == deployments.c.model_id)
        .where(deployments.c.status == "live", deployments.c.target == PRODUCTION, models.c.deleted_at.is_(None))
        .order_by(deployments.c.deployed_at.desc())
    )
    return list(session.execute(query).scalars())


def marks(session: Session, model_ids: Collection[UUID]) -> dict[UUID, str]:
    """For each of these models that is there a text that is another one once anything has changed that serving rests on."""

    def told(table: Any, *columns: Any, where: Any = None) -> Any:
        line: ColumnElement[str] = func.concat_ws(" ", *(cast(one, String) for one in columns))
        query = select(func.string_agg(line, aggregate_order_by(literal(";"), line))).where(
            table.c.model_id == models.c.id
        )
        return (query if where is None else query.where(where)).scalar_subquery()

    variants = (
        select(func.count())
        .select_from(artifacts.join(versions, versions.c.id == artifacts.c.version_id))
        .where(versions.c.model_id == models.c.id)
        .scalar_subquery()
    )
    parts = (
        cast(models.c.is_active, String),
        models.c.visibility,
        told(deployments, deployments.c.id, where=deployments.c.status == "live"),
        told(aliases, aliases.c.name, aliases.c.version_id),
        told(rollouts, rollouts.c.id, where=rollouts.c.status == "running"),
        told(endpoints, endpoints.c.revision),
        told(grants, grants.c.user_id, grants.c.permission, grants.c.expires_at),
        told(
            versions,
            *(versions.c.id, versions.c.verdict, versions.c.pins),
            *(versions.c.published_at, versions.c.deleted_at),
        ),
        cast(variants, String),
    )
    query = select(models.c.id, func.md5(func.concat_ws("|", *parts))).where(
        models.c.id.in_(model_ids), models.c.deleted_at.is_(None)
    )
    return {row[0]: row[1] for row in session.execute(query)}
