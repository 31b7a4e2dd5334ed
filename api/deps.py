"""What handlers are given: the process's parts, a transaction, and who is asking. Decides 401 and 403."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from api.errors import Problem, unauthenticated
from pipeline.formats import Format
from pipeline.stage import Stage
from registry import people
from registry.audit import Actor
from registry.store import Viewer
from shared import tokens
from shared.db import Begin
from shared.ratelimit import RateLimiter
from shared.settings import Settings
from shared.signing import Signer
from shared.storage import Bucket
from shared.tokens import Passwords, Tokens

if TYPE_CHECKING:
    import redis

    from api.news import Hub

__all__ = ["Asking", "Principal", "Problem", "Services", "Transaction", "granted", "require", "services"]


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts of one API process, made once by `api.app.main`."""

    settings: Settings
    begin: Begin
    staging: Bucket
    registry: Bucket
    quarantine: Bucket
    redis: redis.Redis
    limiter: RateLimiter
    tokens: Tokens
    signer: Signer
    passwords: Passwords
    formats: tuple[Format, ...]
    stages: tuple[Stage, ...]
    hub: Hub
    close: Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who is asking, and what they may do here: a key's scopes narrow what its owner may.

    `narrowed`: this credential may less than its owner, so it must not manage the owner's credentials.
    """

    user_id: UUID
    username: str
    permissions: frozenset[str]
    via: Literal["jwt", "key"]
    narrowed: bool = False

    @property
    def actor(self) -> Actor:
        """Who it is in the audit trail."""
        return Actor(id=self.user_id, name=self.username)

    @property
    def viewer(self) -> Viewer:
        return Viewer(user_id=self.user_id, admin=self.may("admin"))

    def may(self, permission: str) -> bool:
        return "admin" in self.permissions or permission in self.permissions


def services(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


Parts = Annotated[Services, Depends(services)]


def transaction(parts: Parts) -> Iterator[Session]:
    with parts.begin() as session:
        yield session


Transaction = Annotated[Session, Depends(transaction, scope="function")]
"""One transaction for the handler, committed before the answer leaves: FastAPI's default scope commits after it."""

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    description="A token of `POST /api/v1/auth/login`, or an API key (`slw_…`).",
)


def principal(parts: Parts, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Principal:
    """Who sent the request. In a transaction of its own, so that none is open while an upload streams."""
    if credentials is None:
        raise unauthenticated()
    with parts.begin() as session:
        if tokens.is_key(credentials.credentials):
            return _by_key(session, credentials.credentials)
        return _by_token(session, parts.tokens, credentials.credentials)


Asking = Annotated[Principal, Depends(principal)]
"""Anybody who has signed in."""


def require(permission: str) -> Callable[[Principal], Principal]:
    """A dependency that gives the `Principal`, who has the permission."""

    def permitted(asking: Asking) -> Principal:
        if not asking.may(permission):
            detail = f"This needs the right {permission}, which you do not have."
            raise Problem(HTTPStatus.FORBIDDEN, "forbidden", detail)
        return asking

    return permitted


def granted(permissions: frozenset[str], scopes: frozenset[str]) -> frozenset[str]:
    """What a key with these scopes may, held by somebody with these permissions."""
    if "admin" in permissions:
        return scopes
    return permissions if "admin" in scopes else permissions & scopes


def _by_key(session: Session, text: str) -> Principal:
    found = people.by_key(session, tokens.digest(text))
    if found is None:
        raise unauthenticated("The API key is unknown, revoked or expired.")
    user, key = found
    held = frozenset(user.permissions)
    allowed = granted(held, frozenset(key.scopes))
    narrowed = not ("admin" in allowed or held <= allowed)
    return Principal(user_id=user.id, username=user.username, permissions=allowed, via="key", narrowed=narrowed)


def _by_token(session: Session, signer: Tokens, text: str) -> Principal:
    try:
        user_id = UUID(signer.subject(text))
    except (tokens.TokenRefused, ValueError) as error:
        raise unauthenticated("The token is not valid or has expired.") from error
    user = people.by_id(session, user_id)
    if user is None:
        raise unauthenticated("The token's user is gone.")
    return Principal(user_id=user.id, username=user.username, permissions=frozenset(user.permissions), via="jwt")
