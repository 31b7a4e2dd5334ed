"""Who may do what: users, their permissions, their API keys. Knows hashes only; a secret never comes in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from registry.errors import Missing, Taken
from registry.tables import api_keys, users

PERMISSIONS = (
    "models:read",
    "models:download",
    "models:upload",
    "models:delete",
    "models:deploy",
    "models:predict",
    "models:review",
    "admin",
)
"""`admin` includes all the others."""

EVERYDAY = ("models:read", "models:download", "models:upload", "models:predict")
"""What a new user may do unless told otherwise."""


@dataclass(frozen=True, kw_only=True)
class User:
    id: UUID
    username: str
    permissions: tuple[str, ...]
    password_hash: str | None


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    id: UUID
    user_id: UUID
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


def register(session: Session, *, username: str, password_hash: str | None, permissions: Sequence[str]) -> User:
    """Raises `Taken` when the name is in use."""
    try:
        with session.begin_nested():
            row = session.execute(
                insert(users)
                .values(username=username, password_hash=password_hash, permissions=list(permissions))
                .returning(users)
            ).one()
    except IntegrityError as error:
        raise Taken("username_taken", f"There is a user {username!r} already.") from error
    return _user(row)


def by_name(session: Session, username: str) -> User | None:
    row = session.execute(select(users).where(users.c.username == username, users.c.is_active)).one_or_none()
    return None if row is None else _user(row)


def by_id(session: Session, user_id: UUID) -> User | None:
    row = session.execute(select(users).where(users.c.id == user_id, users.c.is_active)).one_or_none()
    return None if row is None else _user(row)


def by_key(session: Session, digest: str) -> tuple[User, ApiKey] | None:
    """The owner of a live key, by the key's SHA-256. Remembers, to the minute, that it was used."""
    live = (
        api_keys.c.digest == digest,
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > func.now()),
    )
    row = session.execute(select(api_keys).where(*live)).one_or_none()
    user = None if row is None else by_id(session, row.user_id)
    if row is None or user is None:
        return None
    if row.last_used_at is None or datetime.now(UTC) - row.last_used_at > timedelta(minutes=1):
        session.execute(update(api_keys).where(api_keys.c.id == row.id).values(last_used_at=func.now()))
    return user, _key(row)


def add_key(
    session: Session,
    *,
    user_id: UUID,
    name: str,
    prefix: str,
    digest: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
) -> ApiKey:
    row = session.execute(
        insert(api_keys)
        .values(user_id=user_id, name=name, prefix=prefix, digest=digest, scopes=list(scopes), expires_at=expires_at)
        .returning(api_keys)
    ).one()
    return _key(row)


def keys(session: Session, user_id: UUID) -> list[ApiKey]:
    """The user's keys that have not been revoked, newest first."""
    rows = session.execute(
        select(api_keys)
        .where(api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None))
        .order_by(api_keys.c.created_at.desc())
    )
    return [_key(row) for row in rows]


def revoke_key(session: Session, *, user_id: UUID, key_id: UUID) -> None:
    """Raises `Missing` for a key that is not there, not the user's, or revoked already."""
    done = session.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(api_keys.c.id)
    ).one_or_none()
    if done is None:
        raise Missing("key_not_found", "You have no such API key.")


def anybody(session: Session) -> bool:
    """Whether there is any user at all."""
    return session.execute(select(users.c.id).limit(1)).first() is not None


def _user(row: Row[Any]) -> User:
    return User(id=row.id, username=row.username, permissions=tuple(row.permissions), password_hash=row.password_hash)


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        user_id=row.user_id,
        name=row.name,
        prefix=row.prefix,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
    )
