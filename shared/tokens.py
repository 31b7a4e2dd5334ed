"""Secrets that prove who somebody is: passwords, signed tokens, API keys. Knows no user and stores nothing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

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


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a prediction's receipt says: the version that answered, and, in a rollout, which one and on which side.

    `id` is the prediction's own, `label` a keyed digest of what was answered, None where there was no single label.
    """

    id: str
    version_id: UUID
    rollout_id: UUID | None
    arm: Literal["control", "candidate"] | None
    label: bytes | None


class Receipts:
    """Gives out and reads receipts of predictions: short, signed, and good for ever; only feedback is worth one.

    Bytes: flags (1: rollout, 2: candidate, 4: label), version (16), rollout (16, if any), label (8, if any), nonce (12),
    keyed BLAKE2b of all that (16; RFC 7693: every prediction pays for it, and HMAC-SHA256 takes several times as long); base64url
    without padding. The key is derived from the secret that signs tokens; receipts under `previous` ones are read as well.
    """

    def __init__(self, secret: str, *, previous: Sequence[str] = ()) -> None:
        self._keys = [
            hmac.digest(each.encode(), b"slipway prediction receipt", "sha256") for each in (secret, *previous)
        ]

    def issue(
        self,
        version_id: UUID,
        *,
        rollout_id: UUID | None = None,
        arm: Literal["control", "candidate"] | None = None,
        label: str | None = None,
    ) -> str:
        """A receipt of one prediction. `label` is what was answered, where that is one thing that feedback can name."""
        key, nonce = self._keys[0], os.urandom(_NONCE)
        flags, body = 0, version_id.bytes
        if rollout_id is not None:
            flags |= _CANDIDATE | _ROLLOUT if arm == "candidate" else _ROLLOUT
            body += rollout_id.bytes
        if label is not None:
            flags |= _LABEL
            body += _label(key, nonce, label)
        signed = bytes((flags,)) + body + nonce
        return base64.urlsafe_b64encode(signed + _mac(key, signed, _SEAL)).rstrip(b"=").decode()

    def read(self, text: str) -> Receipt:
        """What a receipt of ours says. Raises `TokenRefused`."""
        signed, _ = self._opened(text)
        flags, rest = signed[0], signed[1:]
        parts = {"version": 16, "rollout": 16 * bool(flags & _ROLLOUT), "label": _DIGEST * bool(flags & _LABEL)}
        found = {}
        for name, length in parts.items():
            found[name], rest = rest[:length], rest[length:]
        arm: Literal["control", "candidate"] = "candidate" if flags & _CANDIDATE else "control"
        return Receipt(
            id=rest.hex(),
            version_id=UUID(bytes=found["version"]),
            rollout_id=UUID(bytes=found["rollout"]) if found["rollout"] else None,
            arm=arm if found["rollout"] else None,
            label=found["label"] or None,
        )

    def agrees(self, text: str, label: str) -> bool | None:
        """Whether the label is the one that was answered; None where the receipt has none. Raises `TokenRefused`."""
        receipt = self.read(text)
        _, key = self._opened(text)
        if receipt.label is None:
            return None
        return hmac.compare_digest(receipt.label, _label(key, bytes.fromhex(receipt.id), label))

    def _opened(self, text: str) -> tuple[bytes, bytes]:
        """The signed bytes, and the key that signed them."""
        if len(text) > LONGEST:
            raise TokenRefused("The receipt is longer than any of ours.")
        try:
            whole = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise TokenRefused("The receipt is not base64url.") from error
        signed, seal = whole[:-_SEAL], whole[-_SEAL:]
        for key in self._keys:
            if hmac.compare_digest(_mac(key, signed, _SEAL), seal):
                return signed, key
        raise TokenRefused("None of our keys made this receipt.")


_ROLLOUT, _CANDIDATE, _LABEL = 1, 2, 4
_NONCE, _DIGEST, _SEAL = 12, 8, 16


def _label(key: bytes, nonce: bytes, label: str) -> bytes:
    """A digest that says nothing of the label to those without the key, and differs for every prediction."""
    return _mac(key, nonce + label.encode(), _DIGEST)


def _mac(key: bytes, content: bytes, size: int) -> bytes:
    return hashlib.blake2b(content, key=key, digest_size=size).digest()


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
