"""How much a user may have: models, and bytes in storage. A plan says so, unless the user's own row does.

Bytes are those of all versions of the user's models, also of deleted ones until they are purged: what was uploaded and
what was made of it, every content once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Select, Text, cast, func, literal, select, true, union, update
from sqlalchemy.orm import Session

from registry.errors import Exhausted, Missing
from registry.tables import artifacts, models, users, versions
from shared.settings import Plan


@dataclass(frozen=True, kw_only=True)
class Amount:
    """`allowed` is None where one may have as many as one likes."""

    used: int
    allowed: int | None

    def takes(self, more: int) -> bool:
        return self.allowed is None or self.used + more <= self.allowed


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a user has and may have."""

    plan: str
    models: Amount
    bytes: Amount


def account(session: Session, user_id: UUID, plans: Mapping[str, Plan]) -> Account:
    """Raises `Missing` for nobody."""
    user = _user(session, user_id)
    allowed = _allowed(user, plans)
    return Account(
        plan=user.plan,
        models=Amount(used=_models(session, user_id), allowed=allowed.models),
        bytes=Amount(used=_bytes(session, user_id), allowed=allowed.bytes),
    )


def refuse_length(session: Session, user_id: UUID, plans: Mapping[str, Plan], length: int) -> None:
    """Raises `Exhausted` where so many more bytes cannot fit, before they are taken."""
    allowed = _allowed(_user(session, user_id), plans)
    if allowed.bytes is not None:
        _judge("bytes", Amount(used=_bytes(session, user_id), allowed=allowed.bytes), length)


def admit_model(session: Session, user_id: UUID, plans: Mapping[str, Plan]) -> None:
    """Raises `Exhausted` where the user may not have one more model. Until the transaction ends nobody else is admitted."""
    allowed = _allowed(_user(session, user_id), plans)
    if allowed.models is not None:
        _lock(session, user_id)
        _judge("models", Amount(used=_models(session, user_id), allowed=allowed.models), 1)


def admit_bytes(session: Session, user_id: UUID, plans: Mapping[str, Plan], more: int) -> None:
    """Raises `Exhausted` where so many more bytes do not fit. Until the transaction ends nobody else is admitted."""
    allowed = _allowed(_user(session, user_id), plans)
    if allowed.bytes is not None:
        _lock(session, user_id)
        _judge("bytes", Amount(used=_bytes(session, user_id), allowed=allowed.bytes), more)


def admit_version(
    session: Session, user_id: UUID, plans: Mapping[str, Plan], *, model: str, files: Iterable[tuple[str, int]]
) -> None:
    """Raises `Exhausted` where a new version of the user's model does not fit. `files`: (SHA-256, bytes) of each.

    Until the transaction ends nobody else is admitted to the same account, so two at once cannot exceed it together.
    """
    known = select(models.c.id).where(models.c.owner_id == user_id, models.c.name == model)
    if session.execute(known).first() is None:
        admit_model(session, user_id, plans)
    allowed = _allowed(_user(session, user_id), plans)
    if allowed.bytes is not None:
        _lock(session, user_id)
        fresh = dict(files)
        blobs = _blobs(user_id).subquery()
        held = session.execute(select(blobs.c.sha256).where(blobs.c.sha256.in_(fresh))).scalars()
        more = sum(fresh.values()) - sum(fresh[sha256] for sha256 in set(held))
        _judge("bytes", Amount(used=_bytes(session, user_id), allowed=allowed.bytes), more)


def set_for(session: Session, user_id: UUID, *, plan: str, max_models: int | None, max_bytes: int | None) -> None:
    """Give a user a plan, and limits of their own where not None. Raises `Missing` for nobody."""
    _user(session, user_id)
    values = {"plan": plan, "max_models": max_models, "max_bytes": max_bytes}
    session.execute(update(users).where(users.c.id == user_id).values(values))


def _judge(what: str, amount: Amount, more: int) -> None:
    if amount.takes(more):
        return
    detail = f"You have {amount.used:,} of {amount.allowed:,} {what}; {more:,} more do not fit."
    raise Exhausted(
        "quota_exceeded", detail, {"what": what, "used": amount.used, "allowed": amount.allowed, "wanted": more}
    )


def _user(session: Session, user_id: UUID) -> Any:
    row = session.execute(
        select(users.c.plan, users.c.max_models, users.c.max_bytes).where(users.c.id == user_id)
    ).one_or_none()
    if row is None:
        raise Missing("user_not_found", f"There is no user {user_id}.")
    return row


def _allowed(user: Any, plans: Mapping[str, Plan]) -> Plan:
    """A plan that the settings no longer know allows what `free` does: never more than somebody decided."""
    plan = plans.get(user.plan) or plans.get("free") or Plan()
    return Plan(
        models=plan.models if user.max_models is None else user.max_models,
        bytes=plan.bytes if user.max_bytes is None else user.max_bytes,
    )


def _lock(session: Session, user_id: UUID) -> None:
    session.execute(select(users.c.id).where(users.c.id == user_id).with_for_update(key_share=True)).one()


def _models(session: Session, user_id: UUID) -> int:
    there = (models.c.owner_id == user_id, models.c.deleted_at.is_(None))
    return session.execute(select(func.count()).select_from(models).where(*there)).scalar_one()


def _bytes(session: Session, user_id: UUID) -> int:
    blobs = _blobs(user_id).subquery()
    return int(session.execute(select(func.coalesce(func.sum(blobs.c.size), 0))).scalar_one())


def _blobs(user_id: UUID) -> Select[Any]:
    """(sha256, size) of everything stored for the user, every content once."""
    theirs = versions.join(models, models.c.id == versions.c.model_id)
    side = func.jsonb_each(versions.c.side_files).table_valued("key", "value").lateral("side")
    parts = (
        select(versions.c.sha256, versions.c.size).select_from(theirs).where(models.c.owner_id == user_id),
        select(artifacts.c.sha256, artifacts.c.size)
        .select_from(theirs.join(artifacts, artifacts.c.version_id == versions.c.id))
        .where(models.c.owner_id == user_id),
        select(
            cast(side.c.value.op("->>")(literal("sha256")), Text),
            cast(side.c.value.op("->>")(literal("size")), BigInteger),
        )
        .select_from(theirs.join(side, true()))
        .where(models.c.owner_id == user_id),
    )
    every = union(*parts).subquery()
    return select(every.c.sha256, every.c.size)
