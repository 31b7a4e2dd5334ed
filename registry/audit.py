"""Who did what, when, to what: an append-only trail in which every entry seals the one before it.

An entry's hash is the SHA-256 of the previous hash and the entry as canonical JSON, so that changing, removing or
inserting one shows in all that follow. What was cut off at the end shows only against a head that was noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, insert, select
from sqlalchemy.orm import Session

from registry.tables import audit

GENESIS = "0" * 64
_LOCK = 0x51_1B_A0_D1
"""Advisory lock that puts entries in a row: taken last in a transaction, held until its end."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who acts: a user, or (without id) Slipway itself."""

    id: UUID | None
    name: str


SLIPWAY = Actor(id=None, name="slipway")


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What a look at the whole trail found. `broken_at` is the first entry that does not fit; `head` the last hash."""

    entries: int
    head: str
    broken_at: int | None


def append(session: Session, actor: Actor, action: str, subject: str, details: Mapping[str, Any]) -> None:
    """Write an entry, as part of the transaction that does what it tells. `details`: JSON of texts and whole numbers."""
    session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    last = session.execute(select(audit.c.id, audit.c.hash).order_by(audit.c.id.desc()).limit(1)).one_or_none()
    entry: dict[str, Any] = {
        "id": 1 if last is None else last.id + 1,
        "at": session.execute(select(func.clock_timestamp())).scalar_one(),
        "actor_id": actor.id,
        "actor": actor.name,
        "action": action,
        "subject": subject,
        "details": dict(details),
    }
    previous = GENESIS if last is None else last.hash
    session.execute(insert(audit).values(**entry, previous=previous, hash=_hash(previous, entry)))


def verify(session: Session) -> Chain:
    """Read the whole trail and see whether every entry fits. Memory stays flat."""
    entries, head = 0, GENESIS
    with session.execute(select(audit).order_by(audit.c.id), execution_options={"yield_per": 1000}) as rows:
        for row in rows:
            entry = {name: getattr(row, name) for name in _SEALED}
            if row.id != entries + 1 or row.previous != head or row.hash != _hash(head, entry):
                return Chain(entries=entries, head=head, broken_at=row.id)
            entries, head = entries + 1, row.hash
    return Chain(entries=entries, head=head, broken_at=None)


def entries(
    session: Session,
    *,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    before: int | None = None,
    limit: int = 20,
) -> list[Row[Any]]:
    """Newest first; `before` is the id of the last one seen."""
    query = select(audit)
    for column, value in ((audit.c.actor, actor), (audit.c.action, action), (audit.c.subject, subject)):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(audit.c.id < before)
    return list(session.execute(query.order_by(audit.c.id.desc()).limit(limit)))


_SEALED = ("id", "at", "actor_id", "actor", "action", "subject", "details")


def _hash(previous: str, entry: Mapping[str, Any]) -> str:
    sealed = json.dumps(
        {name: _plain(entry[name]) for name in _SEALED}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(previous.encode() + sealed.encode()).hexdigest()


def _plain(value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds")
        case UUID():
            return str(value)
        case _:
            return value
