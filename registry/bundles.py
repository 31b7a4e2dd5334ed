"""What the registry can tell of a version to another instance, and what another instance has told of one of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, Select, or_, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from registry import store
from registry.store import Artifact
from registry.tables import (
    alias_moves,
    approvals,
    artifacts,
    audit,
    deployments,
    lineage,
    metrics,
    signatures,
    users,
    versions,
)

IMPORTED = "imported-bundle.json"
"""The artifact that holds what another instance told, as it came."""
COMPARED = ("canonical", "variant")
READS = ("artifact.downloaded", "bundle.exported", "version.exported")
"""Audit entries that are about readers and not about the version: they stay here."""

Outcome = Literal["same", "different", "absent"]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A form that another instance made, beside what was made of the same bytes here.

    `toolchain_same` is None where one of the two is not known.
    """

    name: str
    theirs: str
    ours: str | None
    outcome: Outcome
    toolchain_same: bool | None


def compare(theirs: Iterable[Mapping[str, Any]], ours: Iterable[Artifact]) -> list[Compared]:
    """Digest by digest. `theirs` has the name, SHA-256 and toolchain of each of their forms. Pure."""
    made = {one.name: one for one in ours if one.role in COMPARED}
    return [_compared(each, made.get(each["name"])) for each in theirs]


def _compared(theirs: Mapping[str, Any], ours: Artifact | None) -> Compared:
    outcome: Outcome = "absent" if ours is None else "same" if ours.sha256 == theirs["sha256"] else "different"
    here = None if ours is None else ours.meta.get("toolchain")
    there = theirs.get("toolchain")
    return Compared(
        name=theirs["name"],
        theirs=theirs["sha256"],
        ours=None if ours is None else ours.sha256,
        outcome=outcome,
        toolchain_same=None if not here or not there else here == there,
    )


def remember(session: Session, version_id: UUID, artifact: Artifact) -> None:
    """Add what another instance told to a version that has only just been made."""
    session.execute(
        upsert(artifacts).values(
            version_id=version_id,
            name=artifact.name,
            role=artifact.role,
            key=artifact.key,
            sha256=artifact.sha256,
            size=artifact.size,
            media_type=artifact.media_type,
            meta=dict(artifact.meta),
        )
    )


def origin(session: Session, version_id: UUID) -> Artifact | None:
    """The artifact that holds what another instance told of a version, None for one that was made here."""
    return next((one for one in store.list_artifacts(session, version_id) if one.name == IMPORTED), None)


def history(session: Session, version: Row[Any]) -> dict[str, list[dict[str, Any]]]:
    """What happened to a version, oldest first, as JSON: people by name, moments in UTC."""
    about = {
        "aliases": _named(alias_moves, alias_moves.c.moved_by)
        .where(or_(alias_moves.c.version_id == version.id, alias_moves.c.previous_id == version.id))
        .order_by(alias_moves.c.id),
        "metrics": _named(metrics, metrics.c.recorded_by)
        .where(metrics.c.version_id == version.id)
        .order_by(metrics.c.id),
        "deployments": _named(deployments, deployments.c.deployed_by)
        .where(deployments.c.version_id == version.id)
        .order_by(deployments.c.deployed_at, deployments.c.id),
        "approvals": _named(approvals, approvals.c.approved_by)
        .where(approvals.c.version_id == version.id)
        .order_by(approvals.c.created_at, approvals.c.id),
        "lineage": _named(lineage, lineage.c.created_by)
        .add_columns(versions.c.sha256.label("parent_sha256"))
        .outerjoin(versions, versions.c.id == lineage.c.parent_id)
        .where(lineage.c.version_id == version.id)
        .order_by(lineage.c.created_at, lineage.c.id),
        "signatures": select(signatures)
        .where(signatures.c.version_id == version.id)
        .order_by(signatures.c.created_at, signatures.c.sha256, signatures.c.key_id),
        "audit": select(audit)
        .where(audit.c.subject == str(version.id), audit.c.action.not_in(READS))
        .order_by(audit.c.id),
    }
    return {name: _rows(session, query) for name, query in about.items()}


def username(session: Session, user_id: UUID) -> str:
    return str(session.execute(select(users.c.username).where(users.c.id == user_id)).scalar_one())


def plain(value: Any) -> Any:
    """A value of a row as JSON."""
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds")
        case UUID():
            return str(value)
        case _:
            return value


def _named(table: Any, person: Any) -> Select[Any]:
    return select(table, users.c.username.label("by")).outerjoin(users, users.c.id == person)


def _rows(session: Session, query: Select[Any]) -> list[dict[str, Any]]:
    rows: Sequence[Row[Any]] = session.execute(query).all()
    return [{name: plain(value) for name, value in row._mapping.items()} for row in rows]  # noqa: SLF001 - as documented
