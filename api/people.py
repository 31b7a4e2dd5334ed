"""Signing in, users and API keys over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends

from api.deps import Asking, Parts, Principal, Problem, Transaction, require
from api.errors import documented, unauthenticated
from api.schemas.people import Key, Keys, Login, Me, NewKey, NewUser, ShownKey, Token, User
from registry import people
from shared import tokens

router = APIRouter(tags=["people"])

HASHING_AT_ONCE = 4
"""argon2 takes 64 MiB and a core each time; whoever comes later waits without holding a thread."""


def checked(login: Login, parts: Parts) -> people.User:
    """The user whose password this is. As slow for a name that nobody has."""
    with parts.begin() as session:
        user = people.by_name(session, login.username)
    if not parts.passwords.matches(user.password_hash if user else None, login.password) or user is None:
        raise unauthenticated("User name or password is wrong.", code="bad_credentials")
    return user


def hashed(new: NewUser, parts: Parts) -> tuple[NewUser, str]:
    return new, parts.passwords.hash(new.password)


@router.post("/auth/login", summary="Sign in", responses=documented("bad_credentials", "invalid_field"))
def login(user: Annotated[people.User, Depends(checked, max_concurrency=HASHING_AT_ONCE)], parts: Parts) -> Token:
    """Exchange a user name and a password for a short-lived bearer token."""
    return Token(access_token=parts.tokens.issue(str(user.id)), expires_in=parts.tokens.lifetime)


@router.post(
    "/auth/register",
    summary="Add a user",
    status_code=HTTPStatus.CREATED,
    dependencies=[Depends(require("admin"))],
    responses=documented("unauthenticated", "forbidden", "username_taken", "invalid_field"),
)
def register(
    new: Annotated[tuple[NewUser, str], Depends(hashed, max_concurrency=HASHING_AT_ONCE)], session: Transaction
) -> User:
    """Only admins may. Without `permissions` the user may read, download, upload and predict."""
    wish, password_hash = new
    permissions = people.EVERYDAY if wish.permissions is None else wish.permissions
    user = people.register(
        session, username=wish.username, password_hash=password_hash, permissions=sorted(set(permissions))
    )
    return User(id=user.id, username=user.username, permissions=list(user.permissions))


@router.get("/me", summary="Who am I", responses=documented("unauthenticated"))
def me(asking: Asking) -> Me:
    """Who the server takes you for, and what this credential may."""
    return Me(id=asking.user_id, username=asking.username, permissions=sorted(asking.permissions), via=asking.via)


def manager(asking: Asking) -> Principal:
    """Somebody who may manage their own keys: not a key that may less than its owner, or it could outgrow itself."""
    if asking.narrowed:
        detail = "This API key may less than its owner, so it cannot manage the owner's keys."
        raise Problem(HTTPStatus.FORBIDDEN, "forbidden", detail)
    return asking


Manager = Annotated[Principal, Depends(manager)]


@router.post(
    "/keys",
    summary="Make an API key",
    status_code=HTTPStatus.CREATED,
    responses=documented("unauthenticated", "forbidden", "invalid_field"),
)
def create_key(wish: NewKey, asking: Manager, session: Transaction) -> ShownKey:
    """The key is in this answer and never shown again; we keep only its SHA-256."""
    scopes = sorted(set(asking.permissions if wish.scopes is None else wish.scopes))
    if beyond := [scope for scope in scopes if not asking.may(scope)]:
        raise Problem(HTTPStatus.FORBIDDEN, "forbidden", f"A key cannot have what you have not: {', '.join(beyond)}.")
    fresh = tokens.new_key()
    key = people.add_key(
        session,
        user_id=asking.user_id,
        name=wish.name,
        prefix=fresh.prefix,
        digest=fresh.digest,
        scopes=scopes,
        expires_at=datetime.now(UTC) + timedelta(days=wish.expires_in_days) if wish.expires_in_days else None,
    )
    return ShownKey(**_shown(key), key=fresh.text)


@router.get("/keys", summary="List my API keys", responses=documented("unauthenticated", "forbidden"))
def list_keys(asking: Manager, session: Transaction) -> Keys:
    """Newest first, without those that were revoked."""
    return Keys(items=[Key(**_shown(key)) for key in people.keys(session, asking.user_id)])


@router.delete(
    "/keys/{key_id}",
    summary="Revoke an API key",
    status_code=HTTPStatus.NO_CONTENT,
    responses=documented("unauthenticated", "forbidden", "key_not_found"),
)
def revoke_key(key_id: UUID, asking: Manager, session: Transaction) -> None:
    """The key is worthless from now on."""
    people.revoke_key(session, user_id=asking.user_id, key_id=key_id)


def _shown(key: people.ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    }
