"""Models come to be here, each under a name that nobody takes for another one's; what was found is kept as rows.

A name is judged against the models that its maker may know of: their own, the public ones, and those they have a grant
for. What others keep private is neither compared nor told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, insert, or_, select
from sqlalchemy.orm import Session

from registry.errors import Conflict, Taken
from registry.names import Judgement, Known, Similar, fold, judge
from registry.tables import grants, models, name_checks, users

_LOCK = 0x51_1B
"""First half of the advisory locks on folded names: of two that look the same, one is made and the other sees it."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One look at a name. `confirmed`: whoever asked wants it although it may be a mistake."""

    asked_by: UUID
    name: str
    judgement: Judgement
    confirmed: bool = False


class NameRefused(Conflict):
    """The name cannot be had. `check` is to be remembered by whoever undoes the transaction that asked."""

    def __init__(self, code: str, message: str, check: Check) -> None:
        super().__init__(code, message, [_told(each) for each in check.judgement.similar])
        self.check = check


def create(
    session: Session, *, owner_id: UUID, name: str, values: Mapping[str, Any], confirmed: bool = False
) -> Row[Any]:
    """A new model's row. Raises `NameRefused`, `Taken`, and `Conflict` where the owner has deleted one of that name.

    The name is locked until the transaction ends, so of two that look the same at once only one is made.
    """
    folded = fold(name)
    _lock(session, folded)
    own = (models.c.owner_id == owner_id, models.c.name == name)
    there = session.execute(select(models.c.deleted_at).where(*own)).one_or_none()
    if there is not None and there.deleted_at is None:
        raise Taken("model_exists", f"You have a model {name!r} already.")
    if there is not None:
        raise Conflict("name_in_use_by_deleted", f"You have deleted a model {name!r}, and it still has that name.")
    check = Check(asked_by=owner_id, name=name, judgement=look(session, owner_id, name), confirmed=confirmed)
    _refuse(check)
    remember(session, check)
    return session.execute(
        insert(models).values({"owner_id": owner_id, "name": name, "folded": folded, **values}).returning(models)
    ).one()


def refuse_look_alike(session: Session, row: Row[Any]) -> None:
    """Raises `NameRefused` where a model that is to become public would be taken for another one that is."""
    _lock(session, fold(row.name))
    check = Check(asked_by=row.owner_id, name=row.name, judgement=look(session, row.owner_id, row.name), confirmed=True)
    _refuse(check)
    remember(session, check)


def look(session: Session, owner_id: UUID, name: str) -> Judgement:
    """What to think of a name for a model of theirs."""
    folded = fold(name)
    granted = select(grants.c.model_id).where(
        grants.c.user_id == owner_id, or_(grants.c.expires_at.is_(None), grants.c.expires_at > func.now())
    )
    length = func.char_length(models.c.folded)
    rows = session.execute(
        select(models.c.name, models.c.folded, models.c.owner_id, users.c.username)
        .join(users, users.c.id == models.c.owner_id)
        .where(
            models.c.deleted_at.is_(None),
            or_(models.c.owner_id == owner_id, models.c.visibility == "public", models.c.id.in_(granted)),
            or_(models.c.folded == folded, length.between(len(folded) - 2, len(folded) + 2)),
        )
    )
    return judge(
        name,
        (Known(name=row.name, folded=row.folded, owner=row.username, mine=row.owner_id == owner_id) for row in rows),
    )


def remember(session: Session, check: Check) -> None:
    """Keep what was found, also where the name was refused."""
    session.execute(
        insert(name_checks).values(
            asked_by=check.asked_by,
            name=check.name,
            folded=fold(check.name),
            outcome=check.judgement.outcome,
            confirmed=check.confirmed,
            similar=[_told(each) for each in check.judgement.similar],
        )
    )


def checks(
    session: Session, *, outcome: str | None = None, before: int | None = None, limit: int = 20
) -> list[Row[Any]]:
    """Newest first, with who asked as `username`; `before` is the id of the last one seen."""
    query = select(name_checks, users.c.username).outerjoin(users, users.c.id == name_checks.c.asked_by)
    if outcome is not None:
        query = query.where(name_checks.c.outcome == outcome)
    if before is not None:
        query = query.where(name_checks.c.id < before)
    return list(session.execute(query.order_by(name_checks.c.id.desc()).limit(limit)))


def _refuse(check: Check) -> None:
    nearest = next((f"{each.owner}/{each.name}" for each in check.judgement.similar), "")
    if check.judgement.outcome == "block":
        raise NameRefused("name_confusable", f"{check.name!r} looks the same as {nearest}; choose another name.", check)
    if check.judgement.outcome == "warn" and not check.confirmed:
        raise NameRefused(
            "name_unconfirmed",
            f"{check.name!r} may be a mistake for {nearest}; confirm_name=true makes it all the same.",
            check,
        )


def _lock(session: Session, folded: str) -> None:
    session.execute(select(func.pg_advisory_xact_lock(_LOCK, func.hashtext(folded))))


def _told(similar: Similar) -> dict[str, str]:
    return {"name": similar.name, "owner": similar.owner, "relation": similar.relation}
