"""Answers that were given to requests with a key of the client's own, kept so that the same request gets the same answer.

They may hold what is shown once, such as an API key. So each is sealed under the client's key, of which only a digest is
kept: who has the database alone can read none.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from registry.errors import Conflict, Invalid
from registry.tables import answers
from shared.envelope import seal, unseal

_LOCK = 5_130_217
"""First half of the advisory locks on keys."""
_CONTEXT = b"slipway answer 1"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a client was told: HTTP status, headers, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def recall(session: Session, user_id: UUID, key: str, fingerprint: str) -> Answer | None:
    """The answer that this user got under this key; None: nobody has asked, and nobody else does before the transaction ends.

    Raises `Conflict("idempotency_in_flight")` while another transaction has the key, `Invalid("idempotency_mismatch")`
    where it was used for a request of another `fingerprint`.
    """
    name = _name(user_id, key)
    if not session.execute(select(func.pg_try_advisory_xact_lock(_LOCK, func.hashtext(name)))).scalar_one():
        raise Conflict("idempotency_in_flight", "The request with this Idempotency-Key is still being worked at.")
    row = session.execute(select(answers).where(answers.c.name == name)).one_or_none()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise Invalid("idempotency_mismatch", "This Idempotency-Key was used for another request; take a new one.")
    headers, body = json.loads(unseal(_sealing(key), row.sealed, _CONTEXT))
    return Answer(status=row.status, headers=headers, body=base64.b64decode(body))


def keep(session: Session, user_id: UUID, key: str, fingerprint: str, answer: Answer) -> None:
    """Keep the answer, in the transaction that `recall` has had the key in."""
    content = json.dumps([dict(answer.headers), base64.b64encode(answer.body).decode()]).encode()
    session.execute(
        insert(answers).values(
            name=_name(user_id, key),
            user_id=user_id,
            fingerprint=fingerprint,
            status=answer.status,
            sealed=seal(_sealing(key), content, _CONTEXT),
        )
    )


def forget(session: Session, age: timedelta) -> None:
    """Remove those that are older."""
    session.execute(delete(answers).where(answers.c.created_at < func.now() - age))


def _name(user_id: UUID, key: str) -> str:
    return hashlib.sha256(f"{user_id} {key}".encode()).hexdigest()


def _sealing(key: str) -> bytes:
    derived = HKDF(key.encode(), 32, b"", SHA256, context=_CONTEXT)
    assert isinstance(derived, bytes)  # noqa: S101 - a tuple only for those who ask for several keys
    return derived
