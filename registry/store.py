"""Models, versions and their artifacts as rows: taken in, published and changed. Who may see them is up to `registry.lookup`.

Nobody commits here; the edge owns the transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from registry import audit, metrics, naming, pointers
from registry.errors import Missing, Outdated, Taken
from registry.tables import alias_moves, aliases, artifacts, models, versions
from registry.versions import Bump, following, normalise


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What a new version is made of. `declared` is the form as JSON, `side_files` role → {name, key, sha256, size}.

    `model_id` is of a model that is there; without it the owner's model of that name is made on first use. `uploaded_by`
    is the owner unless somebody else is named.
    `card` is Markdown for the model, `confirm_name` says that a new model's name is no mistake for another one.
    """

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
    model_id: UUID | None = None
    uploaded_by: UUID | None = None
    card: str | None = None
    confirm_name: bool = False


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
    """The version's row; its model is made on first use, and the metrics that were declared are its first.

    The model's row is locked, so two uploads at once get two ordinals. Raises `Taken("version_exists")`, `Missing` for a
    model that has gone meanwhile, `ValueError` for a version that is none, and what `naming.create` raises for a name
    that cannot be had.
    """
    declared = {name: value for name, value in intake.declared.items() if name != "release_notes"}
    uploaded_by = intake.uploaded_by or intake.owner_id
    model_id = _locked_model(session, intake)
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
                    declared=declared,
                    side_files=dict(intake.side_files),
                    uploaded_by=uploaded_by,
                    release_notes=intake.declared.get("release_notes") or "",
                )
                .returning(versions)
            ).one()
    except IntegrityError as error:
        raise Taken(
            "version_exists", f"{intake.model} has a version {version} already; versions never change."
        ) from error
    changed: dict[str, Any] = {"updated_at": func.now()}
    if intake.card is not None:
        changed |= {"card": intake.card, "revision": models.c.revision + 1}
    session.execute(update(models).where(models.c.id == model_id).values(changed))
    metrics.take_declared(session, row)
    return row


def find_same(session: Session, intake: Intake) -> Row[Any] | None:
    """The version that has the number which is wanted, and the very bytes that came for it, where there is one."""
    if intake.version is None:
        return None
    of = models.c.id == intake.model_id
    if intake.model_id is None:
        of = and_(models.c.owner_id == intake.owner_id, models.c.name == intake.model)
    row = session.execute(
        select(versions)
        .join(models, models.c.id == versions.c.model_id)
        .where(of, models.c.deleted_at.is_(None), versions.c.deleted_at.is_(None))
        .where(versions.c.version == normalise(intake.version), versions.c.sha256 == intake.sha256)
    ).one_or_none()
    return row if row is not None and _digests(row.side_files) == _digests(intake.side_files) else None


def _digests(side_files: Mapping[str, Any]) -> dict[str, str]:
    return {role: file["sha256"] for role, file in side_files.items()}


def publish(session: Session, version_id: UUID, published: Iterable[Artifact], *, servable: bool = True) -> None:
    """Make a version and its artifacts visible. Doing it twice is doing it once.

    `servable` is False where the file turned out to hold nothing that can be served, whatever its format promises. Where
    the model has no default version yet, this one is it.
    """
    # The model first, the version after it: as everybody does who moves aliases.
    model_id = session.execute(
        select(models.c.id)
        .join(versions, versions.c.model_id == models.c.id)
        .where(versions.c.id == version_id)
        .with_for_update(of=models, key_share=True)
    ).scalar_one()
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
    first = session.execute(
        update(versions)
        .where(versions.c.id == version_id, versions.c.published_at.is_(None))
        .values(published_at=func.now(), status="approved", servable=versions.c.servable & literal(servable))
        .returning(versions.c.id)
    ).one_or_none()
    if first is not None:
        _become_default(session, model_id, version_id)


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


def list_versions(
    session: Session,
    model_id: UUID,
    *,
    status: str | None = None,
    is_default: bool | None = None,
    below: int | None = None,
    limit: int | None = None,
) -> list[Row[Any]]:
    """Newest first, those with an ordinal `below`. The caller has found the model, so may see its versions."""
    query = _versions(model_id)
    if status is not None:
        query = query.where(versions.c.status == status)
    if is_default is not None:
        default = (
            select(aliases.c.version_id)
            .where(aliases.c.version_id == versions.c.id, aliases.c.name == pointers.DEFAULT)
            .exists()
        )
        query = query.where(default if is_default else ~default)
    if below is not None:
        query = query.where(versions.c.ordinal < below)
    return list(session.execute(query.order_by(versions.c.ordinal.desc()).limit(limit)))


def lock_version(session: Session, version_id: UUID) -> None:
    """Let nobody else change the version until the transaction ends."""
    session.execute(select(versions.c.id).where(versions.c.id == version_id).with_for_update()).one()


def lock_versions(session: Session, wanted: ColumnElement[bool]) -> list[Row[Any]]:
    """Those versions, locked one after the other in the order of their ids: so two who lock several never wait for each other.

    Whoever locks models too does that first.
    """
    query = select(versions).where(wanted).order_by(versions.c.id)
    return list(session.execute(query.with_for_update(key_share=True)))


def pin(session: Session, version_id: UUID, device: str, variant: str) -> None:
    """Prefer a variant on a device."""
    pins = versions.c.pins.op("||")(func.jsonb_build_object(device, variant))
    session.execute(update(versions).where(versions.c.id == version_id).values(pins=pins))


def unpin(session: Session, version_id: UUID, device: str) -> None:
    session.execute(update(versions).where(versions.c.id == version_id).values(pins=versions.c.pins.op("-")(device)))


def describe_version(session: Session, version_id: UUID, *, revision: int | None = None, **values: Any) -> Row[Any]:
    """Change what may change of a version (`release_notes`, `status`); its row, under a new revision.

    Raises `Outdated` where it has another `revision` than the one that the asker has seen.
    """
    query = update(versions).where(versions.c.id == version_id)
    if revision is not None:
        query = query.where(versions.c.revision == revision)
    changed = query.values(**values, revision=versions.c.revision + 1).returning(versions)
    row = session.execute(changed).one_or_none()
    if row is None:
        raise Outdated("version_changed", "The version has changed since you read it; read it again.")
    return row


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


def other_published(session: Session, row: Row[Any]) -> list[Row[Any]]:
    """The model's other versions that are published and clean: what a version is measured by is among them."""
    fit = (versions.c.published_at.is_not(None), versions.c.verdict == "clean")
    return list(session.execute(_versions(row.model_id).where(versions.c.id != row.id, *fit)))


def artifacts_of(version_id: UUID | ColumnElement[UUID]) -> Select[Any]:
    """The fields of each `Artifact`, by role and name."""
    shown = (artifacts.c[field.name] for field in fields(Artifact))
    return select(*shown).where(artifacts.c.version_id == version_id).order_by(artifacts.c.role, artifacts.c.name)


def list_artifacts(session: Session, version_id: UUID) -> list[Artifact]:
    return [Artifact(**row) for row in session.execute(artifacts_of(version_id)).mappings()]


def _locked_model(session: Session, intake: Intake) -> UUID:
    """The model that the version is for, made on first use where no id names it."""
    if intake.model_id is None:
        which = and_(models.c.owner_id == intake.owner_id, models.c.name == intake.model, models.c.deleted_at.is_(None))
    else:
        which = and_(models.c.id == intake.model_id, models.c.deleted_at.is_(None))
    query = select(models.c.id).where(which).with_for_update()
    model_id: UUID | None = session.execute(query).scalar_one_or_none()
    if model_id is None and intake.model_id is None:
        try:
            model_id = _made(session, intake)
        except Taken:  # another upload has made it since we looked
            model_id = session.execute(query).scalar_one_or_none()
    if model_id is None:
        raise Missing("model_not_found", f"You have no model {intake.model!r}.")
    return model_id


def _made(session: Session, intake: Intake) -> UUID:
    declared = intake.declared
    values = {
        "description": declared.get("description") or "",
        "model_type": declared.get("model_type"),
        "framework": declared.get("framework"),
        "licence": declared.get("licence"),
        "tags": declared.get("tags") or [],
    }
    made = naming.create(
        session, owner_id=intake.owner_id, name=intake.model, values=values, confirmed=intake.confirm_name
    )
    model_id: UUID = made.id
    return model_id


def _become_default(session: Session, model_id: UUID, version_id: UUID) -> None:
    """Point the alias `default` of a model that has none at a version. The caller has locked the model."""
    made = session.execute(
        upsert(aliases)
        .values(model_id=model_id, name=pointers.DEFAULT, version_id=version_id)
        .on_conflict_do_nothing()
        .returning(aliases.c.name)
    ).one_or_none()
    if made is None:
        return
    reason = "the first version that was published"
    session.execute(
        insert(alias_moves).values(model_id=model_id, name=pointers.DEFAULT, version_id=version_id, reason=reason)
    )
    told = {"model": str(model_id), "alias": pointers.DEFAULT, "from": None, "reason": reason}
    audit.append(session, audit.SLIPWAY, "alias.moved", str(version_id), told)


def _versions(model_id: UUID) -> Select[Any]:
    return select(versions).where(versions.c.model_id == model_id, versions.c.deleted_at.is_(None))
