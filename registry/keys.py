"""API keys as rows: whose they are, what they may, how often and how long. Knows their SHA-256; a key never comes in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, bindparam, func, insert, or_, select, update
from sqlalchemy.orm import Session

from registry import people
from registry.errors import Exhausted, Missing
from registry.tables import api_keys, users

_REMEMBERED = timedelta(minutes=1)
"""How exactly `last_used_at` is kept."""


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """`calls_remaining` is None where there is no budget."""

    id: UUID
    user_id: UUID
    name: str
    prefix: str
    scopes: tuple[str, ...]
    calls_remaining: int | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


def by_digest(session: Session, digest: str) -> tuple[people.User, ApiKey] | None:
    """The owner of a live key, by the key's SHA-256. Remembers, to the minute, that it was used; spends nothing."""
    row = session.execute(_LIVE, {"digest": digest}).one_or_none()
    if row is None:
        return None
    key = _key(row, _MARK)
    if key.last_used_at is None or datetime.now(UTC) - key.last_used_at > _REMEMBERED:
        session.execute(update(api_keys).where(api_keys.c.id == key.id).values(last_used_at=func.now()))
    return people.read(row), key


def spend(session: Session, key: ApiKey) -> int | None:
    """Take one call off a key's budget: how many are left, or None where there is no budget.

    Raises `Exhausted` where none was left. However many ask at once, none is spent twice.
    """
    if key.calls_remaining is None:
        return None
    left = session.execute(
        update(api_keys)
        .where(api_keys.c.id == key.id, api_keys.c.calls_remaining > 0)
        .values(calls_remaining=api_keys.c.calls_remaining - 1)
        .returning(api_keys.c.calls_remaining)
    ).scalar_one_or_none()
    if left is None:
        raise Exhausted("budget_exhausted", f"The key {key.name} has used all the calls that it was made for.")
    return int(left)


def add(
    session: Session,
    *,
    user_id: UUID,
    name: str,
    prefix: str,
    digest: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
    calls: int | None = None,
) -> ApiKey:
    values = {
        "user_id": user_id,
        "name": name,
        "prefix": prefix,
        "digest": digest,
        "scopes": list(scopes),
        "expires_at": expires_at,
        "calls_remaining": calls,
    }
    return _key(session.execute(insert(api_keys).values(**values).returning(api_keys)).one())


def of_user(session: Session, user_id: UUID) -> list[ApiKey]:
    """The user's keys that have not been revoked, newest first."""
    rows = session.execute(select(api_keys).where(*_of(user_id)).order_by(api_keys.c.created_at.desc()))
    return [_key(row) for row in rows]


def change(session: Session, *, user_id: UUID, key_id: UUID, changes: Mapping[str, Any]) -> ApiKey:
    """Set some of `name`, `scopes`, `expires_at`, `calls_remaining`. Raises `Missing` as `revoke` does."""
    query = update(api_keys).where(api_keys.c.id == key_id, *_of(user_id)).values(**changes).returning(api_keys)
    row = session.execute(query).one_or_none()
    if row is None:
        raise Missing("key_not_found", "You have no such API key.")
    return _key(row)


def revoke(session: Session, *, user_id: UUID, key_id: UUID) -> ApiKey:
    """Raises `Missing` for a key that is not there, not the user's, or revoked already."""
    return change(session, user_id=user_id, key_id=key_id, changes={"revoked_at": func.now()})


_MARK = "key_"
_LIVE = (
    people.WITH_RIGHTS.add_columns(*(column.label(_MARK + column.name) for column in api_keys.c))
    .join(api_keys, api_keys.c.user_id == users.c.id)
    .where(
        api_keys.c.digest == bindparam("digest"),
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > func.now()),
        users.c.is_active,
    )
)
"""Made once, as every request asks it: to put it together takes longer than to run it."""


def _of(user_id: UUID) -> tuple[Any, ...]:
    return (api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None))


def _key(row: Row[Any], mark: str = "") -> ApiKey:
    values = {field.name: getattr(row, mark + field.name) for field in fields(ApiKey)}
    return ApiKey(**values | {"scopes": tuple(values["scopes"])})
