"""What handlers are given: the process's parts, a transaction, and who is asking. Decides 401 and 403."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from api.errors import Problem, unauthenticated
from pipeline.formats import Format
from pipeline.promotability import Trust
from pipeline.stage import Stage
from registry import access
from registry.audit import Actor
from registry.errors import Exhausted
from registry.lookup import Viewer
from shared.db import Begin
from shared.github import GitHub
from shared.ratelimit import RateLimiter
from shared.settings import Settings
from shared.signing import Signer
from shared.storage import Bucket
from shared.tickets import Tickets
from shared.tokens import Claims, Passwords, Receipts, Tokens

if TYPE_CHECKING:
    import redis

    from api.news import Hub

__all__ = [
    "Asking",
    "Manager",
    "Principal",
    "Problem",
    "Services",
    "Transaction",
    "Visiting",
    "require",
    "services",
]


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts of one API process, made once by `api.app.main`."""

    settings: Settings
    begin: Begin
    reading: Begin
    staging: Bucket
    registry: Bucket
    quarantine: Bucket
    exports: Bucket
    redis: redis.Redis
    limiter: RateLimiter
    tokens: Tokens
    receipts: Receipts
    tickets: Tickets
    signer: Signer
    github: GitHub | None
    passwords: Passwords
    formats: tuple[Format, ...]
    stages: tuple[Stage, ...]
    hub: Hub
    close: Callable[[], None]

    @property
    def trust(self) -> Trust:
        """What signatures are verified with: this instance's own key and those that its operator trusts."""
        return Trust(shelf=self.registry, keys=(self.signer.public_key, *self.settings.trusted_keys))


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who is asking, and what they may do here: a key's scopes narrow what its owner may.

    `narrowed`: this credential may less than its owner, so it must not manage the owner's credentials. `token`: what the
    bearer token says, where it is one.
    """

    user_id: UUID
    username: str
    permissions: frozenset[str]
    via: Literal["jwt", "key"]
    narrowed: bool = False
    token: Claims | None = None

    @property
    def actor(self) -> Actor:
        """Who it is in the audit trail."""
        return Actor(id=self.user_id, name=self.username)

    @property
    def viewer(self) -> Viewer:
        return Viewer(user_id=self.user_id, admin=self.may("admin"))

    def may(self, permission: str) -> bool:
        return "admin" in self.permissions or permission in self.permissions

    def refuse_without(self, permission: str) -> None:
        """Raises `Problem` (403) where the permission is missing."""
        if not self.may(permission):
            detail = f"This needs the right {permission}, which you do not have."
            raise Problem(HTTPStatus.FORBIDDEN, "forbidden", detail)


async def services(request: Request) -> Services:  # not `def`: that would wait for a thread only to look here
    found: Services = request.app.state.services
    return found


Parts = Annotated[Services, Depends(services)]


def transaction(request: Request, parts: Parts) -> Iterator[Session]:
    with parts.begin() as session:
        state = request.state
        if hasattr(state, "once") and hasattr(state, "user_id"):
            state.once.recall(session, state.user_id)
        yield session


Transaction = Annotated[Session, Depends(transaction, scope="function")]
"""One transaction for the handler, committed before the answer leaves: FastAPI's default scope commits after it."""

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    description="A token of `POST /api/v1/auth/login`, or an API key (`slw_…`).",
)


Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def principal(request: Request, parts: Parts, credentials: Credentials) -> Principal:
    """Who sent the request. By statements of their own, so that no transaction is open while an upload streams.

    A key's budget is spent here, whatever becomes of the request.
    """
    if credentials is None:
        raise unauthenticated()
    with parts.reading() as session:
        found = _identified(session, request, parts, credentials.credentials)
    request.state.user_id = found.user_id
    return found


Asking = Annotated[Principal, Depends(principal)]
"""Anybody who has signed in."""


def manager(asking: Asking) -> Principal:
    """Somebody who may manage what is theirs: not a key that may less than its owner, or it could outgrow itself."""
    if asking.narrowed:
        detail = "This API key may less than its owner, so it cannot manage what is the owner's."
        raise Problem(HTTPStatus.FORBIDDEN, "forbidden", detail)
    return asking


Manager = Annotated[Principal, Depends(manager)]


def require(permission: str) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency that gives the `Principal`, who has the permission."""

    async def permitted(asking: Asking) -> Principal:  # not `def`: it waits for nothing
        asking.refuse_without(permission)
        return asking

    return permitted


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A request that only reads. Who sends it is found out in the session that answers it.

    For what is read most: that saves a wait for a thread and one for a connection, a fifth of the time of such a request.
    """

    request: Request
    parts: Services
    token: str

    @contextmanager
    def begin(self, permission: str) -> Iterator[tuple[Session, Principal]]:
        """A session and who asks, who has the permission. Raises `Problem` (401, 403, 429)."""
        with self.parts.reading() as session:
            asking = _identified(session, self.request, self.parts, self.token)
            asking.refuse_without(permission)
            yield session, asking


async def visit(request: Request, credentials: Credentials) -> Visit:
    if credentials is None:
        raise unauthenticated()
    return Visit(request=request, parts=request.app.state.services, token=credentials.credentials)


Visiting = Annotated[Visit, Depends(visit)]


def _identified(session: Session, request: Request, parts: Services, text: str) -> Principal:
    try:
        found = access.identify(session, parts.tokens, text)
    except access.Unrecognised as error:
        raise unauthenticated(str(error)) from error
    except Exhausted as error:
        request.state.calls_remaining = 0
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, error.code, error.message) from error
    if found.token is None:
        request.state.calls_remaining = found.calls_remaining
    return Principal(
        user_id=found.user.id,
        username=found.user.username,
        permissions=found.permissions,
        via="key" if found.token is None else "jwt",
        narrowed=found.narrowed,
        token=found.token,
    )
