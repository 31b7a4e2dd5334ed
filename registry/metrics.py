"""What has been measured of a version, as rows: every number with its data set and its time. Nothing is overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, func, insert, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from registry import figures
from registry.tables import metrics, users


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number. `at` is when it was measured, now where nobody says."""

    name: str
    value: float
    dataset: str | None = None
    at: datetime | None = None


def record(session: Session, version_id: UUID, found: Sequence[Figure], *, by: UUID | None) -> list[int]:
    """Add to the history; the ids of what was added. Raises `Invalid` for a name or a value that makes no sense."""
    rows = []
    for each in found:
        name, value = figures.checked(each.name, each.value)
        rows.append(
            {
                "version_id": version_id,
                "name": name,
                "value": value,
                "dataset": each.dataset,
                "at": each.at or func.now(),
                "recorded_by": by,
            }
        )
    return [session.execute(insert(metrics).values(row).returning(metrics.c.id)).scalar_one() for row in rows]


def take_declared(session: Session, version: Row[Any]) -> None:
    """Record what the uploader has declared, on the data set that they name."""
    said = version.declared
    dataset = said.get("benchmark_dataset")
    declared = [
        Figure(name=name, value=said[field], dataset=dataset)
        for field, name in figures.DECLARED.items()
        if field in said
    ]
    record(session, version.id, declared, by=version.uploaded_by)


def history(
    session: Session,
    version_id: UUID,
    *,
    name: str | None = None,
    dataset: str | None = None,
    before: int | None = None,
    ids: Sequence[int] | None = None,
    limit: int = 100,
) -> list[Row[Any]]:
    """By the time of measuring, newest first; `before` is the id of the last one seen."""
    query = _described().where(metrics.c.version_id == version_id)
    if name is not None:
        query = query.where(metrics.c.name == figures.SPELLINGS.get(name.lower(), name))
    if dataset is not None:
        query = query.where(metrics.c.dataset == dataset)
    if ids is not None:
        query = query.where(metrics.c.id.in_(ids))
    if before is not None:
        last = metrics.alias("last")
        at = select(last.c.at).where(last.c.id == before, last.c.version_id == version_id).scalar_subquery()
        query = query.where(or_(metrics.c.at < at, and_(metrics.c.at == at, metrics.c.id < before)))
    return list(session.execute(query.order_by(metrics.c.at.desc(), metrics.c.id.desc()).limit(limit)))


def latest(session: Session, version_ids: Sequence[UUID]) -> dict[UUID, list[Row[Any]]]:
    """The number that was measured last, of each name and data set, by version."""
    found: dict[UUID, list[Row[Any]]] = {version_id: [] for version_id in version_ids}
    for row in session.execute(latest_of(metrics.c.version_id.in_(version_ids))):
        found[row.version_id].append(row)
    return found


def latest_of(which: ColumnElement[bool]) -> Select[Any]:
    """As `latest`, for versions that meet a condition, by name and data set."""
    key = (metrics.c.version_id, metrics.c.name, metrics.c.dataset)
    query = _described().ext(distinct_on(*key)).where(which)
    return query.order_by(*key, metrics.c.at.desc(), metrics.c.id.desc())


def _described() -> Select[Any]:
    named = select(metrics, users.c.username.label("recorded_by_name"))
    return named.outerjoin(users, users.c.id == metrics.c.recorded_by)
