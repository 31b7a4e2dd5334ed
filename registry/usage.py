"""How much versions are used: counted by day, never by whom. Who took what is the audit trail's to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, Date, Uuid, cast, column, func, literal, select, values
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from registry.tables import usage, versions

Kind = Literal["download", "prediction"]

_TODAY = cast(func.timezone("UTC", func.now()), Date)


@dataclass(frozen=True, kw_only=True)
class Used:
    """`bytes` are those that downloads were for."""

    downloads: int = 0
    predictions: int = 0
    bytes: int = 0
    last_used: datetime | None = None

    @property
    def requests(self) -> int:
        return self.downloads + self.predictions


@dataclass(frozen=True, kw_only=True)
class Use:
    """A model's use over some days: as a whole, by day (UTC, oldest first) and by version (newest first)."""

    total: Used
    by_day: Sequence[tuple[date, Used]]
    by_version: Sequence[tuple[str, Used]]


def count(session: Session, version_id: UUID, kind: Kind, count: int = 1, *, bytes: int = 0) -> None:  # noqa: A002
    """Add to what was counted of the version today (UTC)."""
    statement = upsert(usage).values(version_id=version_id, day=_TODAY, kind=kind, count=count, bytes=bytes)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["version_id", "day", "kind"],
            set_={
                "count": usage.c.count + statement.excluded.count,
                "bytes": usage.c.bytes + statement.excluded.bytes,
                "last_at": func.now(),
            },
        )
    )


def count_many(session: Session, counts: Mapping[UUID, int], kind: Kind) -> None:
    """Add to what was counted of several versions today; those that are gone meanwhile are left out."""
    rows = values(column("id", Uuid), column("count", BigInteger), name="counted").data(sorted(counts.items()))
    counted = select(rows.c.id, _TODAY, literal(kind), rows.c.count).join(versions, versions.c.id == rows.c.id)
    statement = upsert(usage).from_select(["version_id", "day", "kind", "count"], counted)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["version_id", "day", "kind"],
            set_={"count": usage.c.count + statement.excluded.count, "last_at": func.now()},
        )
    )


def of_model(session: Session, model_id: UUID, *, days: int) -> Use:
    """What was counted of one model in the last `days` days, today among them."""
    recent = (versions.c.model_id == model_id, usage.c.day > _TODAY - days)
    joined = usage.join(versions, versions.c.id == usage.c.version_id)
    total = session.execute(select(*_SUMS).select_from(joined).where(*recent)).one()
    by_day = session.execute(
        select(usage.c.day, *_SUMS).select_from(joined).where(*recent).group_by(usage.c.day).order_by(usage.c.day)
    )
    by_version = session.execute(
        select(versions.c.version, versions.c.ordinal, *_SUMS)
        .select_from(joined)
        .where(*recent)
        .group_by(versions.c.version, versions.c.ordinal)
        .order_by(versions.c.ordinal.desc())
    )
    return Use(
        total=_used(total),
        by_day=[(row.day, _used(row)) for row in by_day],
        by_version=[(row.version, _used(row)) for row in by_version],
    )


def _sum(column: ColumnElement[Any], kind: Kind, label: str) -> ColumnElement[Any]:
    return func.coalesce(func.sum(column).filter(usage.c.kind == kind), 0).label(label)


_SUMS = (
    _sum(usage.c.count, "download", "downloads"),
    _sum(usage.c.count, "prediction", "predictions"),
    func.coalesce(func.sum(usage.c.bytes), 0).label("bytes"),
    func.max(usage.c.last_at).label("last_used"),
)


def _used(row: Any) -> Used:
    return Used(
        downloads=int(row.downloads),
        predictions=int(row.predictions),
        bytes=int(row._mapping["bytes"]),  # noqa: SLF001 - the documented way to a column by its name
        last_used=row.last_used,
    )
