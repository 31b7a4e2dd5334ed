"""Models, versions and their artifacts as rows. Every read names its viewer: what is not theirs does not exist.

Nobody commits here; the edge owns the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, func, insert, literal, or_, select, true, tuple_, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from registry.errors import Denied, Missing, Taken
from registry.tables import artifacts, grants, models, users, versions
from registry.versions import Bump, following, normalise


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Who asks. An admin sees everything, others what they own, what is public, and what they were given a grant for."""

    user_id: UUID
    admin: bool = False


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which models to list. `search` looks in names and descriptions, `status` at any of a model's versions."""

    search: str | None = None
    model_type: str | None = None
    framework: str | None = None
    status: str | None = None


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What a new version is made of. `declared` is the form as JSON, `side_files` role → {name, key, sha256, size}."""

    owner_id: UUID
    model: str
    version: str | None
    bump: Bump
    format: str
    servable: bool
    filename: str
    size: int
    sha256: str
    staging_key: str
    declared: Mapping[str, Any]
    side_files: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One stored file of a version, in the registry bucket under `key`."""

    name: str
    role: str
    key: str
    sha256: str
    size: int
    media_type: str
    meta: Mapping[str, Any]
    created_at: datetime | None = None


def add_version(session: Session, intake: Intake) -> Row[Any]:
    """The version's row; its model is made on first use.

    The model's row is locked, so two uploads at once get two ordinals. Raises `Taken("version_exists")`, `ValueError`
    for a version that is none.
    """
    declared = intake.declared
    session.execute(
        upsert(models)
        .values(
            owner_id=intake.owner_id,
            name=intake.model,
            description=declared.get("description") or "",
            model_type=declared.get("model_type"),
            framework=declared.get("framework"),
            licence=declared.get("licence"),
            tags=declared.get("tags") or [],
        )
        .on_conflict_do_nothing()
    )
    model_id = session.execute(
        select(models.c.id).where(models.c.owner_id == intake.owner_id, models.c.name == intake.model).with_for_update()
    ).scalar_one()
    taken = session.execute(select(versions.c.version, versions.c.ordinal).where(versions.c.model_id == model_id)).all()
    version = normalise(intake.version) if intake.version else following((row.version for row in taken), intake.bump)
    try:
        with session.begin_nested():
            row = session.execute(
                insert(versions)
                .values(
                    model_id=model_id,
                    ordinal=max((row.ordinal for row in taken), default=0) + 1,
                    version=version,
                    format=intake.format,
                    servable=intake.servable,
                    filename=intake.filename,
                    size=intake.size,
                    sha256=intake.sha256,
                    staging_key=intake.staging_key,
                    declared=dict(declared),
                    side_files=dict(intake.side_files),
                    uploaded_by=intake.owner_id,
                )
                .returning(versions)
            ).one()
    except IntegrityError as error:
        raise Taken(
            "version_exists", f"{intake.model} has a version {version} already; versions never change."
        ) from error
    session.execute(update(models).where(models.c.id == model_id).values(updated_at=func.now()))
    return row


def publish(session: Session, version_id: UUID, published: Iterable[Artifact], *, servable: bool = True) -> None:
    """Make a version and its artifacts visible. Doing it twice is doing it once.

    `servable` is False where the file turned out to hold nothing that can be served, whatever its format promises.
    """
    for artifact in published:
        session.execute(
            upsert(artifacts)
            .values(
                version_id=version_id,
                name=artifact.name,
                role=artifact.role,
                key=artifact.key,
                sha256=artifact.sha256,
                size=artifact.size,
                media_type=artifact.media_type,
                meta=dict(artifact.meta),
            )
            .on_conflict_do_nothing()
        )
    session.execute(
        update(versions)
        .where(versions.c.id == version_id, versions.c.published_at.is_(None))
        .values(published_at=func.now(), status="approved", servable=versions.c.servable & literal(servable))
    )


def keep_original(session: Session, version_id: UUID, key: str, side_files: Mapping[str, Any]) -> None:
    """Remember where the uploaded bytes rest in quarantine storage."""
    session.execute(
        update(versions).where(versions.c.id == version_id).values(original_key=key, side_files=dict(side_files))
    )


def upload(session: Session, version_id: UUID) -> Row[Any]:
    """A version with its model's name, for the pipeline (which sees everything)."""
    return session.execute(
        select(versions, models.c.name.label("model"))
        .join(models, models.c.id == versions.c.model_id)
        .where(versions.c.id == version_id)
    ).one()


def staged(session: Session, keys: Sequence[str]) -> set[str]:
    """Which of these staging keys belong to a version."""
    return set(session.execute(select(versions.c.staging_key).where(versions.c.staging_key.in_(keys))).scalars())


def find_model(
    session: Session, viewer: Viewer, reference: str, *, permission: str | None = None, lock: bool = False
) -> Row[Any]:
    """A model by id, by name among the viewer's own, or by `owner/name` (in a path: `owner~name`).

    Reading needs that one may see it. With `permission`, such as `models:deploy`: that the viewer owns it, has a grant of
    that permission for it, or is an admin. Raises `Missing`, or `Denied` for what one may see and no more.
    """
    query = _models(viewer).where(_named(viewer, reference))
    row = session.execute(query.with_for_update(of=models) if lock else query).one_or_none()
    if row is None:
        raise Missing("model_not_found", f"You have no model {reference!r}.")
    if permission is not None and not _may(session, viewer, row, permission):
        raise Denied("not_granted", f"{row.owner} has not given you {permission} for {row.name}.")
    return row


def list_models(
    session: Session,
    viewer: Viewer,
    wanted: Wanted,
    *,
    after: tuple[datetime, UUID] | None = None,
    offset: int = 0,
    limit: int = 20,
) -> list[Row[Any]]:
    """Newest first; `after` is the (created_at, id) of the last one seen."""
    query = _models(viewer).where(*_filters(wanted))
    if after is not None:
        query = query.where(tuple_(models.c.created_at, models.c.id) < after)
    query = query.order_by(models.c.created_at.desc(), models.c.id.desc()).offset(offset).limit(limit)
    return list(session.execute(query))


def count_models(session: Session, viewer: Viewer, wanted: Wanted) -> int:
    counted = _models(viewer).where(*_filters(wanted)).subquery()
    return session.execute(select(func.count()).select_from(counted)).scalar_one()


def latest_versions(session: Session, model_ids: Sequence[UUID]) -> dict[UUID, Row[Any]]:
    """The newest version of each model that has one."""
    rows = session.execute(
        select(versions)
        .ext(distinct_on(versions.c.model_id))
        .where(versions.c.model_id.in_(model_ids), versions.c.deleted_at.is_(None))
        .order_by(versions.c.model_id, versions.c.ordinal.desc())
    )
    return {row.model_id: row for row in rows}


def list_versions(session: Session, model_id: UUID) -> list[Row[Any]]:
    """Newest first. The caller has found the model, so may see its versions."""
    return list(
        session.execute(
            select(versions)
            .where(versions.c.model_id == model_id, versions.c.deleted_at.is_(None))
            .order_by(versions.c.ordinal.desc())
        )
    )


def find_version(session: Session, model_id: UUID, reference: str) -> Row[Any]:
    """A version by SemVer (short forms too), ordinal, or `latest`. Raises `Missing`."""
    query = select(versions).where(versions.c.model_id == model_id, versions.c.deleted_at.is_(None))
    if reference == "latest":
        row = session.execute(query.order_by(versions.c.ordinal.desc()).limit(1)).one_or_none()
    else:
        try:
            same: ColumnElement[bool] = versions.c.version == normalise(reference)
        except ValueError as error:
            raise Missing("version_not_found", f"{error}.") from error
        ordinal = int(reference) if reference.isdecimal() and len(reference) < 10 else 0
        by_ordinal = versions.c.ordinal == ordinal
        row = session.execute(query.where(or_(same, by_ordinal)).order_by(by_ordinal.desc()).limit(1)).one_or_none()
    if row is None:
        raise Missing("version_not_found", f"This model has no version {reference!r}.")
    return row


def lock_version(session: Session, version_id: UUID) -> None:
    """Let nobody else change the version until the transaction ends."""
    session.execute(select(versions.c.id).where(versions.c.id == version_id).with_for_update()).one()


def pin(session: Session, version_id: UUID, device: str, variant: str) -> None:
    """Prefer a variant on a device."""
    pins = versions.c.pins.op("||")(func.jsonb_build_object(device, variant))
    session.execute(update(versions).where(versions.c.id == version_id).values(pins=pins))


def unpin(session: Session, version_id: UUID, device: str) -> None:
    session.execute(update(versions).where(versions.c.id == version_id).values(pins=versions.c.pins.op("-")(device)))


def newest_published(session: Session, model_id: UUID, *, besides: UUID) -> Row[Any] | None:
    """The model's version that was published last and can be served, other than one."""
    return session.execute(
        select(versions)
        .where(
            versions.c.model_id == model_id,
            versions.c.id != besides,
            versions.c.published_at.is_not(None),
            versions.c.verdict == "clean",
            versions.c.servable,
            versions.c.deleted_at.is_(None),
        )
        .order_by(versions.c.published_at.desc(), versions.c.ordinal.desc())
        .limit(1)
    ).one_or_none()


def list_artifacts(session: Session, version_id: UUID) -> list[Artifact]:
    rows = session.execute(
        select(artifacts).where(artifacts.c.version_id == version_id).order_by(artifacts.c.role, artifacts.c.name)
    )
    return [
        Artifact(
            name=row.name,
            role=row.role,
            key=row.key,
            sha256=row.sha256,
            size=row.size,
            media_type=row.media_type,
            meta=row.meta,
            created_at=row.created_at,
        )
        for row in rows
    ]


def _models(viewer: Viewer) -> Select[Any]:
    mine_or_public = or_(models.c.owner_id == viewer.user_id, models.c.visibility == "public")
    visible = true() if viewer.admin else or_(mine_or_public, _granted(viewer).exists())
    named = select(models, users.c.username.label("owner")).join(users, users.c.id == models.c.owner_id)
    return named.where(models.c.deleted_at.is_(None), visible)


def _granted(viewer: Viewer) -> Select[Any]:
    """The viewer's grants for the model at hand that count now."""
    counts = or_(grants.c.expires_at.is_(None), grants.c.expires_at > func.now())
    return select(grants.c.permission).where(
        grants.c.model_id == models.c.id, grants.c.user_id == viewer.user_id, counts
    )


def _may(session: Session, viewer: Viewer, row: Row[Any], permission: str) -> bool:
    if viewer.admin or row.owner_id == viewer.user_id:
        return True
    held = _granted(viewer).where(models.c.id == row.id, grants.c.permission == permission).limit(1)
    return session.execute(held).first() is not None


def _named(viewer: Viewer, reference: str) -> ColumnElement[bool]:
    try:
        return models.c.id == UUID(reference)
    except ValueError:
        owner, separator, name = reference.replace("~", "/").partition("/")
        if separator:
            return and_(models.c.name == name, users.c.username == owner)
        return and_(models.c.name == reference, models.c.owner_id == viewer.user_id)


def _filters(wanted: Wanted) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.search:
        words = (column.icontains(wanted.search, autoescape=True) for column in (models.c.name, models.c.description))
        found.append(or_(*words))
    if wanted.model_type:
        found.append(models.c.model_type == wanted.model_type)
    if wanted.framework:
        found.append(models.c.framework == wanted.framework)
    if wanted.status:
        of_model = (versions.c.model_id == models.c.id, versions.c.status == wanted.status)
        found.append(select(versions.c.id).where(*of_model).exists())
    return found
