"""What may be found: models and versions by any of their names, as far as a viewer may see them. What is not theirs does not exist."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, Uuid, and_, bindparam, func, or_, select, true
from sqlalchemy.orm import Session

from registry import pointers
from registry.errors import Denied, Missing
from registry.tables import aliases, grants, models, users, versions
from registry.versions import normalise

Naming = Literal["id", "owner", "own"]
Numbering = Literal["latest", "alias", "number"]

USING = frozenset({"models:read", "models:download", "models:predict"})
"""What a public model lets everybody do who has the right."""


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Who asks. An admin sees everything, others what they own, what is public, and what they were given a grant for."""

    user_id: UUID
    admin: bool = False


def find_model(
    session: Session, viewer: Viewer, reference: str, *, permission: str | None = None, lock: bool = False
) -> Row[Any]:
    """A model by id, by name among the viewer's own, or by `owner/name` (in a path: `owner~name`).

    Without `permission`: that one may see it. With one, such as `models:deploy`: that the viewer owns it, has a grant of
    that permission for it, or is an admin; what is public, everybody may use. Raises `Missing`, or `Denied` for what one
    may see and no more.
    """
    by, said = called(reference)
    row = session.execute(_model(viewer.admin, by, lock), {**said, "viewer": viewer.user_id}).one_or_none()
    if row is None:
        raise Missing("model_not_found", f"You have no model {reference!r}.")
    if permission is not None and not _may(session, viewer, row, permission):
        raise Denied("not_granted", f"{row.owner} has not given you {permission} for {row.name}.")
    return row


def find_version(session: Session, model_id: UUID, reference: str, *, lock: bool = False) -> Row[Any]:
    """A version by SemVer (short forms too), ordinal, alias, or `latest`. Raises `Missing`.

    `lock`: nobody else changes it until the transaction ends. Who locks its model too does that first.
    """
    by, said = numbered(reference)
    row = session.execute(_version(by, lock), {**said, "of_model": model_id}).one_or_none()
    if row is None:
        raise Missing("version_not_found", f"This model has no version {reference!r}.")
    return row


def visible(viewer: Viewer) -> Select[Any]:
    """The ids of the models that the viewer may see, for queries about what hangs on them."""
    return visible_models(viewer).with_only_columns(models.c.id)


def is_visible(viewer: Viewer) -> ColumnElement[bool]:
    """Whether the viewer may see the model at hand, for queries that name `models`."""
    reachable = or_(models.c.owner_id == viewer.user_id, models.c.visibility == "public", _granted(viewer).exists())
    return and_(models.c.deleted_at.is_(None), true() if viewer.admin else reachable)


def visible_models(viewer: Viewer, *, deleted: bool = False) -> Select[Any]:
    """The models that the viewer may see, each with its `owner`'s name; or what they have deleted of their own.

    Without the card and what is searched, which may be long; `has_card` says whether there is one.
    """
    theirs = true() if viewer.admin else models.c.owner_id == viewer.user_id
    found = and_(models.c.deleted_at.is_not(None), theirs) if deleted else is_visible(viewer)
    short = [column for column in models.c if column not in {models.c.card, models.c.words}]
    shown = (users.c.username.label("owner"), models.c.card.is_not(None).label("has_card"))
    return select(*short, *shown).join(users, users.c.id == models.c.owner_id).where(found)


def somebody(*, admin: bool) -> Viewer:
    """A viewer to make a statement with that is kept; each execution says as `viewer` who it is.

    What every page asks is made once: to put such a statement together takes longer than to run it.
    """
    return Viewer(user_id=cast("UUID", bindparam("viewer", type_=Uuid())), admin=admin)


def called(reference: str) -> tuple[Naming, dict[str, Any]]:
    """How a reference names a model: by its id, as `owner/name` (`owner~name`), or as one of the viewer's own; and what it says."""
    try:
        return "id", {"named_id": UUID(reference)}
    except ValueError:
        owner, separator, name = reference.replace("~", "/").partition("/")
        return ("owner", {"named_owner": owner, "named": name}) if separator else ("own", {"named": reference})


def named(viewer: Viewer, by: Naming) -> ColumnElement[bool]:
    """Whether a model is the one that is `called` so; what the reference says is given at execution."""
    if by == "id":
        return models.c.id == bindparam("named_id", type_=Uuid())
    whose = users.c.username == bindparam("named_owner") if by == "owner" else models.c.owner_id == viewer.user_id
    return and_(models.c.name == bindparam("named"), whose)


def numbered(reference: str) -> tuple[Numbering, dict[str, Any]]:
    """How a reference names a version: as the latest, by an alias or by a number; and what it says. Raises `Missing`."""
    if reference == pointers.LATEST:
        return "latest", {}
    if pointers.is_name(reference):
        return "alias", {"alias": reference}
    try:
        number = normalise(reference)
    except ValueError as error:
        raise Missing("version_not_found", f"{error}.") from error
    return "number", {
        "number": number,
        "ordinal": int(reference) if reference.isdecimal() and len(reference) < 10 else 0,
    }


def meant(by: Numbering) -> tuple[ColumnElement[bool], ColumnElement[Any]]:
    """Whether a model's version is the one that is `numbered` so, and what the best of several comes first by."""
    newest = versions.c.ordinal.desc()
    match by:
        case "latest":
            return versions.c.deleted_at.is_(None), newest
        case "alias":
            here = (aliases.c.model_id == versions.c.model_id, aliases.c.name == bindparam("alias"))
            aimed = select(aliases.c.version_id).where(*here).scalar_subquery()
            return and_(versions.c.deleted_at.is_(None), versions.c.id == aimed), newest
        case "number":
            ordinal = versions.c.ordinal == bindparam("ordinal")
            same = or_(versions.c.version == bindparam("number"), ordinal)
            return and_(versions.c.deleted_at.is_(None), same), ordinal.desc()


@cache
def _model(admin: bool, by: Naming, lock: bool) -> Select[Any]:
    viewer = somebody(admin=admin)
    query = visible_models(viewer).where(named(viewer, by))
    return query.with_for_update(of=models) if lock else query


@cache
def _version(by: Numbering, lock: bool) -> Select[Any]:
    fits, first = meant(by)
    query = select(versions).where(versions.c.model_id == bindparam("of_model"), fits).order_by(first).limit(1)
    return query.with_for_update(of=versions) if lock else query


def _granted(viewer: Viewer) -> Select[Any]:
    """The viewer's grants for the model at hand that count now."""
    counts = or_(grants.c.expires_at.is_(None), grants.c.expires_at > func.now())
    return select(grants.c.permission).where(
        grants.c.model_id == models.c.id, grants.c.user_id == viewer.user_id, counts
    )


def _may(session: Session, viewer: Viewer, row: Row[Any], permission: str) -> bool:
    if viewer.admin or row.owner_id == viewer.user_id or (row.visibility == "public" and permission in USING):
        return True
    held = _granted(viewer).where(models.c.id == row.id, grants.c.permission == permission).limit(1)
    return session.execute(held).first() is not None
