"""How somebody leaves: what becomes of their models, and what stays of the account. Nothing is lost that others rely on."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from registry import people
from registry.errors import Conflict
from registry.tables import api_keys, deployments, grants, models, users


def models_of(session: Session, user_id: UUID) -> list[Any]:
    """What somebody owns that has not been deleted, locked: (id, name), by name."""
    query = select(models.c.id, models.c.name).where(models.c.owner_id == user_id, models.c.deleted_at.is_(None))
    return list(session.execute(query.order_by(models.c.name).with_for_update()))


def delete_models(session: Session, user: people.User) -> int:
    """Delete all that somebody owns, to be restored like any other. Raises `Conflict` where something is deployed."""
    owned = [row.id for row in models_of(session, user.id)]
    live = session.execute(
        select(models.c.name, deployments.c.target)
        .join(deployments, deployments.c.model_id == models.c.id)
        .where(models.c.id.in_(owned), deployments.c.status == "live")
        .order_by(models.c.name, deployments.c.target)
    ).all()
    if live:
        details = [{"model": row.name, "target": row.target} for row in live]
        raise Conflict("model_deployed", f"{user.username} owns models that are deployed.", details)
    session.execute(update(models).where(models.c.id.in_(owned)).values(deleted_at=func.now()))
    return len(owned)


def hand_over(session: Session, user: people.User, heir: people.User) -> list[UUID]:
    """Make all that somebody owns another's: the ids. Raises `Conflict` where the other has a model of the same name."""
    owned = models_of(session, user.id)
    theirs = select(models.c.name).where(models.c.owner_id == heir.id, models.c.name.in_([row.name for row in owned]))
    if taken := sorted(session.execute(theirs).scalars()):
        detail = f"{heir.username} has models of the same name: {', '.join(taken)}."
        raise Conflict("model_names_taken", detail, taken)
    ids = [row.id for row in owned]
    session.execute(
        update(models)
        .where(models.c.id.in_(ids))
        .values(owner_id=heir.id, updated_at=func.now(), revision=models.c.revision + 1)
    )
    session.execute(delete(grants).where(grants.c.model_id.in_(ids), grants.c.user_id == heir.id))
    return ids


def close_account(session: Session, user: people.User) -> None:
    """From now on they are nobody: no token, no key and no grant of theirs counts, and nobody can take their name.

    Raises `Conflict` while they own models, and where nobody would be an admin.
    """
    if owned := models_of(session, user.id):
        names = [row.name for row in owned]
        detail = f"{user.username} owns {len(names)} models; say what becomes of them: models=delete or models=to:NAME."
        raise Conflict("owns_models", detail, names)
    session.execute(
        update(users)
        .where(users.c.id == user.id)
        .values(is_active=False, deleted_at=func.now(), email=None, password_hash=None, permissions=[], roles=[])
    )
    people.end_sessions(session, user.id)
    mine = (api_keys.c.user_id == user.id, api_keys.c.revoked_at.is_(None))
    session.execute(update(api_keys).where(*mine).values(revoked_at=func.now()))
    session.execute(delete(grants).where(grants.c.user_id == user.id))
    people.keep_an_admin(session)
