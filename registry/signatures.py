"""Signatures of manifests as rows."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from registry.seals import Signed
from registry.tables import signatures
from shared.signing import Signature


def add(
    session: Session, version_id: UUID, *, sha256: str, key_id: str, algorithm: str, value: str, public_key: str
) -> None:
    """Keep a signature of the manifest with that SHA-256. Doing it twice is doing it once."""
    session.execute(
        upsert(signatures)
        .values(
            version_id=version_id,
            sha256=sha256,
            key_id=key_id,
            algorithm=algorithm,
            signature=value,
            public_key=public_key,
        )
        .on_conflict_do_nothing()
    )


def of_version(session: Session, version_id: UUID) -> dict[str, list[Signed]]:
    """By the SHA-256 of the manifest that they are for, oldest first."""
    found: dict[str, list[Signed]] = {}
    rows = select(signatures).where(signatures.c.version_id == version_id)
    for row in session.execute(rows.order_by(signatures.c.created_at, signatures.c.key_id)):
        signature = Signature(key_id=row.key_id, value=row.signature, algorithm=row.algorithm)
        found.setdefault(row.sha256, []).append(
            Signed(signature=signature, public_key=row.public_key, created_at=row.created_at)
        )
    return found
