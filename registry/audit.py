"""Who did what, when, to what: an append-only trail in which every entry seals the one before it.

An entry's hash is the SHA-256 of the previous hash and the entry as canonical JSON, so that changing, removing or
inserting one shows. Now and then the instance signs the last hash: what was cut off at the end, or written anew from some
entry on, shows against these checkpoints; what came after the last of them shows only against a head noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from registry.tables import audit, audit_checkpoints
from shared import signing
from shared.signing import Signature, Signer

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
class Fault:
    """What is wrong with entry `first`, or with all from `first` to `last`.

    changed: it is not what was written. removed: it is gone. rewritten: it fits its neighbours and is not what was signed,
    so it was written anew together with others before it. unsigned: no trusted key made the checkpoint at it.
    """

    what: Literal["changed", "removed", "rewritten", "unsigned"]
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What a look at the whole trail found: `entries` fit from the first on, `head` is the hash of the last of those.

    `signed` is the last entry with a checkpoint that holds, None where there is none.
    """

    entries: int
    head: str
    faults: tuple[Fault, ...] = field(default=())
    signed: int | None = None

    @property
    def broken_at(self) -> int | None:
        """The first entry with which something is wrong."""
        return min((fault.first for fault in self.faults), default=None)


MOST_FAULTS = 100
"""Named in one look; a trail with so many is beyond repair."""
OFTEN = 1000
"""Entries after which a checkpoint is due, however little time has passed."""


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


def checkpoint(session: Session, signer: Signer, *, every: timedelta = timedelta(0)) -> int | None:
    """Sign the last entry, if there is one that is not signed and a checkpoint is due. The entry's id, where one was made."""
    newest = select(audit.c.id, audit.c.hash, audit.c.at).order_by(audit.c.id.desc()).limit(1)
    last = session.execute(newest).one_or_none()
    signed = session.execute(
        select(audit_checkpoints.c.entry_id, audit_checkpoints.c.at)
        .order_by(audit_checkpoints.c.entry_id.desc())
        .limit(1)
    ).one_or_none()
    if last is None or (signed is not None and signed.entry_id >= last.id):
        return None
    if signed is not None and last.id - signed.entry_id < OFTEN:
        now = session.execute(select(func.clock_timestamp())).scalar_one()
        if now - signed.at < every:
            return None
    made = signer.sign(_sealed(last.id, last.hash))
    values = {"entry_id": last.id, "hash": last.hash, "key_id": made.key_id, "signature": made.value}
    session.execute(upsert(audit_checkpoints).values(**values).on_conflict_do_nothing())
    return int(last.id)


def verify(session: Session, trusted: Iterable[str]) -> Chain:
    """Read the whole trail and name every entry that is not as it was written. Memory stays flat.

    `trusted` are the public keys (base64) whose checkpoints count.
    """
    keys = tuple(trusted)
    checkpoints = {
        row.entry_id: row for row in session.execute(select(audit_checkpoints).order_by(audit_checkpoints.c.entry_id))
    }
    look = _Look()
    with session.execute(select(audit).order_by(audit.c.id), execution_options={"yield_per": 1000}) as rows:
        for row in rows:
            look.take(row)
            if (mark := checkpoints.pop(row.id, None)) is not None:
                look.compare(row, mark, keys)
    if checkpoints and max(checkpoints) > look.last:
        look.fault("removed", look.last + 1, max(checkpoints))
    return Chain(entries=look.entries, head=look.head, faults=tuple(look.faults), signed=look.signed)


class _Look:
    """Where a look at the trail stands after some entries."""

    def __init__(self) -> None:
        self.last = 0
        self.entries, self.head = 0, GENESIS
        self.signed: int | None = None
        self.faults: list[Fault] = []
        self._before: str | None = GENESIS  # hash of the entry before; None where that one is missing
        self._earlier = (0, GENESIS)

    def fault(self, what: Literal["changed", "removed", "rewritten", "unsigned"], first: int, last: int) -> None:
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(Fault(what=what, first=first, last=last))

    def take(self, row: Row[Any]) -> None:
        """An entry that does not fit its own hash was changed. One whose hash was made anew no longer fits the next one."""
        if row.id > self.last + 1:
            self.fault("removed", self.last + 1, row.id - 1)
            self._before = None
        fits = row.hash == _hash(row.previous, {name: getattr(row, name) for name in _SEALED})
        if not fits:
            self.fault("changed", row.id, row.id)
        elif self._before is not None and row.previous != self._before:
            blamed = max(row.id - 1, 1)
            if not self.faults:
                self.entries, self.head = self._earlier
            if not self._blamed(blamed):
                self.fault("changed", blamed, blamed)
        if not self.faults:
            self._earlier = (self.entries, self.head)
            self.entries, self.head = row.id, row.hash
        self.last, self._before = row.id, row.hash

    def compare(self, row: Row[Any], mark: Row[Any], trusted: tuple[str, ...]) -> None:
        """Hold an entry against the checkpoint that was made at it."""
        made = Signature(key_id=mark.key_id, value=mark.signature)
        if not signing.verify(_sealed(row.id, mark.hash), made, trusted):
            self.fault("unsigned", row.id, row.id)
        elif row.hash == mark.hash:
            self.signed = row.id
        elif not self._blamed(row.id):
            self.fault("rewritten", (self.signed or 0) + 1, row.id)

    def _blamed(self, entry_id: int) -> bool:
        return any(fault.what == "changed" and fault.first == entry_id for fault in self.faults[-2:])


def entries(
    session: Session,
    *,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: int = 20,
) -> list[Row[Any]]:
    """Newest first; `before` is the id of the last one seen. `since` is within, `until` without."""
    query = select(audit)
    if since is not None:
        query = query.where(audit.c.at >= since)
    if until is not None:
        query = query.where(audit.c.at < until)
    for column, value in ((audit.c.actor, actor), (audit.c.action, action), (audit.c.subject, subject)):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(audit.c.id < before)
    return list(session.execute(query.order_by(audit.c.id.desc()).limit(limit)))


_SEALED = ("id", "at", "actor_id", "actor", "action", "subject", "details")


def _sealed(entry_id: int, digest: str) -> bytes:
    """What is signed at a checkpoint."""
    return f"slipway audit checkpoint\n{entry_id}\n{digest}\n".encode()


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
