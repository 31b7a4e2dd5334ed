"""What people think of models: one rating each, from 1 to 5, with a review. Nobody rates their own."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from registry.errors import Denied, Missing
from registry.tables import ratings, users, versions


def rate(
    session: Session, model: Row[Any], user_id: UUID, *, score: int, review: str, version_id: UUID | None = None
) -> Row[Any]:
    """Put somebody's rating in the place of the one they gave before; its row. Raises `Denied` for one's own model."""
    if model.owner_id == user_id:
        raise Denied("own_model", f"{model.name} is yours; others rate it.")
    said = {"score": score, "review": review, "version_id": version_id}
    return session.execute(
        upsert(ratings)
        .values(model_id=model.id, user_id=user_id, **said)
        .on_conflict_do_update(constraint="pk_ratings", set_={**said, "updated_at": func.now()})
        .returning(ratings)
    ).one()


def withdraw(session: Session, model: Row[Any], user_id: UUID) -> None:
    """Take somebody's rating away. Raises `Missing` where there is none."""
    mine = (ratings.c.model_id == model.id, ratings.c.user_id == user_id)
    if session.execute(delete(ratings).where(*mine).returning(ratings.c.model_id)).one_or_none() is None:
        raise Missing("rating_not_found", f"You have not rated {model.name}.")


def of_model(
    session: Session, model_id: UUID, *, after: tuple[datetime, UUID] | None = None, limit: int = 20
) -> list[Row[Any]]:
    """Newest first, each with its `id` (of who gave it), `username` and `version`; `after` is the (created_at, id) seen last."""
    query = (
        select(ratings, ratings.c.user_id.label("id"), users.c.username, versions.c.version)
        .join(users, users.c.id == ratings.c.user_id)
        .outerjoin(versions, versions.c.id == ratings.c.version_id)
        .where(ratings.c.model_id == model_id)
    )
    place = (ratings.c.created_at, ratings.c.user_id)
    if after is not None:
        query = query.where(tuple_(*place) < after)
    return list(session.execute(query.order_by(*(each.desc() for each in place)).limit(limit)))
