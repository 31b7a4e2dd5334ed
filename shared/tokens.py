"""Secrets that prove who somebody is: passwords, signed tokens, API keys. Knows no user and stores nothing."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

ALGORITHM = "HS256"
ISSUER = AUDIENCE = "slipway"
LONGEST = 1024
"""Characters of a token or key that are looked at; ours have less than 400."""
MIN_SECRET = 32
"""Bytes: RFC 7518 §3.2 wants an HMAC key as long as the hash."""
KEY_MARK = "slw_"
_SHOWN = len(KEY_MARK) + 6


class TokenRefused(Exception):
    """The token is not one of ours, was tampered with, or is over."""


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a bearer token says: whom it speaks for, its own id (`jti`), and from when to when it counts."""

    subject: str
    id: str
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A fresh API key: `text` is for its owner and shown once, `digest` is for the database, `prefix` for lists."""

    text: str
    digest: str
    prefix: str


class Tokens:
    """Signs and reads short-lived bearer tokens. Raises `ValueError` for a secret that can be guessed.

    `previous` are secrets from before: what they signed is read until it is over, and they sign nothing new. A token's
    header names its secret (`kid`, RFC 7515 §4.1.4), so that only that one is tried.
    """

    def __init__(self, secret: str, *, lifetime: int, previous: Sequence[str] = ()) -> None:
        if any(len(each.encode()) < MIN_SECRET for each in (secret, *previous)):
            raise ValueError(
                f"JWT_SECRET must have at least {MIN_SECRET} bytes, e.g. the output of `openssl rand -hex 32`; "
                "so must each of JWT_PREVIOUS_SECRETS"
            )
        self._secret = secret
        self._secrets = {_kid(each): each for each in (*previous, secret)}
        self.lifetime = lifetime

    def issue(self, subject: str) -> str:
        """A token for `subject`, good for `lifetime` seconds."""
        import jwt

        now = time.time()  # with its fraction: a token made in the second in which all others were ended still counts
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": int(now) + self.lifetime,
        }
        return jwt.encode(claims, self._secret, algorithm=ALGORITHM, headers={"kid": _kid(self._secret)})

    def read(self, token: str) -> Claims:
        """What a token of ours says. Raises `TokenRefused`."""
        import jwt

        if len(token) > LONGEST:
            raise TokenRefused("The token is longer than any of ours.")
        # PyJWT takes a token without `exp` as good for ever unless told that the claim is required.
        options: Any = {"require": ["exp", "iat", "sub", "jti", "iss", "aud"], "strict_aud": True}
        try:
            secret = self._secrets.get(str(jwt.get_unverified_header(token).get("kid")))
            if secret is None:
                raise TokenRefused("The token names none of our secrets.")
            claims = jwt.decode(
                token, secret, algorithms=[ALGORITHM], issuer=ISSUER, audience=AUDIENCE, options=options
            )
            issued_at, expires_at = (datetime.fromtimestamp(float(claims[name]), UTC) for name in ("iat", "exp"))
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError) as error:
            raise TokenRefused(str(error)) from error
        return Claims(subject=str(claims["sub"]), id=str(claims["jti"]), issued_at=issued_at, expires_at=expires_at)


class Passwords:
    """Hashes and checks passwords with argon2id; a check takes as long for a user who does not exist."""

    def __init__(self) -> None:
        import argon2

        self._hasher = argon2.PasswordHasher()
        self._nobody = self._hasher.hash(secrets.token_urlsafe(16))

    def hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def matches(self, hashed: str | None, password: str) -> bool:
        """Whether the password is the one that was hashed; never for None."""
        import argon2

        try:
            self._hasher.verify(hashed or self._nobody, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
        return hashed is not None


def _kid(secret: str) -> str:
    """A secret's name, which tells nothing of it."""
    return hmac.new(secret.encode(), b"slipway kid", hashlib.sha256).hexdigest()[:16]


def new_key() -> NewKey:
    text = KEY_MARK + secrets.token_urlsafe(32)
    return NewKey(text=text, digest=digest(text), prefix=text[:_SHOWN])


def digest(key: str) -> str:
    """What the database knows of a key. It has 256 random bits, so a fast hash without salt is enough."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_key(text: str) -> bool:
    return text.startswith(KEY_MARK) and len(text) <= LONGEST
