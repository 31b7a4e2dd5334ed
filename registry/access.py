"""Whom a credential speaks for, and what it may: a key's scopes narrow what its owner may. The same at every edge."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from registry import keys, people
from registry.people import User
from shared import tokens
from shared.tokens import Claims, Tokens


class Unrecognised(Exception):
    """It speaks for nobody; the text is for the person who sent it."""


@dataclass(frozen=True, kw_only=True)
class Credential:
    """`calls_remaining` is None where there is no budget, `token` what a bearer token says, None for a key."""

    user: User
    permissions: frozenset[str]
    calls_remaining: int | None = None
    token: Claims | None = None

    @property
    def narrowed(self) -> bool:
        """Whether it may less than its owner."""
        return not ("admin" in self.permissions or frozenset(self.user.permissions) <= self.permissions)


def identify(session: Session, signer: Tokens, text: str) -> Credential:
    """Of an API key one call is spent, if it has a budget. Raises `Unrecognised`, `Exhausted`."""
    return _by_key(session, text) if tokens.is_key(text) else _by_token(session, signer, text)


def granted(permissions: frozenset[str], scopes: frozenset[str]) -> frozenset[str]:
    """What a key with these scopes may, held by somebody with these permissions."""
    if "admin" in permissions:
        return scopes
    return permissions if "admin" in scopes else permissions & scopes


def _by_key(session: Session, text: str) -> Credential:
    found = keys.by_digest(session, tokens.digest(text))
    if found is None:
        raise Unrecognised("The API key is unknown, revoked or expired.")
    user, key = found
    left = keys.spend(session, key)
    allowed = granted(frozenset(user.permissions), frozenset(key.scopes))
    return Credential(user=user, permissions=allowed, calls_remaining=left)


def _by_token(session: Session, signer: Tokens, text: str) -> Credential:
    try:
        claims = signer.read(text)
        user_id = UUID(claims.subject)
    except (tokens.TokenRefused, ValueError) as error:
        raise Unrecognised("The token is not valid or has expired.") from error
    user = people.by_token(session, user_id, token_id=claims.id, issued_at=claims.issued_at)
    if user is None:
        raise Unrecognised("The token has been revoked, or its user is gone.")
    return Credential(user=user, permissions=frozenset(user.permissions), token=claims)
