"""Grants: what an owner lets somebody else do with one model. What they do is in `registry.lookup`, which every look-up asks."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, func, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from registry import lookup
from registry.errors import Conflict, Denied, Missing
from registry.lookup import Viewer
from registry.tables import grants, users

GRANTABLE = ("models:read", "models:download", "models:upload", "models:delete", "models:deploy", "models:predict")
"""Judging what lies in quarantine is nobody's to give for one model."""

_GRANTEES, _GIVERS = users.alias("grantees"), users.alias("givers")


def model_of(session: Session, viewer: Viewer, reference: str, *, lock: bool = False) -> Row[Any]:
    """A model whose grants are the viewer's business: its owner's and an admin's. Raises `Missing`, `Denied`."""
    model = lookup.find_model(session, viewer, reference, lock=lock)
    if not viewer.admin and model.owner_id != viewer.user_id:
        raise Denied("not_owner", f"Only {model.owner} and admins decide who may do what with {model.name}.")
    return model


def of_model(session: Session, model_id: UUID) -> list[Row[Any]]:
    """Those that count, by user name and permission, with `username` and `giver`."""
    query = (
        select(grants, _GRANTEES.c.username, _GIVERS.c.username.label("giver"))
        .join(_GRANTEES, _GRANTEES.c.id == grants.c.user_id)
        .join(_GIVERS, _GIVERS.c.id == grants.c.granted_by)
        .where(grants.c.model_id == model_id, _counts())
        .order_by(_GRANTEES.c.username, grants.c.permission)
    )
    return list(session.execute(query))


def give(
    session: Session, model: Row[Any], username: str, permission: str, *, by: UUID, expires_at: datetime | None
) -> Row[Any]:
    """Let somebody do something with a model; given again, it is the new end that counts. Raises `Missing`, `Conflict`."""
    user_id = _active(session, username)
    if user_id == model.owner_id:
        raise Conflict("grant_to_owner", f"{model.name} is {username}'s own; no grant adds to that.")
    values = {"granted_by": by, "expires_at": expires_at, "created_at": func.now()}
    given = upsert(grants).values(model_id=model.id, user_id=user_id, permission=permission, **values)
    session.execute(given.on_conflict_do_update(index_elements=["model_id", "user_id", "permission"], set_=values))
    return next(row for row in of_model(session, model.id) if row.user_id == user_id and row.permission == permission)


def take(session: Session, model: Row[Any], username: str, permission: str) -> None:
    """It counts no longer, from now on. Raises `Missing`."""
    theirs = select(users.c.id).where(users.c.username == username).scalar_subquery()
    mine = (grants.c.model_id == model.id, grants.c.user_id == theirs, grants.c.permission == permission)
    if session.execute(delete(grants).where(*mine).returning(grants.c.user_id)).first() is None:
        raise Missing("grant_not_found", f"{username} has no grant of {permission} for {model.name}.")


def _active(session: Session, username: str) -> UUID:
    found: UUID | None = session.execute(
        select(users.c.id).where(users.c.username == username, users.c.is_active)
    ).scalar_one_or_none()
    if found is None:
        raise Missing("user_not_found", f"There is no user {username!r}.")
    return found


def _counts() -> Any:
    return or_(grants.c.expires_at.is_(None), grants.c.expires_at > func.now())
