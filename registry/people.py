"""Who there is and what they may: users, their roles, and which of their bearer tokens count. Knows hashes only."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Row,
    Table,
    Text,
    any_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from registry.errors import Conflict, Invalid, Missing, Taken
from registry.tables import revoked_tokens, roles, users

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

MYSELF = "me"
"""What everybody is called in addresses; nobody's name."""

_ADMINS = 0x51_1B_AD_31
"""Advisory lock of everything that could leave nobody who is an admin."""

WITH_RIGHTS = select(
    users,
    func.array(
        select(func.unnest(roles.c.permissions)).where(roles.c.name == any_(users.c.roles)).scalar_subquery(),
        type_=ARRAY(Text),
    ).label("through_roles"),
)
"""Users with what their roles let them do; `read` makes a `User` of a row."""

_SPOKEN_FOR = WITH_RIGHTS.where(
    users.c.id == bindparam("user_id"),
    users.c.is_active,
    or_(users.c.tokens_valid_after.is_(None), users.c.tokens_valid_after < bindparam("issued_at")),
    ~select(revoked_tokens.c.jti).where(revoked_tokens.c.jti == bindparam("token_id")).exists(),
)
"""Whom a token speaks for, made once, as every request asks it."""


@dataclass(frozen=True, kw_only=True)
class User:
    """`permissions` is all that they may: `direct` ones and those of their `roles`."""

    id: UUID
    username: str
    email: str | None
    permissions: tuple[str, ...]
    direct: tuple[str, ...]
    roles: tuple[str, ...]
    plan: str
    is_active: bool
    created_at: datetime
    password_hash: str | None


def register(
    session: Session,
    *,
    username: str,
    password_hash: str | None,
    permissions: Sequence[str],
    roles: Sequence[str] = (),
    email: str | None = None,
    plan: str = "free",
) -> User:
    """Raises `Taken` when the name or the address is in use, `Invalid` for a role that there is not."""
    if username == MYSELF or _as_id(username) is not None:
        raise Taken("username_taken", f"Nobody can be called {username!r}: in an address it would be somebody else.")
    _refuse_unknown_roles(session, roles)
    values = {
        "username": username,
        "password_hash": password_hash,
        "permissions": list(permissions),
        "roles": sorted(set(roles)),
        "email": email,
        "plan": plan,
    }
    with _unique(session, username, email):
        made = session.execute(insert(users).values(**values).returning(users.c.id)).scalar_one()
    return _one(session, users.c.id == made)


def by_name(session: Session, username: str) -> User | None:
    row = session.execute(WITH_RIGHTS.where(users.c.username == username, users.c.is_active)).one_or_none()
    return None if row is None else read(row)


def by_token(session: Session, user_id: UUID, *, token_id: str, issued_at: datetime) -> User | None:
    """The user for whom a token speaks that is neither revoked nor from before all of theirs were."""
    token = {"user_id": user_id, "token_id": token_id, "issued_at": issued_at}
    row = session.execute(_SPOKEN_FOR, token).one_or_none()
    return None if row is None else read(row)


def find(session: Session, reference: str, *, lock: bool = False) -> User:
    """Somebody by id or name, switched off or not; who was deleted is nobody. Raises `Missing`."""
    user_id = _as_id(reference)
    meant = users.c.username == reference if user_id is None else users.c.id == user_id
    query = WITH_RIGHTS.where(meant, users.c.deleted_at.is_(None))
    row = session.execute(query.with_for_update(of=users) if lock else query).one_or_none()
    if row is None:
        raise Missing("user_not_found", f"There is no user {reference!r}.")
    return read(row)


def find_many(
    session: Session, *, active: bool | None = None, after: tuple[datetime, UUID] | None = None, limit: int = 20
) -> list[User]:
    """Newest first; `after` is the (created_at, id) of the last one seen."""
    query = WITH_RIGHTS.where(users.c.deleted_at.is_(None))
    if active is not None:
        query = query.where(users.c.is_active == active)
    if after is not None:
        query = query.where(tuple_(users.c.created_at, users.c.id) < after)
    rows = session.execute(query.order_by(users.c.created_at.desc(), users.c.id.desc()).limit(limit))
    return [read(row) for row in rows]


def change(session: Session, user: User, changes: Mapping[str, Any]) -> User:
    """Set some of `email`, `plan`, `is_active`. Raises `Taken`, and `Conflict` where nobody would be an admin."""
    if changes:
        with _unique(session, user.username, changes.get("email")):
            session.execute(update(users).where(users.c.id == user.id).values(**changes))
    if changes.get("is_active") is False:
        keep_an_admin(session)
    return _one(session, users.c.id == user.id)


def set_rights(
    session: Session, user: User, *, permissions: Collection[str] | None, roles: Collection[str] | None
) -> User:
    """Let somebody have these permissions and roles from now on; None leaves what they have.

    Raises `Invalid` for a role that there is not, `Conflict` where nobody would be an admin.
    """
    changes = {}
    if permissions is not None:
        changes["permissions"] = sorted(set(permissions))
    if roles is not None:
        _refuse_unknown_roles(session, roles)
        changes["roles"] = sorted(set(roles))
    if changes:
        session.execute(update(users).where(users.c.id == user.id).values(**changes))
        keep_an_admin(session)
    return _one(session, users.c.id == user.id)


def set_password(session: Session, user_id: UUID, password_hash: str) -> None:
    """From now on; whoever is signed in with the one before is not any more."""
    session.execute(update(users).where(users.c.id == user_id).values(password_hash=password_hash))
    end_sessions(session, user_id)


def end_sessions(session: Session, user_id: UUID) -> None:
    """No bearer token of theirs that was made before now counts. By the clock of those who make tokens."""
    session.execute(update(users).where(users.c.id == user_id).values(tokens_valid_after=datetime.now(UTC)))


def revoke_token(session: Session, token_id: str, expires_at: datetime) -> None:
    session.execute(upsert(revoked_tokens).values(jti=token_id, expires_at=expires_at).on_conflict_do_nothing())


def forget_tokens(session: Session) -> None:
    """Drop revocations of tokens that are over anyway."""
    session.execute(delete(revoked_tokens).where(revoked_tokens.c.expires_at < func.now()))


def keep_an_admin(session: Session) -> None:
    """Raises `Conflict` where, as things are now in this transaction, nobody could undo what it did.

    Whoever takes rights away asks this last; they wait for each other, or two could take away each other's.
    """
    session.execute(select(func.pg_advisory_xact_lock(_ADMINS)))
    through = select(roles.c.name).where(roles.c.name == any_(users.c.roles), _holds_admin(roles)).exists()
    query = select(users.c.id).where(users.c.is_active, or_(_holds_admin(users), through)).limit(1)
    if session.execute(query).first() is None:
        raise Conflict("last_admin", "Nobody would be an admin any more; make somebody else one first.")


def anybody(session: Session) -> bool:
    """Whether there is any user at all."""
    return session.execute(select(users.c.id).limit(1)).first() is not None


def read(row: Row[Any]) -> User:
    """A row of `WITH_RIGHTS`."""
    return User(
        id=row.id,
        username=row.username,
        email=row.email,
        permissions=tuple(sorted({*row.permissions, *row.through_roles})),
        direct=tuple(row.permissions),
        roles=tuple(row.roles),
        plan=row.plan,
        is_active=row.is_active,
        created_at=row.created_at,
        password_hash=row.password_hash,
    )


def _as_id(reference: str) -> UUID | None:
    try:
        return UUID(reference)
    except ValueError:
        return None


def _one(session: Session, condition: ColumnElement[bool]) -> User:
    return read(session.execute(WITH_RIGHTS.where(condition)).one())


@contextmanager
def _unique(session: Session, username: str, email: str | None) -> Iterator[None]:
    try:
        with session.begin_nested():
            yield
    except IntegrityError as error:
        if "email" in _constraint(error):
            raise Taken("email_taken", f"{email} is somebody else's address.") from error
        raise Taken("username_taken", f"There is a user {username!r} already.") from error


def _refuse_unknown_roles(session: Session, names: Collection[str]) -> None:
    """And let none of them be deleted before the transaction ends."""
    known = session.execute(select(roles.c.name).where(roles.c.name.in_(names)).with_for_update(read=True)).scalars()
    if unknown := set(names) - set(known):
        raise Invalid("unknown_role", f"There is no role {', '.join(sorted(unknown))}.")


def _holds_admin(table: Table) -> ColumnElement[bool]:
    return any_(table.c.permissions) == "admin"


def _constraint(error: IntegrityError) -> str:
    """The name of the constraint that a statement ran into."""
    return error.orig.diag.constraint_name or "" if isinstance(error.orig, psycopg.Error) else ""
